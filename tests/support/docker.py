"""The Docker client as the tests use it: containers that clean up after themselves, and their output."""

from __future__ import annotations

import json
import subprocess
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

HARDENED = (
    "--user=12345",
    "--read-only",
    "--tmpfs=/tmp",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
)
"""What the strictest platform imposes on a container: an unknown uid, and nothing writable but /tmp."""

SERVERLESS = (
    *HARDENED,
    "--ipc=none",  # no /dev/shm, so no POSIX semaphores either
    "--pids-limit=1024",
    "--ulimit=nofile=1024:1024",
    "--memory=1g",
)
"""What a serverless endpoint takes away on top of that."""


@dataclass(frozen=True)
class Result:
    """How a container ended, and what it wrote."""

    code: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        return self.stdout + self.stderr


def docker(*args: str | Path, timeout: float = 120, check: bool = True) -> Result:
    """Run a docker command. With `check`, raises AssertionError with its output if it fails."""
    done = subprocess.run(
        ["docker", *map(str, args)], capture_output=True, timeout=timeout, text=True, errors="replace"
    )
    result = Result(done.returncode, done.stdout, done.stderr)
    if check:
        assert result.code == 0, f"docker {' '.join(map(str, args))}: {result.output}"
    return result


def inspect(name: str) -> dict[str, Any]:
    """What the engine knows about an image or a container."""
    found: list[dict[str, Any]] = json.loads(docker("inspect", name).stdout)
    return found[0]


def run(image: str, *command: str, options: tuple[str, ...] = (), timeout: float = 120) -> Result:
    """Run a container to its end: `docker run --rm OPTIONS IMAGE COMMAND`."""
    return docker("run", "--rm", *options, image, *command, timeout=timeout, check=False)


class Container:
    """A container that runs while the block does, and is removed with its volumes afterwards."""

    def __init__(self, image: str, *command: str, options: tuple[str, ...] = ()) -> None:
        self.name = f"optml-test-{uuid.uuid4().hex[:12]}"
        self.image, self.command, self.options = image, command, options

    def __enter__(self) -> Container:
        docker("run", "--detach", "--name", self.name, *self.options, self.image, *self.command)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            error.add_note(f"log of the container:\n{self.log().output[-4000:]}")
        docker("rm", "--force", "--volumes", self.name, check=False)

    def exec(self, *command: str, timeout: float = 120, check: bool = True) -> Result:
        """Run a command inside."""
        return docker("exec", self.name, *command, timeout=timeout, check=check)

    def log(self) -> Result:
        """All that it has written so far."""
        return docker("logs", self.name, check=False)

    def kill(self, signal: str = "KILL") -> None:
        docker("kill", "--signal", signal, self.name)

    def stop(self, grace: int = 10) -> None:
        """SIGTERM, then SIGKILL after `grace` seconds."""
        docker("stop", f"--time={grace}", self.name)

    def wait(self, timeout: float = 60) -> int:
        """The exit code, once it has ended."""
        return int(docker("wait", self.name, timeout=timeout).stdout)

    @property
    def address(self) -> str:
        """Its address on the bridge network, for requests from the host."""
        address: str = inspect(self.name)["NetworkSettings"]["IPAddress"]
        return address

    @property
    def running(self) -> bool:
        return bool(inspect(self.name)["State"]["Running"])

    def wait_until_healthy(self, timeout: float = 20) -> None:
        """Block until the engine's health check has succeeded."""
        deadline = time.monotonic() + timeout
        while (health := inspect(self.name)["State"]["Health"])["Status"] != "healthy":
            assert time.monotonic() < deadline, health
            time.sleep(0.2)

    def wait_for_log(self, text: str, timeout: float = 30) -> None:
        """Block until it has written `text`; raises AssertionError if it ends or time runs out first."""
        deadline = time.monotonic() + timeout
        while text not in self.log().output:
            assert self.running or text in self.log().output, f"ended without {text!r}: {self.log().output}"
            assert time.monotonic() < deadline, f"no {text!r} within {timeout} s: {self.log().output}"
            time.sleep(0.1)


def wait_for_ping(container: Container, timeout: float = 30, port: int = 8080, path: str = "/ping") -> str:
    """Block until GET on `path` answers 200; returns the base URL of the server."""
    import requests

    url = f"http://{container.address}:{port}"
    deadline = time.monotonic() + timeout
    last: object = None
    looked = time.monotonic()
    while time.monotonic() < deadline:
        try:
            last = requests.get(f"{url}{path}", timeout=2).status_code
        except requests.RequestException as error:
            last = error
        if last == 200:
            return url
        if time.monotonic() - looked > 0.5:  # asking the engine takes longer than asking the server
            assert container.running, f"the server ended: {container.log().output}"
            looked = time.monotonic()
        time.sleep(0.02)
    raise AssertionError(f"{path} did not answer 200 within {timeout} s, but {last}")
