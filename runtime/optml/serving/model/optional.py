"""Libraries that are used if the user has installed them."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

from ..errors import InferenceError


@cache
def find(name: str) -> Any:
    """The user's module of this name, or None; imported when first needed, because numpy takes 120 ms."""
    try:
        return import_module(name)
    except ImportError:
        return None


def need_numpy() -> Any:
    numpy = find("numpy")
    if numpy is None:
        raise InferenceError("NPY and NPZ need numpy, which this container does not have.", 415)
    return numpy
