"""A serving container, called over HTTP as the platform calls it."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass

from docker.models.containers import Container

from conformance.clause import Broken
from conformance.engine import remove

PING_LIMIT = 2.0  # seconds; the platform's


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes
    seconds: float

    def __str__(self) -> str:
        return f"{self.status} {self.body[:120]!r}"


class Server:
    def __init__(self, container: Container, port: int, payload: bytes | None, content_type: str) -> None:
        self.container, self.port = container, port
        self.payload, self.content_type = payload or b'{"hello": 1}', content_type

    @property
    def host(self) -> str:
        self.container.reload()
        for network in self.container.attrs["NetworkSettings"]["Networks"].values():
            if network["IPAddress"]:
                return str(network["IPAddress"])
        raise ConnectionError(f"the server has exited: {self.last_line}")

    @property
    def runs(self) -> bool:
        self.container.reload()
        return bool(self.container.status == "running")

    @property
    def last_line(self) -> str:
        lines = self.container.logs(tail=20).decode(errors="replace").strip().splitlines()
        return str((lines or ["it wrote nothing"])[-1])[:300]

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | Iterator[bytes] | None = None,
        headers: dict[str, str] | None = None,
        timeout: float = 60,
    ) -> Answer:
        """One request on its own connection. An iterator is sent in chunks, without a length."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout)
        begin = time.monotonic()
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            content = response.read()
            return Answer(response.status, response.headers, content, time.monotonic() - begin)
        except http.client.HTTPException as error:
            raise ConnectionError(f"{type(error).__name__}: {error}") from None
        finally:
            connection.close()

    def ping(self, timeout: float = 10) -> Answer:
        return self.ask("GET", "/ping", timeout=timeout)

    def call(self, body: bytes | None = None, timeout: float = 60, **headers: str) -> Answer:
        """POST /invocations with the user's payload, or `body`."""
        named = {"Content-Type": self.content_type, "Accept": self.content_type}
        named |= {name.replace("_", "-"): value for name, value in headers.items()}
        return self.ask("POST", "/invocations", self.payload if body is None else body, named, timeout)

    def connect(self, timeout: float = 10) -> socket.socket:
        return socket.create_connection((self.host, self.port), timeout=timeout)

    def wait_ready(self, timeout: float) -> Answer:
        """The first /ping that answers 200."""
        deadline, seen = time.monotonic() + timeout, "no response"
        while time.monotonic() < deadline:
            if not self.runs:
                raise Broken(f"the server has exited with {self.exit_code}: {self.last_line}")
            try:
                answer = self.ping()
                if answer.status == 200:
                    return answer
                seen = f"/ping answers {answer}"
            except OSError as error:
                seen = f"/ping: {error}"
            time.sleep(0.1)
        raise Broken(f"not ready after {timeout:.0f} s: {seen}; its last line is {self.last_line!r}")

    @property
    def exit_code(self) -> int:
        self.container.reload()
        return int(self.container.attrs["State"]["ExitCode"])

    def wait_end(self, timeout: float) -> int | None:
        """Its exit code; None if it is still running."""
        deadline = time.monotonic() + timeout
        while self.runs:
            if time.monotonic() > deadline:
                return None
            time.sleep(0.1)
        return self.exit_code

    def end(self) -> None:
        remove(self.container)
