"""`encode(prediction, content_type)`: text for JSON and CSV, bytes for NPY."""

from __future__ import annotations

from typing import Any

from optml.serving.model import codecs

from .content_types import UTF8_TYPES
from .errors import UnsupportedFormatError

SUPPORTED_CONTENT_TYPES = {codecs.JSON, codecs.CSV, codecs.NPY}


def encode(array_like: Any, content_type: str) -> str | bytes:
    """The prediction in this type. Raises UnsupportedFormatError for an unsupported one."""
    kind = codecs.media_type(content_type)
    if kind not in SUPPORTED_CONTENT_TYPES:
        raise UnsupportedFormatError(content_type)
    body = codecs.ENCODERS[kind](array_like)
    return body.decode() if kind in UTF8_TYPES else body
