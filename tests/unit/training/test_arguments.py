"""Golden table: hyperparameters → arguments, in three styles."""

from __future__ import annotations

from typing import Any

import pytest

from optml.report import UserError
from optml.training import jsontext
from optml.training.arguments import arguments

TABLE = [
    # hyperparameter as the platform writes it, toolkit, json, flags
    ("true", ["--k", "True"], ["--k", "true"], ["--k"]),
    ("false", ["--k", "False"], ["--k", "false"], []),
    ("null", ["--k", ""], ["--k", "null"], []),
    ('[1,"x"]', ["--k", "[1, 'x']"], ["--k", '[1, "x"]'], ["--k", "1", "x"]),
    ('{"a":1}', ["--k", "a=1"], ["--k", '{"a": 1}'], ["--k", '{"a": 1}']),
    ('{"b":2,"a":"x"}', ["--k", "a=x,b=2"], ["--k", '{"a": "x", "b": 2}'], ["--k", '{"a": "x", "b": 2}']),
    ("3", ["--k", "3"], ["--k", "3"], ["--k", "3"]),
    ("3.10", ["--k", "3.10"], ["--k", "3.10"], ["--k", "3.10"]),
    ("123e4567", ["--k", "123e4567"], ["--k", "123e4567"], ["--k", "123e4567"]),
    ("NaN", ["--k", "NaN"], ["--k", "NaN"], ["--k", "NaN"]),
    ("-Infinity", ["--k", "-Infinity"], ["--k", "-Infinity"], ["--k", "-Infinity"]),
    (" 5 ", ["--k", " 5 "], ["--k", " 5 "], ["--k", " 5 "]),
    ("007", ["--k", "007"], ["--k", "007"], ["--k", "007"]),
    ('"x y"', ["--k", "x y"], ["--k", "x y"], ["--k", "x y"]),
    ("", ["--k", ""], ["--k", ""], ["--k", ""]),
    ("[]", ["--k", "[]"], ["--k", "[]"], ["--k"]),
]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row[0])
@pytest.mark.parametrize(("column", "style"), [(1, None), (1, "toolkit"), (2, "json"), (3, "flags")])
def test_value(row: tuple[Any, ...], column: int, style: str | None) -> None:
    environ = {"SAGEMAKER_HYPERPARAMETER_STYLE": style} if style else {}
    assert arguments({"k1": jsontext.decode(row[0])}, environ) == [
        word.replace("--k", "--k1") for word in row[column]
    ]


def test_keys_are_sorted_and_one_letter_is_a_short_option() -> None:
    assert arguments({"z": 1, "batch-size": 2, "a": 3}, {}) == ["-a", "3", "--batch-size", "2", "-z", "1"]


def test_an_unknown_style_is_refused_and_the_styles_are_listed() -> None:
    with pytest.raises(UserError, match="toolkit, json, flags"):
        arguments({}, {"SAGEMAKER_HYPERPARAMETER_STYLE": "yaml"})


def test_a_hyperparameter_too_long_for_an_argument_is_named() -> None:
    assert arguments({"big": "x" * ((128 << 10) - 1)}, {})
    with pytest.raises(UserError, match="'big' has 131072 bytes, but an argument holds 131071"):
        arguments({"a": 1, "big": "x" * (128 << 10)}, {})
