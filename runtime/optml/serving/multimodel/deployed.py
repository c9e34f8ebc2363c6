"""One model of a multi-model server: its process, and the calls forwarded to it.

Each model has a process (see `forkserver`) with a Unix socket. Calls are forwarded unchanged, and responses
as they arrive. The next call restarts a process that has died.
"""

from __future__ import annotations

import http.client
import json
import os
import select
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from itertools import count
from typing import Any

from flask import Response, request

from ... import machine
from ..errors import InferenceError
from ..execution import over_time
from ..worker import DRAIN

_GRACE = 10.0  # seconds past a call's deadline until it is given up: the model holds the interpreter lock
_DEATH = 1.0  # seconds for a killed process to be gone
_OURS = frozenset(
    ("host", "date", "connection", "keep-alive", "content-length", "transfer-encoding")
    + ("expect", "upgrade")
)


class Process:
    """The process of a model, seen through its pipe, which closes when the process has freed its memory."""

    def __init__(self, path: str, pipe: int) -> None:
        self.path = path
        self._pipe = os.fdopen(pipe, "rb")
        self._ended = select.poll()
        self._ended.register(pipe, 0)  # reports only the end
        self._pid = int(self._pipe.readline() or 0)

    def report(self) -> tuple[int, str] | None:
        """Status and message of the load; None if the process died."""
        line = self._pipe.readline()
        return tuple(json.loads(line)) if line else None

    def ended(self, timeout: float = 0.0) -> bool:
        """Whether the process is gone, or will be within `timeout` seconds."""
        return bool(self._ended.poll(timeout * 1000))

    def end(self, grace: float = 0.0) -> None:
        """Let it finish its calls for up to `grace` seconds; then kill it and all that it has started."""
        if not self.ended():
            self._signal(os.kill, signal.SIGTERM)
            self.ended(grace)
        self._signal(os.killpg, signal.SIGKILL)
        self.ended(_DEATH)
        self._pid = 0  # it may be another process's from now on

    def _signal(self, send: Any, number: int) -> None:
        if self._pid:
            try:
                send(self._pid, number)
            except ProcessLookupError:
                pass


class Deployed:
    """One model of the server, with `most` calls at most on their way to it."""

    def __init__(self, name: str, url: str, home: str, gpu: int | None, start: Any, most: int) -> None:
        self.name = name
        self.url = url
        self.gpu = gpu
        self._home = home
        self._start = start
        self._lock = threading.Lock()  # held while a process starts
        self._processes: list[Process] = []  # the last one takes calls, others finish theirs
        self._places = threading.Semaphore(most)
        self._gone = False
        self._numbers = count(1)

    def described(self) -> dict[str, str]:
        return {"modelName": self.name, "modelUrl": self.url}

    def load(self) -> None:
        """Start a process. Raises InferenceError if the model does not load."""
        with self._lock:
            self._load()

    def unload(self) -> None:
        """End all processes, after their running calls."""
        self._gone = True
        for process in self._processes:  # also one that is loading
            process.end(DRAIN + 1)
        with self._lock:
            for process in self._processes:
                process.end(DRAIN + 1)
            shutil.rmtree(self._home, ignore_errors=True)

    def ask(self, timeout: float) -> Response:
        """Forward the request, and return the response. Raises InferenceError if the process dies."""
        if not self._places.acquire(blocking=False):
            raise InferenceError(f"Model {self.name} has too many calls already.", 503, {"Retry-After": "1"})
        try:
            answer = self._ask(timeout)
        except BaseException:
            self._places.release()
            raise
        answer.call_on_close(self._places.release)
        return answer

    def _ask(self, timeout: float) -> Response:
        connection = _Connection("model", timeout=timeout + _GRACE)
        kills = machine.oom_kills()
        try:
            process = self._connect(connection, timeout)
        except OSError:  # it died as soon as it was loaded
            connection.close()
            raise self._died("answered", kills) from None
        try:
            body = request.environ["wsgi.input"]  # a file, complete
            length = body.seek(0, os.SEEK_END)
            body.seek(0)
            headers = {name: value for name, value in request.headers if name.lower() not in _OURS}
            connection.request("POST", "/invocations", body, {**headers, "Content-Length": str(length)})
            answer = connection.getresponse()
        except TimeoutError:
            connection.close()
            process.end()
            raise InferenceError(f"No answer of model {self.name} in time.", 504) from None
        except (OSError, http.client.HTTPException):
            connection.close()
            process.ended(_DEATH)  # else the next call could still reach it
            raise self._died("answered", kills) from None
        kept = [(name, value) for name, value in answer.getheaders() if name.lower() not in _OURS]
        if answer.length is not None:
            kept.append(("Content-Length", str(answer.length)))
        return Response(_pieces(connection, answer), answer.status, kept)

    def _connect(self, connection: _Connection, timeout: float) -> Process:
        if not self._lock.acquire(timeout=timeout):  # loading takes longer than a call may
            raise over_time(timeout)
        try:
            return self._live_process(connection)
        finally:
            self._lock.release()

    def _live_process(self, connection: _Connection) -> Process:
        """Connect to the process that takes calls; starts a new one if there is none."""
        if self._gone:
            raise InferenceError(f"Model not found: {self.name}", 404)
        try:
            if all(process.ended() for process in self._processes[-1:]):
                raise ConnectionError
            connection.open(self._processes[-1].path)
        except OSError:  # it has died, or is finishing its last calls
            connection.close()
            self._load()
            connection.open(self._processes[-1].path)
        return self._processes[-1]

    def _load(self) -> None:
        if self._gone:
            raise InferenceError(f"Model not found: {self.name}", 404)
        for process in self._processes:
            if process.ended():
                process.end()  # processes that it has started may be left
        self._processes = [process for process in self._processes if not process.ended()]
        os.makedirs(self._home, exist_ok=True)
        path = f"{self._home}/{next(self._numbers)}"
        kills = machine.oom_kills()
        pipe, reports = os.pipe()
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen(256)
            order = {"url": self.url, "packages": f"{self._home}/packages", "gpu": self.gpu}
            try:
                self._start(order, listener.fileno(), reports)
            finally:
                os.close(reports)
        process = Process(path, pipe)
        self._processes.append(process)
        status, message = process.report() or (0, "")
        if not status:
            raise self._died("loaded", kills)
        if status != 200:
            raise InferenceError(message, status)

    def _died(self, before: str, kills: int) -> InferenceError:
        time.sleep(0.01)  # the kernel counts a kill with a delay
        if machine.oom_kills() > kills:
            return InferenceError(f"Not enough memory: model {self.name} was killed before it {before}.", 507)
        return InferenceError(f"The process of model {self.name} died before it {before}.", 500)


class _Connection(http.client.HTTPConnection):
    """HTTP over the Unix socket of a model."""

    def open(self, path: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(path)


def _pieces(connection: _Connection, answer: http.client.HTTPResponse) -> Iterator[bytes]:
    try:
        while piece := answer.read1(1 << 16):
            yield piece
    finally:
        connection.close()
