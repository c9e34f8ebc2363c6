"""A clause of the contract. Its check returns if the clause is kept, else raises Broken or NotChecked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conformance.subject import Subject

LEVELS = ("required", "recommended", "hardened")
"""Each level includes those before it: what the platform demands, what its documents advise and users' code
relies on, and security hardening."""

Check = Callable[["Subject"], None]


class Broken(Exception):
    """The image does not keep the clause; the message says what was observed instead."""


class NotChecked(Exception):
    """The clause does not concern this image, or cannot be checked on it; the message says why."""


@dataclass(frozen=True)
class Clause:
    id: str
    sentence: str
    level: str
    source: str  # the document that requires it
    remedy: str  # how to mend an image that breaks it
    verb: str | None  # train, serve, or None if it concerns the image itself
    slow: bool  # takes most of a minute
    check: Check


CLAUSES: list[Clause] = []


def clause(
    name: str,
    level: str,
    source: str,
    sentence: str,
    remedy: str,
    *,
    verb: str | None = None,
    slow: bool = False,
) -> Callable[[Check], Check]:
    """Declare the function below as the check of a clause."""
    assert level in LEVELS and name not in {c.id for c in CLAUSES}, name

    def declare(check: Check) -> Check:
        CLAUSES.append(Clause(name, sentence, level, source, remedy, verb, slow, check))
        return check

    return declare


def expect(kept: object, seen: str) -> None:
    """Raise Broken unless `kept`."""
    if not kept:
        raise Broken(seen)
