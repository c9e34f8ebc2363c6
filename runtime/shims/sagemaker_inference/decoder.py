"""`decode(body, content_type)`: an array, or lists where there is no numpy."""

from __future__ import annotations

from typing import Any

from optml.serving.http.payload import Payload
from optml.serving.model import codecs

from .errors import UnsupportedFormatError


def decode(obj: str | bytes, content_type: str) -> Any:
    """The body as an array: of one dimension for CSV with one row or column, sparse for NPZ.

    Raises UnsupportedFormatError for another type, InferenceError (400) for a body that is not of its type.
    """
    body = obj.encode() if isinstance(obj, str) else obj
    kind = codecs.media_type(content_type)
    if kind == codecs.NPZ:
        import io

        from scipy import sparse  # type: ignore[import-untyped]  # whoever sends sparse matrices has it

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
