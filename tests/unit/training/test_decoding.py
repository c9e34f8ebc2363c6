"""Hyperparameters as the platform writes them: strings, some of which are JSON."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optml.training import jsontext


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("-3", -3),
        ("0.1", 0.1),
        ("1e5", 1e5),
        ("true", True),
        ("null", None),
        ('"train.py"', "train.py"),
        ("train.py", "train.py"),
        ('"3"', "3"),
        ("[1, 2]", [1, 2]),
        ('{"a": {"b": [true]}}', {"a": {"b": [True]}}),
        ("", ""),
        ("True", "True"),
        ("007", "007"),
        ("1_000", "1_000"),
        ("123e4567", "123e4567"),
        ("s3://bucket/key", "s3://bucket/key"),
        ("[1,", "[1,"),
        ("3 4", "3 4"),
        ("'x'", "'x'"),
        ("é", "é"),
        ("[" * 100_000, "[" * 100_000),
        ("[" * 101 + "]" * 101, "[" * 101 + "]" * 101),
        ("[" + "[]," * 101 + "1]", [*([] for _ in range(101)), 1]),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_decode(text: str, value: object) -> None:
    decoded = jsontext.decode(text)
    assert decoded == value
    assert type(decoded) is type(value) or isinstance(decoded, float)


@pytest.mark.parametrize(
    "text", ["3.10", "1.0", "1e5", "0.10", "1E-3", "007", "123e4567", "-0", "-0.0", "NaN"]
)
def test_a_printed_scalar_keeps_its_text(text: str) -> None:
    printed = str(jsontext.decode(text))
    assert printed == text or (text == "NaN" and printed == "nan")


def test_a_float_that_keeps_its_text_is_a_number_in_json() -> None:
    assert json.dumps(jsontext.decode("3.10")) == "3.1"
    assert jsontext.decode("3.10") + 1 == 4.1


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON)
def test_decode_reads_what_json_writes(value: Any) -> None:
    assert jsontext.decode(json.dumps(value)) == value


@given(JSON)
def test_dumps_is_the_compact_json_of_the_toolkits(value: Any) -> None:
    assert jsontext.dumps(value) == json.dumps(value, sort_keys=True, separators=(",", ":"))


@given(st.text())
def test_decode_accepts_any_text(text: str) -> None:
    decoded = jsontext.decode(text)
    try:
        expected = json.loads(text.strip(" \t\n\r"))
    except ValueError:
        assert decoded == text
    else:
        overflow = isinstance(expected, float) and math.isinf(expected)
        assert str(decoded) == text.strip(" \t\n\r") or decoded == expected or overflow or decoded != decoded


@given(st.text().filter(lambda text: text.strip()))
def test_loads_fails_with_the_message_of_json(text: str) -> None:
    try:
        json.loads(text)
    except ValueError as expected:
        with pytest.raises(ValueError) as found:
            jsontext.loads(text)
        assert str(found.value) == str(expected)
