"""Which exception ended the program, as its own interpreter tells: `runner.py` in front of it."""

from __future__ import annotations

import os

from . import jsontext
from .record import Record

# torchrun copies to this file how its first rank failed.
TORCH_VARIABLE = "TORCHELASTIC_ERROR_FILE"


class Report(Record):
    """The exception that ended a program."""

    head: str
    """Type and message; empty where the program ended itself without one."""
    trace: str
    """Its traceback."""


def read(fd: int, file: str) -> Report | None:
    """What came through the pipe, or lies in the file of torchrun. None where the program told nothing."""
    os.set_blocking(fd, False)
    try:
        text = os.read(fd, 1 << 16).decode("utf-8", "replace")
    except BlockingIOError:
        text = ""  # a child of the program holds it open
    if text:
        head, _, trace = text.partition("\0")
        return Report(head=head, trace=trace)
    try:
        with open(file, encoding="utf-8", errors="replace") as opened:
            message = jsontext.loads(opened.read())["message"]
        return Report(head=str(message["message"]), trace=str(message["extraInfo"]["py_callstack"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
