"""Jobs on several hosts: a container for each host, on a network where they find each other by name."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.support.docker import Container, docker
from tests.support.training import Training

BOUND = 300.0
"""Seconds within which a job in trouble must have ended on all hosts: generous, for slow machines."""


class Cluster:
    """One job, with a container for each of its hosts."""

    def __init__(self, image: str, root: Path, network: str, bound: float = BOUND) -> None:
        self.image, self.root, self.network, self.bound = image, root, network, bound
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
        """Start these hosts, or all of them, as the platform does."""
        for host in hosts or self.hosts:
            self.run(host, *self.mounts(host), *self.options, *options)

    def mounts(self, host: str, place: str = "/opt/ml") -> list[str]:
        """Options that mount what the host reads and writes; the code is the image's."""
        root = self.hosts[host].root
        return [f"--volume={root / part}:{place}/{part}" for part in ("input", "model", "output")]

    def run(self, host: str, *options: str, command: tuple[str, ...] = ("train",)) -> None:
        alias = (f"--network={self.network}", f"--network-alias={host}")
        container = Container(self.image, *command, options=(*alias, *options))
        self.containers[host] = self._running.enter_context(container)

    def wait_for(self, text: str, *hosts: str) -> None:
        """Block until these hosts, or all of them, have written `text`."""
        for host in hosts or self.hosts:
            self.containers[host].wait_for_log(text, timeout=self.bound)

    def lose(self, host: str, trouble: str) -> None:
        """Make a host vanish: it is `killed` or `cut off` from the network."""
        if trouble == "killed":
            self.containers[host].kill("KILL")
        else:
            self.cut_off(host)

    def cut_off(self, host: str) -> None:
        docker("network", "disconnect", self.network, self.containers[host].name)

    def codes(self) -> dict[str, int]:
        """The exit code of each host; fails if one does not end in time."""
        deadline = time.monotonic() + self.bound
        while any(container.running for container in self.containers.values()):
            assert time.monotonic() < deadline, f"not ended within {self.bound:.0f} s: {self.logs()}"
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
