"""A container that serves a model given as source, under the strictest rules, and requests to it."""

from __future__ import annotations

import textwrap
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests

from tests.support.docker import HARDENED, Container, docker, wait_for_ping

HARDENING = HARDENED  # the option --serverless puts SERVERLESS in its place

ECHO = """
def model_fn(model_dir):
    return None

def predict_fn(data, model):
    return data
"""


def write_handlers(ml: Path, source: str) -> None:
    """Put an inference.py beside the model, with a file that stands for the model."""
    (ml / "model" / "code").mkdir(exist_ok=True)
    (ml / "model" / "code" / "inference.py").write_text(textwrap.dedent(source))
    (ml / "model" / "weights").write_text("1")
    for path in (ml / "model").rglob("*"):
        path.chmod(0o755)


class Server(Container):
    """`docker run IMAGE serve` with these handlers; `url` answers once the block is entered."""

    url = ""

    def __init__(
        self,
        image: str,
        ml: Path,
        source: str = ECHO,
        *options: str,
        ready: bool = True,
        hardened: bool = True,
        **environment: object,
    ) -> None:
        write_handlers(ml, source)
        variables = [f"--env={name}={value}" for name, value in environment.items()]
        mount = f"--volume={ml}/model:/opt/ml/model:ro"
        hardening = HARDENING if hardened else ()
        super().__init__(image, "serve", options=(*hardening, mount, *variables, *options))
        self.ready = ready
        self.port = int(str(environment.get("SAGEMAKER_BIND_TO_PORT", 8080)))

    def __enter__(self) -> Server:
        super().__enter__()
        self.url = f"http://{self.address}:{self.port}"
        if self.ready:
            wait_for_ping(self, port=self.port)
        return self

    def ping(self) -> int:
        return requests.get(f"{self.url}/ping", timeout=5).status_code

    def invoke(self, data: Any = b"[1]", timeout: float = 30, **headers: str) -> requests.Response:
        """POST /invocations; header names with _ for -."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        given = {"Content-Type": "application/json", **given}
        return requests.post(f"{self.url}/invocations", data=data, headers=given, timeout=timeout)

    def workers(self) -> list[int]:
        """Process ids of the workers, as the container numbers them."""
        listed = docker("exec", self.name, "python3", "-c", _CHILDREN).stdout
        return sorted(int(pid) for pid in listed.split())


_CHILDREN = """
import os
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        parent = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[1]
        serves = "serve" in open(f"/proc/{pid}/cmdline").read()
        if parent == "1" and serves and open(f"/proc/{pid}/comm").read() != "standby\\n":
            print(pid)
    except OSError:  # it has ended
        pass
"""


def listening(container: Container) -> list[int]:
    """The TCP ports on which anything in the container's network waits for connections."""
    lines = container.exec("sh", "-c", "cat /proc/net/tcp*").stdout.splitlines()
    fields = [line.split() for line in lines]
    return sorted(int(each[1].rpartition(":")[2], 16) for each in fields if each[3] == "0A")


def eventually(condition: Callable[[], bool], timeout: float = 20) -> None:
    """Wait until the condition holds; a request that fails meanwhile counts as not yet."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        try:
            if condition():
                return
        except requests.RequestException:
            pass
        time.sleep(0.1)
    raise AssertionError(f"did not hold within {timeout} s")


class Load:
    """Clients that send one call after the other while the block runs; `statuses` counts the answers."""

    def __init__(self, server: Server, clients: int, data: bytes = b"[1]") -> None:
        self.server, self.data = server, data
        self.statuses: dict[int | str, int] = {}
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            status: int | str
            try:
                status = self.server.invoke(self.data).status_code
            except requests.RequestException as error:
                status = type(error).__name__
            with self._lock:
                self.statuses[status] = self.statuses.get(status, 0) + 1


class Pinger(threading.Thread):
    """Asks /ping every 20 ms; `answers` counts what it got, `seconds` has what each took."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self.answers: Counter[int | str] = Counter()
        self.seconds: list[float] = []
        self._server, self._over = server, threading.Event()

    def __enter__(self) -> Pinger:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()

    def run(self) -> None:
        while not self._over.wait(0.02):
            began = time.monotonic()
            try:
                self.answers[self._server.ping()] += 1
            except requests.RequestException as error:
                self.answers[type(error).__name__] += 1
            self.seconds.append(time.monotonic() - began)
