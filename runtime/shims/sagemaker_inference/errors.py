"""Exceptions that handlers raise or catch. The server responds with their `status_code`."""

from __future__ import annotations


class BaseInferenceToolkitError(Exception):
    """Base class for errors with their own status and message."""

    def __init__(self, status_code: int, message: str, phrase: str) -> None:
        super().__init__(status_code, message, phrase)
        self.status_code = status_code
        self.message = message
        self.phrase = phrase


class GenericInferenceToolkitError(BaseInferenceToolkitError):
    def __init__(self, status_code: int, message: str | None = None, phrase: str | None = None) -> None:
        message = message or "Invalid Request"
        super().__init__(status_code, message, phrase or message)


class UnsupportedFormatError(Exception):
    """No codec knows the type."""

    status_code = 415

    def __init__(self, content_type: str) -> None:
        super().__init__(
            f"Content type {content_type} is not supported: write an input_fn or output_fn for it."
        )
