"""Locks between parallel test processes."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.matrix import ROOT


@contextmanager
def exclusive(name: str) -> Iterator[None]:
    """Hold the lock of this name while the block runs; other test processes wait."""
    (ROOT / "build").mkdir(exist_ok=True)
    with (ROOT / f"build/{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
