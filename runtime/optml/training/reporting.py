"""Which exception ended the program, as its own interpreter tells: `runner.py` in front of it."""

from __future__ import annotations

import os

from . import jsontext
from .record import Record

TYPE_CHECKING = False  # typing takes milliseconds to import
if TYPE_CHECKING:
    from .launchers import Launch
    from .program import Program

_RUNNER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "runner.py")
_NOBODY = -1

# torchrun copies to this file how its first rank failed.
TORCH_VARIABLE = "TORCHELASTIC_ERROR_FILE"


class Report(Record):
    """The exception that ended a program."""

    head: str
    """Type and message; empty where the program ended itself without one."""
    trace: str
    """Its traceback."""


def argv(launch: Launch, program: Program, fd: int) -> list[str]:
    """The command line of this launch with the runner in front of the program, if that is Python."""
    words, own = launch.argv, program.argv
    kinds = {"script": "script", "module": "module", "function": "code"}
    if program.kind not in kinds:
        return words
    runner = [kinds[program.kind], own[-1]]
    if launch.engine == "process":
        os.set_inheritable(fd, True)
        return _replaced(words, own, [program.python, _RUNNER, str(fd), *runner])
    if launch.engine == "torchrun":
        in_words = [program.name] if program.kind == "script" else ["--module", program.module]
        return _replaced(words, in_words, [_RUNNER, str(_NOBODY), *runner])
    return words


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


def _replaced(words: list[str], old: list[str], new: list[str]) -> list[str]:
    """The words with the first appearance of the old ones replaced."""
    for at in range(len(words)):
        if words[at : at + len(old)] == old:
            return words[:at] + new + words[at + len(old) :]
    return words
