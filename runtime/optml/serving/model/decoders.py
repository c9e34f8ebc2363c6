"""Bytes to Python objects, a function for each media type.

Pickled arrays are always refused: unpickling a client's bytes could run the client's code.
"""

from __future__ import annotations

import json
from codecs import BOM_UTF8
from typing import Any

from ..http.payload import Payload
from . import optional

_DIMENSIONS = 32  # most dimensions of an array from JSON, which every numpy supports
_NUMBERS = {int, float}


def decode_json(payload: Payload) -> Any:
    value = json.loads(payload.read())
    numpy = optional.find("numpy") if isinstance(value, list) and _are_numbers(value) else None
    if numpy is None:
        return value
    try:
        array = numpy.array(value)
    except ValueError:  # rows of unequal length
        return value
    return value if array.dtype.kind == "O" else array  # numbers beyond 64 bits


def _are_numbers(values: list[Any], dimensions: int = 1) -> bool:
    """Whether a list has only numbers, or lists of them; numpy would convert others to texts or objects."""
    kinds = set(map(type, values))
    if kinds == {list}:
        return dimensions < _DIMENSIONS and all(_are_numbers(each, dimensions + 1) for each in values)
    return kinds <= _NUMBERS


def decode_json_lines(payload: Payload) -> Any:
    return [json.loads(line) for line in payload.file() if line.strip()]


def decode_csv(payload: Payload) -> Any:
    numpy = optional.find("numpy")
    if numpy is not None:
        body = payload.file()
        if body.read(len(BOM_UTF8)) != BOM_UTF8:  # which spreadsheets put first
            body.seek(0)
        try:
            array = numpy.loadtxt(body, delimiter=",", ndmin=2, comments=None, encoding="utf-8")
        except ValueError:
            pass  # not only numbers: rows of text
        else:
            if not array.size:
                raise ValueError("there are no rows")
            return array
    import csv
    import io

    rows = csv.reader(io.StringIO(payload.read().decode().removeprefix("\ufeff"), newline=""))
    decoded = [[_number_or_text(cell) for cell in row] for row in rows if row]
    if not decoded:
        raise ValueError("there are no rows")
    return decoded


def _number_or_text(cell: str) -> float | str:
    try:
        return float(cell)
    except ValueError:
        return cell


def decode_npy(payload: Payload) -> Any:
    return optional.need_numpy().lib.format.read_array(payload.file(), allow_pickle=False)


def decode_npz(payload: Payload) -> Any:
    with optional.need_numpy().load(payload.file(), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}
