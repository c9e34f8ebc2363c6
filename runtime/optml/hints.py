"""The names that stand in annotations alone, which are never evaluated: typing and collections.abc take
milliseconds to import, and the user's program waits for them."""

from __future__ import annotations

__all__ = ["Any", "Callable", "Iterable", "Iterator", "Mapping"]

TYPE_CHECKING = False  # but for type checkers, which know this name
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Any
else:
    Any = Callable = Iterable = Iterator = Mapping = None
