"""Frozen records without `dataclasses`, whose import takes longer than starting the user's program."""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # typing takes milliseconds to import
if TYPE_CHECKING:
    from typing import dataclass_transform

    _Namespace = object
else:
    _Namespace = type(sys.implementation)  # types.SimpleNamespace, whose module is not imported yet

    def dataclass_transform(**_options):
        return lambda cls: cls


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Record(_Namespace):
    """A value whose fields are the annotations of its class: keyword-only and read-only.

    Type checkers see a frozen dataclass and check every call.
    """

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is read-only: {name} cannot be set")

    def as_dict(self) -> dict[str, object]:
        """The fields by name, in the order of their declaration."""
        return {name: getattr(self, name) for name in type(self).__annotations__}
