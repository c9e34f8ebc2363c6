"""Hypothesis strategies for request bodies of each content type: good, odd and damaged."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy
from hypothesis import strategies as st


def _saved(save: Any, array: Any) -> bytes:
    buffer = io.BytesIO()
    save(buffer, array)
    return buffer.getvalue()


def damaged(whole: bytes) -> st.SearchStrategy[bytes]:
    """The bytes as they are, cut off, or with a few of them replaced."""
    spot = st.integers(0, len(whole))
    replaced = st.builds(
        lambda at, new: whole[:at] + new + whole[at + len(new) :], spot, st.binary(max_size=4)
    )
    return st.just(whole) | spot.map(lambda end: whole[:end]) | replaced


NUMBERS = st.integers() | st.floats() | st.integers(min_value=10**300, max_value=10**310)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
JSON = VALUES.map(lambda value: json.dumps(value).encode()) | st.sampled_from(
    [
        b"[" * 20_000,
        b"[" * 900 + b"]" * 900,
        b"9" * 5000,
        b'"\\ud800"',
        b"NaN",
        b"\xff\xfe[1]",
        b"\xef\xbb\xbf[1]",
    ]
)
CELLS = st.floats().map(str) | st.integers().map(str) | st.text(max_size=8)
ROWS = st.lists(st.lists(CELLS, max_size=4), max_size=4)
ARRAYS = st.sampled_from(
    [numpy.eye(3), numpy.array(1), numpy.array(["text", "ü"]), numpy.zeros((0, 3)), numpy.array([1j])]
    + [numpy.array([(1, 2.0)], dtype="i4,f8"), numpy.array([b"\xff"]), numpy.datetime64("2026-01-01", "D")]
    + [numpy.array([{"a": 1}], dtype=object), numpy.array([numpy.nan, numpy.inf], dtype="f2")]
)
BODIES: dict[str, st.SearchStrategy[bytes]] = {
    "application/json": JSON,
    "application/jsonlines": st.lists(JSON, max_size=3).map(b"\n".join),
    "text/csv": ROWS.map(lambda rows: "\n".join(",".join(row) for row in rows).encode("utf-8", "replace")),
    "application/x-npy": ARRAYS.map(lambda array: _saved(numpy.save, array)).flatmap(damaged),
    "application/x-npz": ARRAYS.map(lambda array: _saved(numpy.savez, array)).flatmap(damaged),
    "text/plain": st.text(max_size=50).map(lambda text: text.encode("utf-8", "replace")),
}
