"""Requirements from AWS CodeArtifact, whose two calls and package index are a server of our own."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.support.docker import HARDENED
from tests.support.http import answering
from tests.support.training import Training
from tests.support.wheels import wheel

pytestmark = pytest.mark.image("cpu-train")

TOKEN = "t0ken-of-codeartifact-which-is-very-long"
ARN = "arn:aws:codeartifact:eu-west-1:123456789012:repository/corp/main"
SERVER = "--add-host=index:host-gateway"


class Index(ThreadingHTTPServer):
    """CodeArtifact with one package. A download waits until `go` is set."""

    daemon_threads = True

    def __init__(self, directory: Path) -> None:
        super().__init__(("0.0.0.0", 0), Answers)
        self.wheel = directory / wheel(directory, "tinypkg")
        self.url = f"http://index:{self.server_port}"
        self.calls: list[str] = []
        self.downloading, self.go = threading.Event(), threading.Event()
        self.go.set()

    def variables(self, **others: str) -> dict[str, str]:
        return {
            "CA_REPOSITORY_ARN": ARN,
            "AWS_ENDPOINT_URL_CODEARTIFACT": self.url,
            "AWS_ACCESS_KEY_ID": "id",
            "AWS_SECRET_ACCESS_KEY": "s3cr3t-access-key",
            "PIP_TRUSTED_HOST": "index",
            **others,
        }


class Answers(BaseHTTPRequestHandler):
    server: Index

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        self.server.calls.append(self.path)
        if "domain=corp&domain-owner=123456789012" not in self.path:
            return self.answer(404, json.dumps({"message": "no such domain"}))
        return self.answer(200, json.dumps({"authorizationToken": TOKEN, "expiration": 1}))

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        self.server.calls.append(self.path)
        if path == "/v1/repository/endpoint":
            assert "format=pypi" in query and "repository=main" in query
            return self.answer(200, json.dumps({"repositoryEndpoint": f"{self.server.url}/pypi/main/"}))
        if self.headers["Authorization"] != "Basic " + base64.b64encode(f"aws:{TOKEN}".encode()).decode():
            return self.answer(401, "who are you?")
        if path == "/pypi/main/simple/tinypkg/":
            name = self.server.wheel.name
            return self.answer(
                200, f'<a href="{self.server.url}/pypi/main/files/{name}">{name}</a>', "text/html"
            )
        if path.startswith("/pypi/main/files/"):
            self.server.downloading.set()
            self.server.go.wait(30)
            return self.answer(200, self.server.wheel.read_bytes(), "application/octet-stream")
        return self.answer(404, "not here")

    def answer(self, status: int, body: str | bytes, kind: str = "application/json") -> None:
        data = body.encode() if isinstance(body, str) else body
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    server = Index(tmp_path)
    with answering(server):
        yield server
        server.go.set()


def test_requirements_come_from_it_and_the_token_is_nowhere(training: Training, index: Index) -> None:
    training.code("requirements.txt", "tinypkg==1.0\n")
    training.code("train.py", f"import os, tinypkg; print(tinypkg.NAME, {TOKEN!r} in str(os.environ))")
    index.go.clear()
    with training.start(SERVER, **index.variables()) as container:
        assert index.downloading.wait(30), container.log().output
        argv = container.exec("sh", "-c", "cat /proc/[0-9]*/cmdline").stdout.replace("\0", " ")
        index.go.set()
        assert container.wait() == 0, container.log().output
        log = container.log()
    assert "install -r requirements.txt" in argv
    assert log.stdout.endswith("tinypkg False\n")
    for place in (argv, log.output):
        assert TOKEN not in place and "s3cr3t-access-key" not in place


@pytest.mark.parametrize("requirement", ["absent-package==9", "tinypkg==2"])
@pytest.mark.one_variant
def test_a_package_that_it_does_not_have_is_named_without_the_token(
    training: Training, index: Index, requirement: str
) -> None:
    training.code("requirements.txt", requirement)
    training.code("train.py", "print('never')")
    done = training.train(SERVER, **index.variables())
    assert done.code == 1 and "never" not in done.stdout
    assert requirement in training.failure and "\n" not in training.failure
    assert TOKEN not in done.output + training.failure


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        (
            {"CA_REPOSITORY_ARN": "arn:aws:s3:::bucket"},
            "CA_REPOSITORY_ARN is 'arn:aws:s3:::bucket'; write arn:",
        ),
        ({"CA_REPOSITORY_ARN": ARN.replace("corp", "other")}, "no such domain"),
        ({"AWS_ENDPOINT_URL_CODEARTIFACT": "http://127.0.0.1:9"}, "CodeArtifact gives no access to arn:"),
        (
            {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_EC2_METADATA_DISABLED": "true"},
            "Unable to locate credentials",
        ),
    ],
    ids=["no repository", "no such domain", "down", "no credentials"],
)
@pytest.mark.one_variant
def test_what_goes_wrong_is_one_line(
    training: Training, index: Index, variables: dict[str, str], said: str
) -> None:
    training.code("requirements.txt", "tinypkg")
    training.code("train.py", "print('never')")
    done = training.train(SERVER, **index.variables(**variables))
    assert done.code == 1
    assert said in training.failure and "\n" not in training.failure
    assert "Traceback" not in done.output


@pytest.mark.one_variant
def test_without_requirements_nobody_is_asked(training: Training, index: Index) -> None:
    training.code("train.py", "print('ran')")
    assert training.train(SERVER, *HARDENED, **index.variables()).stdout == "ran\n"
    assert index.calls == []
