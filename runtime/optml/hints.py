"""Names used only in annotations, which are never evaluated: importing typing and collections.abc would delay
the user's program by milliseconds."""

from __future__ import annotations

__all__ = ["Any", "Callable", "Iterable", "Iterator", "Mapping"]

TYPE_CHECKING = False  # True for type checkers, which know this name
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Any
else:
    Any = Callable = Iterable = Iterator = Mapping = None
