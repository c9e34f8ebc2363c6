"""Errors that become HTTP responses."""

from __future__ import annotations

import json
import sys
from http import HTTPStatus

from .cuda_errors import is_out_of_memory


class InferenceError(Exception):
    """Raised by a handler to respond with its own status, from 400 to 599, and message.

    `InferenceError("age must not be negative", 422)`: the client gets the message as JSON; no traceback is
    logged.
    """

    def __init__(self, message: str, status: int = 400, headers: dict[str, str] | None = None) -> None:
        if not _is_error(status):
            raise ValueError(f"the status of an InferenceError is from 400 to 599, not {status}")
        super().__init__(message)
        self.status = status
        self.headers = headers or {}


def as_inference_error(error: BaseException) -> InferenceError | None:
    """The response that an exception asks for, or None if it is a fault of the handler.

    Recognized by convention: `status_code` (the inference toolkits, Starlette) and werkzeug's HTTPException.
    """
    if isinstance(error, InferenceError):
        return error
    if isinstance(error, MemoryError):
        return InferenceError("Not enough memory for this request.", 507)
    if is_out_of_memory(error):
        return InferenceError("Not enough memory of the GPU for this request.", 507)
    werkzeug = sys.modules.get("werkzeug.exceptions")
    if werkzeug is not None and isinstance(error, werkzeug.HTTPException):
        status, message = error.code, error.description or error.name
    else:
        status, message = getattr(error, "status_code", None), getattr(error, "message", None) or error
    return InferenceError(str(message), status) if isinstance(status, int) and _is_error(status) else None


def _is_error(status: int) -> bool:
    return 400 <= status <= 599


def error_body(status: int, message: str, request_id: str) -> bytes:
    """The JSON of an error response: `{"code", "type", "message", "requestId"}`."""
    kind = phrase(status).title().replace(" ", "").replace("-", "")  # 404: NotFound
    body = {"code": status, "type": kind, "message": message, "requestId": request_id}
    return json.dumps(body).encode()


def phrase(status: int) -> str:
    """The reason phrase of a status: 404 → Not Found."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
