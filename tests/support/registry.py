"""A registry on loopback: Debian's docker-registry, which `scripts/registry` fetches."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from tests.support.matrix import ROOT
from tests.support.ports import free_port


@contextmanager
def registry(folder: Path) -> Iterator[str]:
    """Run a registry that stores into a folder while the block runs; yields its address."""
    subprocess.run([ROOT / "scripts/registry"], cwd=ROOT, check=True)
    address = f"127.0.0.1:{free_port('127.0.0.1')}"
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
