"""Responses as bytes, without a socket: whole, or in frames as their parts are produced.

    response = Response(200, body, headers, content_type)   # raises InvalidResponse before anything is sent
    data, closes = as_bytes(response, request, close)       # whole

    frames = Frames(response, request, close)               # in parts
    frames.head, frames.frame(part), frames.end(), frames.closes

The server decides about framing and whether the connection closes, so handlers cannot.
"""

from __future__ import annotations

import re
import time
import traceback
from collections.abc import Iterable, Mapping
from email.utils import formatdate
from functools import cache, lru_cache
from operator import index

from ...report import log
from ..errors import InferenceError, as_inference_error, error_body, phrase
from .request import NAME, Request

Headers = Mapping[str, str] | Iterable[tuple[str, str]]

_VALUE = re.compile(r"[\t -~\x80-\xff]*")
_STATUS = re.compile(r"([2-5]\d\d)(?: .*)?", re.ASCII | re.DOTALL)
_WITHOUT_BODY = (204, 304)
_EMPTY = 205  # has a length, which is 0
# Headers that frame a message or concern only one connection (RFC 9110, 7.6.1).
_OURS = frozenset(
    ("connection", "content-length", "date", "keep-alive", "proxy-connection", "te", "trailer")
    + ("transfer-encoding",)
)


class InvalidResponse(ValueError):
    """A handler has set an invalid status or header."""


class Response:
    """Status, body and headers, checked; the length of the body is added when it is sent.

    `status` may be a number or a text that begins with one. A Content-Type in the headers takes precedence
    over `content_type`, and the last one over earlier ones.
    """

    __slots__ = ("body", "headers", "lines", "status")

    def __init__(
        self, status: int | str, body: bytes = b"", headers: Headers = (), content_type: str | None = None
    ) -> None:
        self.status = _checked_status(status)
        self.body = body if self.status != _EMPTY else b""
        self.headers: list[tuple[str, str]] = []
        for name, value in headers.items() if hasattr(headers, "items") else headers:
            lower = name.lower() if isinstance(name, str) else name
            if lower == "content-type":
                content_type = value
            elif lower in _OURS:
                _report_once(lower)
            else:
                self.headers.append((name, value))
        if content_type is not None:
            self.headers.append(("Content-Type", content_type))
        for name, value in self.headers:
            if not isinstance(value, str):
                raise InvalidResponse(f"header {name} is a {type(value).__name__}: set a text")
        self.lines = b"".join([_line(name, value) for name, value in self.headers])


class Frames:
    """A response in parts: of known length, chunked, or until the connection closes."""

    def __init__(self, response: Response, request: Request, close: bool, length: int | None = None) -> None:
        if response.status == _EMPTY:
            length = 0
        silent = request.method == "HEAD" or response.status in _WITHOUT_BODY
        self._chunked = not silent and length is None and request.version == (1, 1)
        self._left = 0 if silent else length
        self.closes = close or request.closes or (self._left is None and not self._chunked)
        framing = b""
        if self._chunked:
            framing = b"Transfer-Encoding: chunked\r\n"
        elif length is not None and response.status not in _WITHOUT_BODY:
            framing = b"Content-Length: %d\r\n" % length
        prefix = _prefix(response.status, self.closes, int(time.time()))
        self.head = b"%b%b%b\r\n" % (prefix, response.lines, framing)

    def frame(self, part: bytes) -> bytes:
        """A part as it is sent; what exceeds the length is cut off."""
        if self._left is not None:
            part = part[: self._left]
            self._left -= len(part)
        return b"%x\r\n%b\r\n" % (len(part), part) if self._chunked and part else part

    def end(self) -> bytes:
        """The end of the response; if it is shorter than its length, only a closed connection can end it."""
        self.closes = self.closes or bool(self._left)
        return b"0\r\n\r\n" if self._chunked else b""


def as_bytes(response: Response, request: Request | None, close: bool) -> tuple[bytes, bool]:
    """The response as it is sent, and whether the connection then closes. `request`: None if unreadable."""
    close = close or request is None or request.closes
    prefix = _prefix(response.status, close, int(time.time()))
    if response.status in _WITHOUT_BODY:
        return b"%b%b\r\n" % (prefix, response.lines), close
    shown = b"" if request is not None and request.method == "HEAD" else response.body
    head = b"%b%bContent-Length: %d\r\n\r\n" % (prefix, response.lines, len(response.body))
    return head + shown, close


def failure(error: BaseException, id: str) -> Response:
    """The response to an exception."""
    known = as_inference_error(error) or fault(error, id)
    body = error_body(known.status, str(known), id)
    try:
        return Response(known.status, body, known.headers, "application/json")
    except InvalidResponse as invalid:  # the headers of a handler's InferenceError
        return failure(invalid, id)


def fault(error: BaseException, id: str) -> InferenceError:
    """The error response to a fault of the handler; the details go only to the log."""
    if isinstance(error, InvalidResponse):
        log(f"request {id} failed: {error}")
        return InferenceError("The model set an invalid status or header; the log tells more.", 500)
    lines = "".join(traceback.format_exception(error))
    log(f"request {id} failed\n{lines.rstrip()}")
    return InferenceError(f"The model raised {type(error).__name__}; the log tells more.", 500)


def _checked_status(status: int | str) -> int:
    if type(status) is int and 200 <= status <= 599:
        return status
    text = status if isinstance(status, str) else str(index(status)) if hasattr(status, "__index__") else ""
    found = _STATUS.fullmatch(text)
    if found is None:
        raise InvalidResponse(f"status {status!r} is not valid in a response: set a number from 200 to 599")
    return int(found[1])


@lru_cache(256)
def _line(name: str, value: str) -> bytes:
    """A header as it is sent. Name and value are checked separately, so that neither can pass for both."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise InvalidResponse(f"a header cannot have the name {name!r}: use letters, digits and -")
    if not _VALUE.fullmatch(value):
        raise InvalidResponse(f"header {name} has characters that HTTP cannot carry: encode its value")
    return f"{name}: {value.strip()}\r\n".encode("latin-1")


@cache
def _report_once(name: str) -> None:
    log(f"header {name} is left out of answers: the server sets it itself")


@lru_cache(64)
def _prefix(status: int, close: bool, now: int) -> bytes:
    """Status line, Date and Connection, which many responses within a second share."""
    connection = "close" if close else "keep-alive"
    date = formatdate(now, usegmt=True)
    return f"HTTP/1.1 {status} {phrase(status)}\r\nDate: {date}\r\nConnection: {connection}\r\n".encode()
