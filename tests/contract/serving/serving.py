"""Containers that serve models given as source, under the strictest rules, and requests to them."""

from __future__ import annotations

import textwrap
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests
from websockets.sync.client import ClientConnection, connect

from tests.support.docker import HARDENED, Container, wait_for_ping

HARDENING = HARDENED  # SERVERLESS with the option --serverless

STREAM = "/invocations-bidirectional-stream"
ECHO = """
def model_fn(model_dir):
    return None

def predict_fn(data, model):
    return data
"""
FIND_WORKERS = """
import os

def workers():
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            parent = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[1]
            serves = "serve" in open(f"/proc/{pid}/cmdline").read()
            if parent == "1" and serves and open(f"/proc/{pid}/comm").read() != "standby\\n":
                yield int(pid)
        except OSError:  # it has ended
            pass
"""
"""For a program inside the container: the process ids of the workers."""


def write_handlers(ml: Path, source: str) -> None:
    """Put an inference.py beside the model, with a file that stands for the model."""
    (ml / "model" / "code").mkdir(exist_ok=True)
    (ml / "model" / "code" / "inference.py").write_text(textwrap.dedent(source))
    (ml / "model" / "weights").write_text("1")
    for path in (ml / "model").rglob("*"):
        path.chmod(0o755)


def write_model(ml: Path, name: str, source: str) -> Path:
    """One of many models: its handlers and a file of weights. Returns the folder of its code."""
    code = ml / "models" / name / "code"
    code.mkdir(parents=True)
    (code / "inference.py").write_text(textwrap.dedent(source))
    (code.parent / "weights").write_text(f"weights of {name}")
    return code


class Serving(Container):
    """`docker run IMAGE serve` with this folder mounted; `url` answers once the block is entered."""

    url = ""

    def __init__(
        self,
        image: str,
        mount: str,
        *options: str,
        ready: bool = True,
        hardened: bool = True,
        **environment: object,
    ) -> None:
        variables = [f"--env={name}={value}" for name, value in environment.items()]
        hardening = HARDENING if hardened else ()
        super().__init__(image, "serve", options=(*hardening, f"--volume={mount}:ro", *variables, *options))
        self.ready = ready
        self.port = int(str(environment.get("SAGEMAKER_BIND_TO_PORT", 8080)))

    def __enter__(self) -> Serving:
        super().__enter__()
        self.url = f"http://{self.address}:{self.port}"
        if self.ready:
            wait_for_ping(self, port=self.port)
        return self

    def get(self, path: str, **options: Any) -> requests.Response:
        return requests.get(f"{self.url}{path}", **{"timeout": 20, **options})

    def ping(self) -> int:
        return self.get("/ping", timeout=5).status_code

    def kill_process(self, *pids: int | str) -> None:
        """SIGKILL to processes, by the numbers that they have in the container."""
        self.exec("sh", "-c", f"kill -KILL {' '.join(map(str, pids))}")


class Server(Serving):
    """The server of one model, with these handlers."""

    def __init__(self, image: str, ml: Path, source: str = ECHO, *options: str, **settings: Any) -> None:
        write_handlers(ml, source)
        super().__init__(image, f"{ml}/model:/opt/ml/model", *options, **settings)

    def __enter__(self) -> Server:
        super().__enter__()
        return self

    def invoke(self, data: Any = b"[1]", timeout: float = 30, **headers: str) -> requests.Response:
        """POST /invocations; header names with _ for -."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        given = {"Content-Type": "application/json", **given}
        return requests.post(f"{self.url}/invocations", data=data, headers=given, timeout=timeout)

    def talk(self, path: str = STREAM, **options: Any) -> ClientConnection:
        """A session of bidirectional streaming."""
        url = f"ws://{self.address}:{self.port}{path}"
        session: ClientConnection = connect(url, open_timeout=20, close_timeout=20, **options)
        return session

    def workers(self) -> list[int]:
        """Process ids of the workers, as the container numbers them."""
        listed = self.exec("python3", "-c", f"{FIND_WORKERS}\nprint(*workers())").stdout
        return sorted(int(pid) for pid in listed.split())


class Models(Serving):
    """The server of many models, which lie in ML/models."""

    def __init__(self, image: str, ml: Path, *options: str, **settings: Any) -> None:
        settings = {"SAGEMAKER_MULTI_MODEL": "true", **settings}
        super().__init__(image, f"{ml}/models:/opt/ml/models", *options, **settings)

    def __enter__(self) -> Models:
        super().__enter__()
        return self

    def load(self, name: str, folder: str | None = None) -> requests.Response:
        body = {"model_name": name, "url": f"/opt/ml/models/{folder or name}"}
        return requests.post(f"{self.url}/models", json=body, timeout=60)

    def unload(self, name: str) -> requests.Response:
        return requests.delete(f"{self.url}/models/{name}", timeout=60)

    def invoke(self, name: str, data: bytes = b"1", timeout: float = 30) -> requests.Response:
        headers = {"Content-Type": "application/json"}
        url = f"{self.url}/models/{name}/invoke"
        return requests.post(url, data=data, headers=headers, timeout=timeout)

    def names(self, **query: object) -> tuple[list[str], str | None]:
        """A page of the list of models, and the token of the next one."""
        page = self.get("/models", params=query).json()
        return [model["modelName"] for model in page["models"]], page.get("nextPageToken")


def listening(container: Container) -> list[int]:
    """The TCP ports on which something in the container's network listens."""
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
    """Clients that call back to back while the block runs; `statuses` counts the answers."""

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
    """Pings every 20 ms while the block runs; `answers` counts the outcomes, `seconds` has their times."""

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
