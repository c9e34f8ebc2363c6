"""`decode(body, content_type)`: an array, or lists without numpy."""

from __future__ import annotations

from typing import Any

from optml.serving.http.payload import Payload
from optml.serving.model import codecs

from .errors import UnsupportedFormatError


def decode(obj: str | bytes, content_type: str) -> Any:
    """The body as an array: of one dimension for CSV with one row or column, sparse for NPZ.

    Raises UnsupportedFormatError for another type, InferenceError (400) for an invalid body.
    """
    body = obj.encode() if isinstance(obj, str) else obj
    kind = codecs.media_type(content_type)
    if kind == codecs.NPZ:
        import io

        from scipy import sparse  # type: ignore[import-untyped]  # users of sparse matrices have it

        return sparse.load_npz(io.BytesIO(body))
    if kind not in (codecs.JSON, codecs.CSV, codecs.NPY):
        raise UnsupportedFormatError(content_type)
    payload = Payload()
    payload.write(body)
    decoded = codecs.decode(payload, kind)
    try:
        import numpy
    except ImportError:
        return decoded
    array = numpy.asarray(decoded)
    return array.squeeze() if kind == codecs.CSV else array
