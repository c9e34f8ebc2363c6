"""WSGI (PEP 3333) without a socket: the environ of a request, and the application's response.

    answer = WSGIAnswer(request, send, close)        # send(bytes) gets the head first
    run(app, environ(request, server, multiprocess), answer)
    answer.response, answer.closes

An error before the first `send` can still be answered like any other; after it, only a closed connection
tells the client.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any
from urllib.parse import unquote_to_bytes

from .request import Request
from .response import Frames, InvalidResponse, Response

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]
App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

_OWN_NAMES = {"CONTENT-TYPE": "CONTENT_TYPE", "CONTENT-LENGTH": "CONTENT_LENGTH"}


def environ(request: Request, server: Any, multiprocess: bool) -> dict[str, Any]:
    """The environ of a request; `server` is the address that the client has connected to."""
    host, port = server[:2] if isinstance(server, tuple) else ("localhost", 80)  # else a Unix socket
    variables = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(request.path).decode("latin-1"),
        "QUERY_STRING": request.query,
        "RAW_URI": request.target,
        "SERVER_NAME": host,
        "SERVER_PORT": str(port),
        "SERVER_PROTOCOL": f"HTTP/1.{request.version[1]}",
        "REMOTE_ADDR": request.peer[0] if isinstance(request.peer, tuple) else "",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": request.body.file(),
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": multiprocess,
        "wsgi.run_once": False,
    }
    for name, value in request.headers:
        key = _OWN_NAMES.get(name) or f"HTTP_{name.replace('-', '_')}"
        variables[key] = f"{variables[key]},{value}" if key in variables else value
    return variables


class WSGIAnswer:
    """The response of an application, which may set its length. Nothing is sent before the first part."""

    def __init__(self, request: Request, send: Callable[[bytes], None], close: bool) -> None:
        self.response: Response | None = None
        self._request = request
        self._send = send
        self._close = close
        self._length: int | None = None
        self._frames: Frames | None = None

    @property
    def closes(self) -> bool:
        """Whether the connection closes after the response, which is complete."""
        assert self._frames is not None
        return self._frames.closes

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None
    ) -> Callable[[bytes], None]:
        if exc_info is not None and self._frames is not None:
            raise exc_info[1].with_traceback(exc_info[2])
        if exc_info is None and self.response is not None:
            raise AssertionError("the application called start_response twice")
        self._length = None
        others = []
        for name, value in headers:
            if name.lower() == "content-length":
                if not (isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20):
                    raise InvalidResponse(f"Content-Length {value!r} is not a number")
                self._length = int(value)
            else:
                others.append((name, value))
        self.response = Response(status, b"", others)
        return self.write

    def write(self, part: bytes) -> None:
        if not isinstance(part, bytes):
            raise TypeError(f"an application must return bytes, not a {type(part).__name__}")
        if part:
            self._put(part)

    def finish(self) -> None:
        """Complete the response."""
        if self._length is None and self._request.method != "HEAD":
            self._length = 0  # has an effect only if nothing has been sent yet
        self._put(None)

    def _put(self, part: bytes | None) -> None:
        """Send a part or, for None, the end of the response; the head goes before whichever is first."""
        data = b""
        if self._frames is None:
            if self.response is None:
                raise AssertionError("the application returned data before it called start_response")
            self._frames = Frames(self.response, self._request, self._close, self._length)
            data = self._frames.head
        data += self._frames.end() if part is None else self._frames.frame(part)
        if data:
            self._send(data)


def run(app: App, variables: dict[str, Any], answer: WSGIAnswer) -> None:
    """Run the application and send its response, whose iterable is always closed."""
    parts = app(variables, answer.start_response)
    try:
        for part in parts:
            answer.write(part)
        answer.finish()
    finally:
        close(parts)


def close(parts: Any) -> None:
    """Close a generator, or any other iterable of a response's parts that can be closed."""
    if hasattr(parts, "close"):
        parts.close()
