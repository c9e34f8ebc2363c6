"""Hyperparameters → command line arguments of the user's program, in one of three styles.

====================  ======================  ====================  ==================
value                 toolkit (the default)   json                  flags
====================  ======================  ====================  ==================
true                  --k True                --k true              --k
false                 --k False               --k false             (nothing)
null                  --k ""                  --k null              (nothing)
[1, "x"]              --k "[1, 'x']"          --k '[1, "x"]'        --k 1 x
{"a": 1}              --k a=1                 --k '{"a": 1}'        --k '{"a": 1}'
3.10                  --k 3.10                --k 3.10              --k 3.10
====================  ======================  ====================  ==================

`toolkit` is how sagemaker-training and sagemaker-containers pass them, `json` how the drivers of
the SageMaker SDK 3.x do, `flags` what argparse takes with `store_true` and `nargs="*"`. Keys are
sorted; a key of one letter becomes `-k`.
"""

from __future__ import annotations

import os

from ..hints import Any, Callable, Mapping
from ..report import UserError
from . import jsontext

VARIABLE = "SAGEMAKER_HYPERPARAMETER_STYLE"

# The kernel's MAX_ARG_STRLEN, including the NUL: exec fails with a longer argument or `NAME=value`.
LONGEST = 128 << 10


NOT_CARRIED = "a character that no argument can carry (NUL or a lone surrogate)"


def arguments(hyperparameters: dict[str, Any], environ: Mapping[str, str] = os.environ) -> list[str]:
    """The arguments, in the style of SAGEMAKER_HYPERPARAMETER_STYLE. Raises UserError if that is
    unknown, or if no argument can hold a value."""
    name = environ.get(VARIABLE) or "toolkit"
    if name not in _STYLES:
        raise UserError(f"{VARIABLE} is {name!r}; it must be one of {', '.join(_STYLES)}")
    style = _STYLES[name]
    words: list[str] = []
    for key in sorted(hyperparameters):
        new = style(f"--{key}" if len(key) > 1 else f"-{key}", hyperparameters[key])
        if not all(map(is_carried, new)):
            raise UserError(f"hyperparameter {key!r} holds {NOT_CARRIED}")
        if size := max((size for word in new if (size := len(os.fsencode(word))) >= LONGEST), default=0):
            raise UserError(
                f"hyperparameter {key!r} has {size} bytes, but an argument holds {LONGEST - 1} at most;"
                " pass it as a file in a channel"
            )
        words += new
    return words


def is_carried(word: str) -> bool:
    """Whether an argument or a variable can hold this."""
    try:
        return b"\0" not in os.fsencode(word)
    except UnicodeEncodeError:
        return False


def _toolkit(option: str, value: Any) -> list[str]:
    if value is None:
        return [option, ""]
    if isinstance(value, dict):
        return [option, ",".join(f"{key}={value[key]}" for key in sorted(value))]
    return [option, str(value)]


def _flags(option: str, value: Any) -> list[str]:
    if value is True:
        return [option]
    if value is False or value is None:
        return []
    if isinstance(value, list):
        return [option, *map(_text, value)]
    return [option, _text(value)]


def _text(value: Any) -> str:
    """A scalar as it was written, anything else as JSON."""
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return str(value)
    return jsontext.dumps(value, spaced=True)


_STYLES: dict[str, Callable[[str, Any], list[str]]] = {
    "toolkit": _toolkit,
    "json": lambda option, value: [option, _text(value)],
    "flags": _flags,
}
