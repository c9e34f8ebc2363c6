"""Jobs on several hosts: a container for each host, on a network where they find each other by name."""

from __future__ import annotations

import json
import os
import shutil
import time
import uuid
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.contract.training.conftest import Training
from tests.support.docker import Container, docker
from tests.support.locks import exclusive
from tests.support.matrix import ROOT, built, matrix
from tests.support.wheels import fetched

PROGRAMS = Path(__file__).parent / "programs"
EXAMPLES = ROOT / "examples"

BOUND = 300.0
"""Seconds within which a job in trouble must have ended everywhere: generous, for slow machines."""


class Cluster:
    """One job, with a container for each of its hosts."""

    def __init__(self, image: str, root: Path, network: str) -> None:
        self.image, self.root, self.network = image, root, network
        self.options: tuple[str, ...] = ()
        self.hosts: dict[str, Training] = {}
        self.containers: dict[str, Container] = {}
        self._running = ExitStack()

    def add(self, *hosts: str) -> None:
        """Give each host an empty /opt/ml of its own."""
        for host in hosts:
            for part in ("input/config", "input/data", "model", "output/data"):
                (self.root / host / part).mkdir(parents=True)
            self.hosts[host] = Training(self.image, self.root / host)

    def configure(self, hyperparameters: dict[str, Any], *hosts: str, **resources: Any) -> None:
        """Give every host what the platform gives it: the same hyperparameters, and who is who."""
        self.add(*hosts)
        for host in hosts:
            self.hosts[host].config("hyperparameters.json", hyperparameters)
            self.hosts[host].config(
                "resourceconfig.json",
                {"current_host": host, "hosts": hosts, "network_interface_name": "eth0", **resources},
            )

    def start(self, *hosts: str, options: tuple[str, ...] = ()) -> None:
        """Start these hosts, or all, as the platform does."""
        for host in hosts or self.hosts:
            ml = self.hosts[host].root
            mounts = [f"--volume={ml / part}:/opt/ml/{part}" for part in ("input", "model", "output")]
            self.run(host, *mounts, *self.options, *options)

    def run(self, host: str, *options: str, command: tuple[str, ...] = ("train",)) -> None:
        alias = (f"--network={self.network}", f"--network-alias={host}")
        container = Container(self.image, *command, options=(*alias, *options))
        self.containers[host] = self._running.enter_context(container)

    def wait_for(self, text: str, *hosts: str) -> None:
        """Block until these hosts, or all, have written it."""
        for host in hosts or self.hosts:
            self.containers[host].wait_for_log(text, timeout=BOUND)

    def cut_off(self, host: str) -> None:
        docker("network", "disconnect", self.network, self.containers[host].name)

    def codes(self) -> dict[str, int]:
        """The exit code of each host. Fails if one has not ended in time."""
        deadline = time.monotonic() + BOUND
        while any(container.running for container in self.containers.values()):
            assert time.monotonic() < deadline, f"not ended within {BOUND:.0f} s: {self.logs()}"
            time.sleep(0.2)
        return {host: self.containers[host].wait() for host in self.hosts}

    def logs(self) -> str:
        logs = {host: container.log().output[-8000:] for host, container in self.containers.items()}
        return "".join(f"\n--- {host}\n{log}" for host, log in logs.items())

    def assert_success(self) -> None:
        codes = self.codes()
        assert not any(codes.values()), self.logs()
        assert all(training.success for training in self.hosts.values())

    def output(self, host: str, name: str) -> Any:
        """A JSON file that the program left in output/data."""
        return json.loads((self.hosts[host].root / "output/data" / name).read_text())

    def close(self) -> None:
        self._running.close()


@pytest.fixture
def cluster(tmp_path: Path, network: str) -> Iterator[Callable[..., Any]]:
    """Makes the cluster of an image, of this class."""
    with ExitStack() as made:

        def make(image: str, kind: type[Cluster] = Cluster) -> Cluster:
            cluster = kind(image, tmp_path, network)
            made.callback(cluster.close)
            return cluster

        yield make


def mpi_code(image: str, code: Path) -> Path:
    """A folder with mpi4py, as pip would install it in the Dockerfile, and a program that sums up."""
    cell = next(cell for cell in matrix() if cell.tag == image)
    wheels = fetched(f"mpi4py-{cell.variant}", cell.python, "mpi4py==4.1.2")
    for wheel in wheels.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(code)
    shutil.copy(PROGRAMS / "allreduce_mpi.py", code / "train.py")
    return code


def python_of(variant: str) -> str:
    return next(cell.python for cell in matrix() if cell.variant == variant)


@pytest.fixture(scope="session")
def torch_image(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The image of examples/distributed-torch with PyTorch for CPUs, in the variant that it names."""
    variant = "bookworm"
    if request.config.getoption("--variant") not in (None, variant):
        pytest.skip(f"the example is for {variant}")
    base = next((c for c in built() if (c.image, c.variant) == ("cpu-train", variant)), None)
    assert base, "run make build-all"
    name = base.tag.rpartition(":")[2]
    # `+cpu` names the build without CUDA, wherever it comes from.
    wheels = fetched("torch", python_of(variant), "torch==2.13.0+cpu")
    context = tmp_path_factory.mktemp("distributed") / "torch"
    shutil.copytree(EXAMPLES / "distributed-torch", context)
    shutil.copytree(wheels, context / "wheels", copy_function=os.link)
    tag = f"optml-test-distributed-torch-{uuid.uuid4().hex[:12]}:{name}"
    options = ("--force-rm", "--build-arg", "PIP_NO_INDEX=1", "--build-arg", f"TAG={name}", "--tag", tag)
    with exclusive("torch-image"):  # the first builds it, the others find its layers
        docker("build", *options, context, timeout=600)
    yield tag
    docker("rmi", "--force", tag)
