"""Libraries that are used where the user has installed them."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from ..errors import InferenceError


@lru_cache(maxsize=1)
def find_numpy() -> Any:
    try:
        import numpy  # 120 ms, and not everybody has it
    except ImportError:
        return None
    return numpy


def need_numpy() -> Any:
    numpy = find_numpy()
    if numpy is None:
        raise InferenceError("NPY and NPZ need numpy, which this container does not have.", 415)
    return numpy


@lru_cache(maxsize=1)
def find_orjson() -> Any:
    try:
        import orjson  # only where the user installed it
    except ImportError:
        return None
    return orjson
