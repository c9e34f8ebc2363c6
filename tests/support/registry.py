"""A registry on loopback: Debian's docker-registry, which `scripts/registry` fetches, and skopeo."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from tests.support.matrix import ROOT


@contextmanager
def registry(folder: Path) -> Iterator[str]:
    """The address of a registry that keeps what it gets in a folder, and ends with the block."""
    subprocess.run([ROOT / "scripts/registry"], cwd=ROOT, check=True)
    if not shutil.which("skopeo"):
        subprocess.run([ROOT / "scripts/apt-install", "skopeo"], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    configuration = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": f"{folder}/registry"}},
        "http": {"addr": address},
    }
    (folder / "registry.yml").write_text(json.dumps(configuration))
    with (folder / "registry.log").open("w") as log:
        process = subprocess.Popen(
            [ROOT / "build/bin/docker-registry", "serve", folder / "registry.yml"],
            stdout=log,
            stderr=log,
            env={**os.environ, "OTEL_TRACES_EXPORTER": "none"},
        )
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                requests.get(f"http://{address}/v2/", timeout=5).raise_for_status()
                break
            except requests.RequestException:
                assert process.poll() is None and time.monotonic() < deadline, "the registry does not start"
                time.sleep(0.05)
        yield address
    finally:
        process.terminate()
        process.wait()
