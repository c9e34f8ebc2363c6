"""A server of S3 that containers reach over the network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

BUCKET = "bucket"
SERVER = "--add-host=objects:host-gateway"


def access(url: str) -> dict[str, str]:
    """The environment of a container that uses the server at this address."""
    return {"S3_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "s3cr3t-key"}


class S3:
    """A bucket that containers reach at `url`."""

    def __init__(self, client: Any, url: str) -> None:
        self.client, self.url = client, url
        client.create_bucket(Bucket=BUCKET)

    @property
    def variables(self) -> dict[str, str]:
        return access(self.url)

    def put(self, key: str, body: str | bytes) -> None:
        self.client.put_object(Bucket=BUCKET, Key=key, Body=body)

    def get(self, key: str) -> str | None:
        try:
            body: bytes = self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        except self.client.exceptions.NoSuchKey:
            return None
        return body.decode()


@contextmanager
def s3_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    """The server with an empty bucket."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="0.0.0.0", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    for name, value in {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "key"}.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", region_name="us-east-1")
    bucket = S3(client, f"http://objects:{port}")
    client.put_object(Bucket=BUCKET, Key="other", Body=b"")
    try:
        yield bucket
    finally:
        client.close()
        server.stop()
