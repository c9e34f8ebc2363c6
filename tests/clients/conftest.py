"""The SDKs as clients of the images: each in a virtual environment of its own, with moto for AWS."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.clients.workplace import HERE, PROJECT, Workplace
from tests.support.docker import docker, inspect
from tests.support.locks import exclusive
from tests.support.matrix import ROOT, built_cell, matrix
from tests.support.ports import free_port

BUCKET = "points"
NETWORK = "sagemaker-local"
"""The name that every SDK gives the network of its containers."""


@pytest.fixture(scope="session")
def variant(request: pytest.FixtureRequest) -> str:
    """The variant under test. One is enough: what the SDKs need of an image is the same in all."""
    return request.config.getoption("--variant") or matrix()[0].variant


@pytest.fixture(scope="session")
def train_image(variant: str) -> str:
    return built_cell("cpu-train", variant).tag


@pytest.fixture(scope="session")
def serve_image(variant: str) -> str:
    return built_cell("cpu-serve", variant).tag


@pytest.fixture(scope="session")
def own_image(train_image: str) -> Iterator[str]:
    """An image with the program of PROJECT inside."""
    tag = f"optml-test-own-{uuid.uuid4().hex[:12]}"
    docker("build", "--force-rm", "--build-arg", f"IMAGE={train_image}", "--tag", tag, PROJECT)
    yield tag
    docker("rmi", "--force", tag)


def _venv(name: str) -> Path:
    """The Python of a virtual environment with requirements-NAME.lock, made if absent or outdated."""
    lock, venv = HERE / f"requirements-{name}.lock", ROOT / "build/venvs" / name
    digest, stamp = hashlib.sha256(lock.read_bytes()).hexdigest(), venv / "made-from"
    with exclusive(f"venv-{name}"):
        if not stamp.exists() or stamp.read_text() != digest:
            subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", venv], check=True)
            pip = [sys.executable, "-m", "pip", "--python", str(venv / "bin/python"), "--quiet"]
            options = ("--no-deps", "--require-hashes", "--only-binary", ":all:", "--no-compile")
            subprocess.run([*pip, "install", *options, "--requirement", lock], check=True)
            stamp.write_text(digest)
    return venv / "bin/python"


@pytest.fixture(scope="session")
def sdk2() -> Path:
    return _venv("sdk2")


@pytest.fixture(scope="session")
def sdk3() -> Path:
    return _venv("sdk3")


@pytest.fixture(scope="session")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a moto server with one bucket, at an address that containers can reach, too."""
    bridge = str(ipaddress.ip_network(inspect("bridge")["IPAM"]["Config"][0]["Subnet"])[1])
    port = free_port(bridge)
    command = [sys.executable, "-m", "moto.server", "--host", bridge, "--port", str(port)]
    with (tmp_path_factory.mktemp("moto") / "log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection((bridge, port), timeout=1).close()
            break
        except OSError:
            assert server.poll() is None and time.monotonic() < deadline, "the moto server does not answer"
            time.sleep(0.1)
    url = f"http://{bridge}:{port}"
    requests.put(f"{url}/{BUCKET}", timeout=10).raise_for_status()
    yield url
    server.terminate()
    server.wait()


@pytest.fixture(scope="session")
def network() -> Iterator[None]:
    """Leave no network behind."""
    before = docker("network", "inspect", NETWORK, check=False).code == 0
    yield
    if not before:
        docker("network", "rm", NETWORK, check=False)


@pytest.fixture
def alone_with_network() -> Iterator[None]:
    """One test at a time: local mode always makes a network of the same name."""
    with exclusive(NETWORK):
        yield


@pytest.fixture
def workplace(tmp_path: Path, aws: str, network: None, alone_with_network: None) -> Iterator[Workplace]:
    """A workplace with fake credentials, with local mode set up in the SDKs' own settings."""
    subprocess.run([ROOT / "scripts/compose"], cwd=ROOT, check=True)
    if not shutil.which("pgrep"):  # with which the SDKs find the processes to kill
        subprocess.run(["scripts/apt-install", "procps"], cwd=ROOT, check=True)
    project = shutil.copytree(PROJECT, tmp_path / "project")  # the SDK mounts nothing from below /root
    place = Workplace(
        tmp_path,
        {
            "PATH": f"{ROOT}/build/bin:{os.environ['PATH']}",
            "HOME": str(tmp_path),
            "PROJECT": str(project),
            "AWS_ACCESS_KEY_ID": "nobody",
            "AWS_SECRET_ACCESS_KEY": "nothing",
            "AWS_DEFAULT_REGION": "eu-west-1",
            "AWS_ENDPOINT_URL": aws,
        },
    )
    place.containers.mkdir()
    place.configure(serving_port=free_port())
    # Without a bucket the SDK would ask STS for its name, at an address that cannot be configured.
    place.set_defaults(TelemetryOptOut=True, Session={"DefaultS3Bucket": BUCKET})
    yield place
    place.remove_containers()
