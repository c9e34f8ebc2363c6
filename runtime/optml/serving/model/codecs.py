"""Bytes to Python objects and back, by media type; and what a client accepts.

numpy and orjson are used where the user has installed them; data frames and their columns, of pandas, polars
or pyarrow, are known by their methods. Pickled arrays are always refused: unpickling a client's bytes would
run a client's code. What a type cannot carry is refused, and never written as its `repr`.
"""

from __future__ import annotations

import json
from codecs import BOM_UTF8
from enum import Enum
from functools import lru_cache

from ..errors import InferenceError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from ..http.payload import Payload

JSON = "application/json"
JSON_LINES = "application/jsonlines"
CSV = "text/csv"
NPY = "application/x-npy"
NPZ = "application/x-npz"
TEXT = "text/plain"
OCTETS = "application/octet-stream"

_DIMENSIONS = 32  # of an array that JSON may bring, the most that every numpy takes
_NUMBERS = {int, float}
_CELLS = {str, int, float, bool, type(None)}
_SAME = {"application/x-jsonlines": JSON_LINES, "application/x-ndjson": JSON_LINES, "application/csv": CSV}


@lru_cache(maxsize=256)
def media_type(header: str) -> str:
    """The bare media type of a Content-Type: `Text/CSV; charset=utf-8` → `text/csv`."""
    bare = header
    if ";" in header:
        from werkzeug.http import parse_options_header  # late: start-up, and most types have no options

        bare = parse_options_header(header)[0]
    bare = bare.strip().lower()
    return _SAME.get(bare, bare)


@lru_cache(maxsize=256)
def accepted(header: str, default: str) -> tuple[str, ...]:
    """The media types of an Accept header, best first; a missing one or `*/*` means the default."""
    if header in ("", "*/*"):
        return (default,)
    if not any(mark in header for mark in ",;*"):
        return (media_type(header),)
    from werkzeug.datastructures import MIMEAccept  # late, as above
    from werkzeug.http import parse_accept_header

    ranges = parse_accept_header(header, MIMEAccept)
    if not ranges:  # nothing but commas
        return (default,)
    # What a range like `text/*` means is decided among what can be encoded, the default first.
    offers = (default, *ENCODERS)
    found: list[str] = []
    for name, quality in sorted(ranges, key=lambda each: -each[1]):  # werkzeug puts the specific first
        if quality <= 0:
            continue
        if "*" in str(name):
            matching = MIMEAccept([(str(name), 1)])
            found += [offer for offer in offers if matching.quality(offer) and ranges.quality(offer)]
        else:
            found.append(media_type(str(name)))
    return tuple(dict.fromkeys(found))


def decode(payload: Payload, content_type: str) -> Any:
    """The body as an object. Raises InferenceError: 415 for an unknown type, 400 for bytes that are not one.

    JSON becomes an array where it is a rectangle of numbers and there is numpy, else Python objects, as JSON
    Lines do; CSV an array of shape (rows, columns), or rows without numpy; NPY an array; NPZ a dict of
    arrays; text a str; octets bytes.
    """
    decoder = DECODERS.get(content_type)
    if decoder is None:
        known = ", ".join(DECODERS)
        raise InferenceError(f"Content type {content_type!r} is not supported; supported: {known}.", 415)
    try:
        return decoder(payload)
    except (InferenceError, MemoryError):
        raise
    except Exception as error:  # parsers raise anything on a client's bytes: numpy lets TokenError through
        raise InferenceError(f"The body is not valid {content_type}: {error}") from error


def encode(prediction: Any, accept: Iterable[str]) -> tuple[bytes, str]:
    """The prediction in the first media type that can carry it.

    Raises InferenceError: 406 where no accepted type can, 500 for an object that we know no way to write.
    """
    if isinstance(prediction, (bytes, bytearray, memoryview)):
        return bytes(prediction), OCTETS
    status, unfit = 406, ""
    for wanted in accept:
        encoder = ENCODERS.get(wanted)
        if encoder is None:
            continue
        try:
            return encoder(prediction), wanted
        except (TypeError, ValueError, RecursionError) as error:
            status = 500 if isinstance(error, TypeError) else 406
            unfit = f"{wanted} cannot carry this {type(prediction).__name__}: {error}. "
    types = ", ".join(accept) or "the accepted types"
    raise InferenceError(f"{unfit}None of {types} can be sent; possible: {', '.join(ENCODERS)}.", status)


def _decode_json(payload: Payload) -> Any:
    value = json.loads(payload.read())
    numpy = _numpy() if isinstance(value, list) and _are_numbers(value) else None
    if numpy is None:
        return value
    try:
        array = numpy.array(value)
    except ValueError:  # rows of unequal length
        return value
    return value if array.dtype.kind == "O" else array  # numbers beyond 64 bits


def _are_numbers(values: list[Any], dimensions: int = 1) -> bool:
    """Whether a list holds numbers alone, or lists of them. numpy would make others into texts or objects."""
    kinds = set(map(type, values))
    if kinds == {list}:
        return dimensions < _DIMENSIONS and all(_are_numbers(each, dimensions + 1) for each in values)
    return kinds <= _NUMBERS


def _decode_json_lines(payload: Payload) -> Any:
    return [json.loads(line) for line in payload.file() if line.strip()]


def _decode_csv(payload: Payload) -> Any:
    numpy = _numpy()
    if numpy is not None:
        body = payload.file()
        if body.read(len(BOM_UTF8)) != BOM_UTF8:  # which spreadsheets put in front
            body.seek(0)
        try:
            array = numpy.loadtxt(body, delimiter=",", ndmin=2, comments=None, encoding="utf-8")
        except ValueError:
            pass  # not numbers alone: rows of text
        else:
            if not array.size:
                raise ValueError("there are no rows")
            return array
    import csv
    import io

    rows = csv.reader(io.StringIO(payload.text().removeprefix("\ufeff"), newline=""))
    decoded = [[_number_or_text(cell) for cell in row] for row in rows if row]
    if not decoded:
        raise ValueError("there are no rows")
    return decoded


def _number_or_text(cell: str) -> float | str:
    try:
        return float(cell)
    except ValueError:
        return cell


def _decode_npy(payload: Payload) -> Any:
    return _needed_numpy(NPY).lib.format.read_array(payload.file(), allow_pickle=False)


def _decode_npz(payload: Payload) -> Any:
    with _needed_numpy(NPZ).load(payload.file(), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _encode_json(prediction: Any) -> bytes:
    orjson = _orjson()
    if orjson is not None:
        try:
            return bytes(
                orjson.dumps(prediction, _plain, orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)
            )
        except TypeError:
            pass  # what orjson cannot, json may: whole numbers above 64 bits
    try:
        text = _AS_ORJSON(prediction)
    except ValueError:
        text = _AS_ORJSON(_with_null_for_nan(prediction))
    return text.encode(errors="backslashreplace")  # half a surrogate pair, which JSON escapes in the same way


def _with_null_for_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_null_for_nan(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_with_null_for_nan(each) for each in value]
    if isinstance(value, float):
        return value if value - value == 0 else None
    return value if type(value) in _CELLS else _with_null_for_nan(_plain(value))


def _encode_json_lines(prediction: Any) -> bytes:
    rows = _rows(prediction)
    return b"".join(_encode_json(row) + b"\n" for row in rows)


def _encode_csv(prediction: Any) -> bytes:
    import csv
    from types import SimpleNamespace

    lines: list[str] = []
    writer = csv.writer(SimpleNamespace(write=lines.append))  # by its \r\n it quotes either of them in a cell
    for row in _rows_of_values(prediction):
        cells = _rows(row)
        writer.writerow(cells if set(map(type, cells)) <= _CELLS else map(_cell, cells))
    text = "".join(f"{line[:-2]}\n" for line in lines)
    return text.encode(errors="replace")  # JSON may bring half a surrogate pair


def _rows_of_values(prediction: Any) -> list[Any]:
    """As `_rows`, but of a table the values alone. Its columns may have equal names."""
    if hasattr(prediction, "itertuples"):  # pandas
        return list(prediction.itertuples(index=False, name=None))
    if hasattr(prediction, "iter_rows"):  # polars
        return list(prediction.iter_rows())
    if hasattr(prediction, "itercolumns"):  # pyarrow
        return list(zip(*(column.to_pylist() for column in prediction.itercolumns()), strict=True))
    return _rows(prediction)


def _cell(value: Any) -> Any:
    """A value that is text when it is written. Raises ValueError for one of several values."""
    plain = value if type(value) in _CELLS or isinstance(value, dict) else _plain(value)
    if type(plain) not in _CELLS:
        raise ValueError(f"a {type(value).__name__} does not fit into one place")
    return plain


def _encode_npy(prediction: Any) -> bytes:
    import io

    numpy = _needed_numpy(NPY)
    buffer = io.BytesIO()
    numpy.save(buffer, numpy.asarray(prediction), allow_pickle=False)
    return buffer.getvalue()


def _encode_text(prediction: Any) -> bytes:
    return str(_cell(prediction)).encode(errors="replace")  # as above


def _rows(prediction: Any) -> list[Any]:
    """A list of rows: those of an array or a table, a list as it is, anything else as the only row."""
    plain = prediction if type(prediction) in _CELLS or isinstance(prediction, dict) else _plain(prediction)
    return list(plain) if isinstance(plain, (list, tuple)) else [plain]


def _plain(value: Any) -> Any:
    """What neither JSON nor CSV has a word for: arrays, tensors and their scalars, tables, columns, times."""
    if isinstance(value, (list, tuple, set, frozenset, range)):
        return list(value)
    if isinstance(value, (bytes, bytearray)):
        return value.decode()
    if isinstance(value, Enum):
        return value.value
    if getattr(getattr(value, "dtype", None), "kind", "") == "M" and type(value).__module__ == "numpy":
        value = value.astype("datetime64[us]")  # in other units these are whole numbers, or days alone
    for method in ("to_dicts", "to_pylist", "tolist", "to_list"):  # polars, pyarrow, numpy and all, polars
        if hasattr(value, method):
            return getattr(value, method)()
    for base in (str, int, float):
        if isinstance(value, base):
            return base(value)
    if hasattr(value, "to_dict") and hasattr(value, "columns"):  # pandas
        return value.to_dict(orient="records")
    if hasattr(value, "isoformat"):
        return value.isoformat() if value == value else None  # pandas' NaT equals nothing
    if hasattr(value, "as_integer_ratio"):  # Decimal, Fraction
        return float(value)
    if hasattr(value, "urn"):  # UUID
        return str(value)
    if hasattr(value, "__dataclass_fields__"):
        return {name: getattr(value, name) for name in value.__dataclass_fields__}
    raise TypeError(f"a {type(value).__name__} has no known form: convert it in output_fn")


@lru_cache(maxsize=1)
def _numpy() -> Any:
    try:
        import numpy  # 120 ms, and not everybody has it
    except ImportError:
        return None
    return numpy


def _needed_numpy(content_type: str) -> Any:
    numpy = _numpy()
    if numpy is None:
        raise InferenceError(f"{content_type} needs numpy, which this container does not have.", 415)
    return numpy


@lru_cache(maxsize=1)
def _orjson() -> Any:
    try:
        import orjson  # only where the user installed it
    except ImportError:
        return None
    return orjson


_AS_ORJSON = json.JSONEncoder(
    default=_plain, allow_nan=False, ensure_ascii=False, separators=(",", ":")
).encode  # to bytes like those of orjson

DECODERS: dict[str, Callable[[Payload], Any]] = {
    JSON: _decode_json,
    JSON_LINES: _decode_json_lines,
    CSV: _decode_csv,
    NPY: _decode_npy,
    NPZ: _decode_npz,
    TEXT: lambda payload: payload.text(),
    OCTETS: lambda payload: payload.read(),
}

ENCODERS: dict[str, Callable[[Any], bytes]] = {
    JSON: _encode_json,
    JSON_LINES: _encode_json_lines,
    CSV: _encode_csv,
    NPY: _encode_npy,
    TEXT: _encode_text,
}
