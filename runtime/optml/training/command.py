"""Run a command to its end while the job is prepared, such as an installer."""

from __future__ import annotations

import os

from .record import Record
from .stderr import Tail


class Done(Record):
    """How a command ended."""

    code: int
    """Its exit code, or 128 + N where signal N killed it."""
    tail: str
    """The end of what it wrote to stderr."""


def run(argv: list[str], environment: dict[str, str], directory: str) -> Done:
    """Run it and pass its output through. A stop kills it: it belongs to the process group of its caller."""
    stderr, its_stderr = os.pipe()
    os.chdir(directory)
    pid = os.posix_spawnp(argv[0], argv, environment, file_actions=[(os.POSIX_SPAWN_DUP2, its_stderr, 2)])
    os.close(its_stderr)
    tail = Tail(stderr)
    while tail.copy():
        pass
    os.close(stderr)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return Done(code=code if code >= 0 else 128 - code, tail=tail.text)
