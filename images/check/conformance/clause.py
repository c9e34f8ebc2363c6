"""What a clause of the contract is, and how its check speaks: it returns, or raises Broken or NotChecked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conformance.subject import Subject

LEVELS = ("required", "recommended", "hardened")
"""Each level has the clauses of those before it: what the platform demands, what its documents or its users'
code count on, and what careful operators ask for."""

Check = Callable[["Subject"], None]


class Broken(Exception):
    """The image does not keep the clause; the message says what was seen instead."""


class NotChecked(Exception):
    """The clause does not concern this image, or cannot be checked on it; the message says why."""


@dataclass(frozen=True)
class Clause:
    id: str
    sentence: str
    level: str
    source: str  # where a document says so
    remedy: str  # what to do about an image that breaks it
    verb: str | None  # train, serve, or None where it concerns the image itself
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
    """The clause is broken unless `kept`."""
    if not kept:
        raise Broken(seen)
