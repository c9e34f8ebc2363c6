"""JSON without the import of `json`, which costs more than reading the whole job.

`json` is a thin layer over the C module `_json`; the time goes into importing `re` and `enum`, which
it needs to describe errors. So the C functions are used directly, and `json` is imported only for an
error message.
"""

from __future__ import annotations

import _json

from ..hints import Any

_SPACE = " \t\n\r"
_INFINITE = float("inf")

# Levels of arrays and objects. Code that walks a value later recurses once per level.
_DEEPEST = 100


class Float(float):
    """A float that prints as it was written: `3.10` stays `3.10`. Also NaN, Infinity and -Infinity."""

    text: str

    def __new__(cls, text: str) -> Float:
        self = super().__new__(cls, text)
        self.text = text
        return self

    def __repr__(self) -> str:
        return self.text

    __str__ = __repr__


def _parse_float(text: str) -> float | str:
    value = Float(text)
    if abs(value) == _INFINITE:
        return text  # 123e4567 is a commit, not a number
    return float(value) if float.__repr__(value) == text else value


def _parse_int(text: str) -> int | str:
    return text if text == "-0" or len(text) > 1000 else int(text)


class _Options:
    """The options of the C scanner, under the names that it reads."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = staticmethod(_parse_float)
    parse_int = staticmethod(_parse_int)
    parse_constant = Float


def loads(text: str) -> Any:
    """The value of a JSON text. Numbers that Python would print differently keep their text.

    Raises ValueError with json's message, RecursionError if the text is nested too deeply.
    """
    try:
        return _scan(text)
    except ValueError:
        import json  # only to say where the text is wrong

        return json.loads(text)


def decode(text: str) -> Any:
    """The value of a hyperparameter: the platform passes strings, some of which are JSON."""
    try:
        value = _scan(text)
    except (ValueError, RecursionError):
        return text
    # Spaces around a number are passed on.
    return value if isinstance(value, (str, list, dict)) or text == text.strip(_SPACE) else text


def dumps(value: object, spaced: bool = False) -> str:
    """JSON in ASCII with sorted keys: compact, as the toolkits pass it to the program, or `spaced`."""
    comma, colon = (", ", ": ") if spaced else (",", ":")
    ascii_string = _json.encode_basestring_ascii
    encode = _json.make_encoder(None, _refuse, ascii_string, None, colon, comma, True, False, True)
    return "".join(encode(value, 0))


def _scan(text: str) -> Any:
    text = text.strip(_SPACE)
    try:
        value, end = _json.make_scanner(_Options)(text, 0)  # type: ignore[arg-type]
    # SystemError: Python 3.11 cannot raise its error for an invalid text if json is not imported.
    except (StopIteration, SystemError):
        raise ValueError("no JSON value") from None
    if end != len(text):
        raise ValueError("text after the JSON value")
    if text.count("[") + text.count("{") > _DEEPEST and _is_too_deep(value):
        raise RecursionError(f"nested deeper than {_DEEPEST} levels")
    return value


def _is_too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(_DEEPEST + 1):
        inner = [item for item in level if isinstance(item, (list, dict))]
        level = [part for item in inner for part in (item.values() if isinstance(item, dict) else item)]
    return bool(inner)


def _refuse(value: object) -> object:
    raise TypeError(f"{type(value).__name__} is not JSON")
