"""Bytes to Python objects and back, by media type; and what a client accepts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

from ..errors import InferenceError
from ..http.payload import Payload
from . import decoders, encoders

JSON = "application/json"
JSON_LINES = "application/jsonlines"
CSV = "text/csv"
NPY = "application/x-npy"
NPZ = "application/x-npz"
TEXT = "text/plain"
OCTETS = "application/octet-stream"

_SAME = {"application/x-jsonlines": JSON_LINES, "application/x-ndjson": JSON_LINES, "application/csv": CSV}


@lru_cache(maxsize=256)
def media_type(header: str) -> str:
    """The bare media type of a Content-Type: `Text/CSV; charset=utf-8` → `text/csv`."""
    bare = header
    if ";" in header:
        from werkzeug.http import parse_options_header  # late: slow; most types have no parameters

        bare = parse_options_header(header)[0]
    bare = bare.strip().lower()
    return _SAME.get(bare, bare)


@lru_cache(maxsize=256)
def accepted(header: str, default: str) -> tuple[str, ...]:
    """The media types of an Accept header, best first; the default for a missing header or `*/*`."""
    if header in ("", "*/*"):
        return (default,)
    if not any(mark in header for mark in ",;*"):
        return (media_type(header),)
    from werkzeug.datastructures import MIMEAccept  # late, as above
    from werkzeug.http import parse_accept_header

    ranges = parse_accept_header(header, MIMEAccept)
    if not ranges:  # nothing but commas
        return (default,)
    # A range like `text/*` stands for the types that can be encoded, the default first.
    offers = (default, *ENCODERS)
    found: list[str] = []
    for name, quality in sorted(ranges, key=lambda each: -each[1]):  # werkzeug puts specific ranges first
        if quality <= 0:
            continue
        if "*" in str(name):
            matching = MIMEAccept([(str(name), 1)])
            found += [offer for offer in offers if matching.quality(offer) and ranges.quality(offer)]
        else:
            found.append(media_type(str(name)))
    return tuple(dict.fromkeys(found))


def decode(payload: Payload, content_type: str) -> Any:
    """The body as an object. Raises InferenceError: 415 for an unknown type, 400 for an invalid body.

    JSON becomes an array if it is a regular array of numbers and numpy is installed, else Python objects, as
    JSON Lines do; CSV an array of shape (rows, columns), or a list of rows if it contains text or numpy is
    missing; NPY an array; NPZ a dict of arrays; text a str; octets bytes.
    """
    decoder = DECODERS.get(content_type)
    if decoder is None:
        known = ", ".join(DECODERS)
        raise InferenceError(f"Content type {content_type!r} is not supported; supported: {known}.", 415)
    try:
        return decoder(payload)
    except (InferenceError, MemoryError):
        raise
    except Exception as error:  # parsers may raise anything: numpy lets TokenError through
        raise InferenceError(f"The body is not valid {content_type}: {error}") from error


def encode(prediction: Any, accept: Iterable[str]) -> tuple[bytes, str]:
    """The prediction in the first media type that can represent it, and that type.

    Raises InferenceError: 406 if no accepted type can, 500 for an object that no type can represent.
    """
    if isinstance(prediction, (bytes, bytearray, memoryview)):
        return bytes(prediction), OCTETS
    status, unfit = 406, ""
    for kind in accept:
        encoder = ENCODERS.get(kind)
        if encoder is None:
            continue
        try:
            return encoder(prediction), kind
        except (TypeError, ValueError, RecursionError) as error:
            status = 500 if isinstance(error, TypeError) else 406
            unfit = f"{kind} cannot carry this {type(prediction).__name__}: {error}. "
    types = ", ".join(accept) or "the accepted types"
    raise InferenceError(f"{unfit}None of {types} can be sent; possible: {', '.join(ENCODERS)}.", status)


DECODERS: dict[str, Callable[[Payload], Any]] = {
    JSON: decoders.decode_json,
    JSON_LINES: decoders.decode_json_lines,
    CSV: decoders.decode_csv,
    NPY: decoders.decode_npy,
    NPZ: decoders.decode_npz,
    TEXT: lambda payload: payload.read().decode(),
    OCTETS: lambda payload: payload.read(),
}

ENCODERS: dict[str, Callable[[Any], bytes]] = {
    JSON: encoders.encode_json,
    JSON_LINES: encoders.encode_json_lines,
    CSV: encoders.encode_csv,
    NPY: encoders.encode_npy,
    TEXT: encoders.encode_text,
}
