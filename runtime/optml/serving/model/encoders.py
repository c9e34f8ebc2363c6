"""Python objects to bytes, a function for each media type.

Data frames and their columns, of pandas, polars or pyarrow, are recognized by their methods. An object that a
type cannot represent is refused, never written as its `repr`: TypeError if no type can represent the object,
ValueError if another type could.
"""

from __future__ import annotations

import json
from dataclasses import fields
from enum import Enum
from typing import Any

from . import optional

_CELLS = {str, int, float, bool, type(None)}


def encode_json(prediction: Any) -> bytes:
    orjson = optional.find("orjson")
    if orjson is not None:
        ours = orjson.OPT_PASSTHROUGH_DATACLASS  # else it writes attributes that are not fields
        try:
            return bytes(
                orjson.dumps(prediction, _plain, orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS | ours)
            )
        except TypeError:
            pass  # json may be able to: integers above 64 bits
    try:
        text = _AS_ORJSON(prediction)
    except ValueError:
        text = _AS_ORJSON(_with_null_for_nan(prediction))
    return text.encode(errors="backslashreplace")  # a lone surrogate, which JSON escapes in the same way


def _with_null_for_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_null_for_nan(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_with_null_for_nan(each) for each in value]
    if isinstance(value, float):
        return value if value - value == 0 else None
    return value if type(value) in _CELLS else _with_null_for_nan(_plain(value))


def encode_json_lines(prediction: Any) -> bytes:
    rows = _rows(prediction)
    return b"".join(encode_json(row) + b"\n" for row in rows)


def encode_csv(prediction: Any) -> bytes:
    import csv
    from types import SimpleNamespace

    lines: list[str] = []
    writer = csv.writer(SimpleNamespace(write=lines.append))  # with \r\n it quotes cells with either
    for row in _rows_of_values(prediction):
        cells = _rows(row)
        writer.writerow(cells if set(map(type, cells)) <= _CELLS else map(_cell, cells))
    text = "".join(f"{line[:-2]}\n" for line in lines)
    if text.startswith("\ufeff"):
        text = f"\ufeff{text}"  # readers take the first for a byte-order mark and drop it
    return text.encode(errors="replace")  # JSON may bring a lone surrogate


def _rows_of_values(prediction: Any) -> list[Any]:
    """Like `_rows`, but of a table only the values, because its columns may have equal names."""
    if hasattr(prediction, "itertuples"):  # pandas
        return list(prediction.itertuples(index=False, name=None))
    if hasattr(prediction, "iter_rows"):  # polars
        return list(prediction.iter_rows())
    if hasattr(prediction, "itercolumns"):  # pyarrow
        return list(zip(*(column.to_pylist() for column in prediction.itercolumns()), strict=True))
    return _rows(prediction)


def _cell(value: Any) -> Any:
    """A single value, to be written as text. Raises ValueError for several."""
    plain = _plain(value)
    if type(plain) not in _CELLS:
        raise ValueError(f"a {type(value).__name__} is not a single value")
    return plain


def encode_npy(prediction: Any) -> bytes:
    import io

    numpy = optional.need_numpy()
    buffer = io.BytesIO()
    numpy.save(buffer, numpy.asarray(prediction), allow_pickle=False)
    return buffer.getvalue()


def encode_text(prediction: Any) -> bytes:
    return str(_cell(prediction)).encode(errors="replace")  # as above


def _rows(prediction: Any) -> list[Any]:
    """A list of rows: those of an array or a table, a list as it is, anything else as the only row."""
    plain = _plain(prediction)
    return list(plain) if isinstance(plain, (list, tuple)) else [plain]


def _plain(value: Any) -> Any:
    """A value as JSON types, of which arrays, tensors and their scalars, tables and times are none."""
    if type(value) in _CELLS or isinstance(value, dict):
        return value
    if isinstance(value, (list, tuple, set, frozenset, range)):
        return list(value)
    if isinstance(value, (bytes, bytearray)):
        return value.decode()
    if isinstance(value, Enum):
        return value.value
    if hasattr(value, "__dataclass_fields__"):  # before its methods, which may have names like those below
        names = (field.name for field in fields(value) if field.name[0] != "_")
        return {name: getattr(value, name) for name in names if hasattr(value, name)}
    if getattr(getattr(value, "dtype", None), "kind", "") == "M" and type(value).__module__ == "numpy":
        value = value.astype("datetime64[us]")  # tolist() makes other units integers or dates
    for method in ("to_dicts", "to_pylist", "tolist", "to_list"):  # polars, pyarrow, numpy and all, polars
        if hasattr(value, method):
            return getattr(value, method)()
    for base in (str, int, float):
        if isinstance(value, base):
            return base(value)
    if hasattr(value, "to_dict") and hasattr(value, "columns"):  # pandas
        return value.to_dict(orient="records")
    if hasattr(value, "isoformat"):
        return value.isoformat() if value == value else None  # pandas' NaT does not equal itself
    if hasattr(value, "as_integer_ratio"):  # Decimal, Fraction
        return float(value)
    if hasattr(value, "urn"):  # UUID
        return str(value)
    raise TypeError(f"a {type(value).__name__} has no known form: convert it in output_fn")


_AS_ORJSON = json.JSONEncoder(
    default=_plain, allow_nan=False, ensure_ascii=False, separators=(",", ":")
).encode  # the same output as orjson's
