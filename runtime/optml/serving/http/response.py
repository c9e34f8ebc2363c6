"""Answers as bytes. HTTP is written by gunicorn's Response; this module decides what it says."""

from __future__ import annotations

import traceback
from dataclasses import dataclass, field

from gunicorn.http.wsgi import Response as ResponseWriter

from ...report import log
from ..errors import InferenceError, as_inference_error, error_body, phrase

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gunicorn.http.message import Request


@dataclass(slots=True)
class Response:
    """Status, body and headers; the length of the body is added when it is sent."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


class _Outbox:
    """Stands where Response expects a socket, so that an answer leaves in one piece."""

    __slots__ = ("parts",)

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def sendall(self, data: bytes) -> None:
        self.parts.append(data)


def as_bytes(answer: Response, request: Request, config: Any, close: bool) -> tuple[bytes, bool]:
    """The answer on the wire, and whether the connection ends with it."""
    outbox = _Outbox()
    response = ResponseWriter(request, outbox, config)
    if close:
        response.force_close()
    headers = [("Content-Length", str(len(answer.body))), *answer.headers.items()]
    response.start_response(f"{answer.status} {phrase(answer.status)}", headers)
    response.write(b"" if request.method == "HEAD" else answer.body)
    response.close()
    return b"".join(outbox.parts), response.should_close()


def malformed(error: InferenceError, id: str) -> bytes:
    """The answer to what could not be read as a request, for which there is no Response."""
    body = error_body(error.status, str(error), id)
    head = (
        f"HTTP/1.1 {error.status} {phrase(error.status)}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def failure(error: BaseException, id: str) -> Response:
    """The answer for an exception."""
    known = as_inference_error(error) or fault(error, id)
    body = error_body(known.status, str(known), id)
    return Response(known.status, body, {"Content-Type": "application/json", **known.headers})


def fault(error: BaseException, id: str) -> InferenceError:
    """What is said of a fault of the handler, whose traceback goes to the log alone."""
    lines = "".join(traceback.format_exception(error))
    log(f"request {id} failed\n{lines.rstrip()}")
    return InferenceError(f"The model raised {type(error).__name__}; the log tells more.", 500)
