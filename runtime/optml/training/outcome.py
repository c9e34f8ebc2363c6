"""How the job ended: exit code, `output/failure` or `output/success`, and the last line of the log.

The exit code is decided first and never depends on whether a file can be written.
Source: https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-training-signal-success-failure.html
"""

from __future__ import annotations

import os

from .. import paths
from ..report import log, log_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .supervisor import Ended

# The platform shows the first 1024 characters.
_LONGEST = 1024
_HEADER = "Traceback (most recent call last):"
_GROUP_HEADER = "  + Exception Group Traceback (most recent call last):"

# Exceptions with which a launcher reports a failed program; the program's own precedes them.
_OF_LAUNCHERS = ("torch.distributed.elastic.", "torch.distributed.DistNetworkError")

_CRASHES = (6, 7, 11)  # abort, bus error, segmentation fault

# torchrun's report of the rank that failed first. Its exit code is -N if signal N killed it.
_FAILED_FIRST = r"Root Cause \(first observed failure\):[^=]*?\n\s*rank\s*: (\d+).*\n\s*exitcode\s*: (-?\d+)"


def succeed() -> int:
    """Record success; return exit code 0."""
    _write(paths.SUCCESS, "")
    log("Reporting training SUCCESS")
    return 0


def fail(code: int, reason: str, secrets: list[str]) -> int:
    """Record failure with this reason, unless user code has written its own. Return the exit code."""
    from .secrets import mask

    reason = mask(reason, secrets)
    try:
        os.unlink(paths.SUCCESS)  # user code may have written it
    except OSError:
        pass
    if not os.path.exists(paths.FAILURE) or not os.path.getsize(paths.FAILURE):
        _write(paths.FAILURE, reason)
    log_error(reason.partition("\n")[0])
    log("Reporting training FAILURE")
    return code


def read_report(fd: int, file: str) -> tuple[str, str] | None:
    """The exception that ended the program, empty if it exited by itself, and its traceback.

    From the pipe, or else from torchrun's file. None if the program reported nothing.
    """
    from . import jsontext  # only here and below: PID 1 of a successful job does without

    os.set_blocking(fd, False)
    try:
        text = os.read(fd, 1 << 16).decode("utf-8", "replace")
    except BlockingIOError:
        text = ""  # a child of the program holds it open
    if text:
        head, _, trace = text.partition("\0")
        return head, trace
    try:
        with open(file, encoding="utf-8", errors="replace") as opened:
            message = jsontext.loads(opened.read())["message"]
        return str(message["message"]), str(message["extraInfo"]["py_callstack"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def reason(
    name: str,
    ended: Ended,
    oom_kills: int,
    secrets: list[str],
    report: tuple[str, str] | None = None,
    has_gpus: bool = False,
) -> str:
    """Why the program of this name failed, in at most 1024 characters.

    The exception comes first, then how the program ended, then as much of the traceback or of the end of
    stderr as fits. Without a `report` from the interpreter, the exception is searched for in stderr.
    """
    from .. import machine
    from .secrets import mask

    head, trace = report or ("", "")
    how = f"{name} {_how(ended.code, ended.signal)}"
    if ended.stopped:
        how += f" after the container was asked to stop (signal {ended.stopped})"
    if oom_kills:
        limit = machine.memory_limit()
        bound = f" (limit {limit >> 20} MiB)" if limit else ""
        processes = "a process" if oom_kills == 1 else f"{oom_kills} processes"
        how += f"; the kernel killed {processes} of this container, which was out of memory{bound}"
    if ended.lost:
        how = f"{ended.lost}; {how}" if ended.code else ended.lost
    elif has_gpus and not ended.stopped:
        how += _state_of_gpus(head, ended)
    output = mask(ended.tail, secrets).strip("\n")  # before any truncation
    trace = mask(trace, secrets).strip("\n") or output
    if ended.lost or ended.signal or ended.stopped or oom_kills:
        return _fit(how, trace)
    if report and (head := mask(head, secrets) or _last_line(output)):
        return _fit(f"{head}\n{how}", trace)
    if not output:
        return how
    exception, trace = _exception(output)
    return _fit(f"{exception}\n{how}", trace)


def _state_of_gpus(head: str, ended: Ended) -> str:
    """The GPUs' state, if CUDA may have ended the program and its interpreter has not reported it."""
    from .. import gpus
    from .failure import OF_GPUS

    crashed = ended.signal in _CRASHES
    words = f"{head}{ended.tail}".lower()
    if "; GPUs" in head or not (crashed or any(word in words for word in OF_GPUS)):
        return ""
    state = gpus.state()
    return f"; GPUs: {state}" if state else ""


def _how(code: int, signal: int) -> str:
    if not signal:
        return f"exited with code {code}"
    from signal import Signals  # only here: its enums give the names

    names = {each.value: f" ({each.name})" for each in Signals}  # not all of the real-time signals have one
    return f"was killed by signal {signal}{names.get(signal, '')}"


def _exception(output: str) -> tuple[str, str]:
    """The last exception of a Python traceback, and the output from there.

    Without one: how the first rank failed, if torchrun reports that, and the output before its report;
    else the last line.
    """
    before, header, trace = output.rpartition(_GROUP_HEADER)
    if header:
        lines = [line.removeprefix("  | ") for line in trace.split("\n")]
        return next(filter(_names_exception, lines), "").strip(), header.lstrip(" +") + trace
    before, header, trace = output.rpartition(_HEADER)
    while header:
        # Launchers prefix each line with a name: "[rank0]: Traceback …".
        prefix = before.rpartition("\n")[2]
        lines = [line.removeprefix(prefix) for line in trace.split("\n")[1:]]
        exception = next(filter(_names_exception, lines), "")
        if exception and not exception.startswith(_OF_LAUNCHERS):
            return exception.strip(), header + trace
        before, header, trace = before.rpartition(_HEADER)
    import re  # only here

    if found := re.search(_FAILED_FIRST, output):
        rank, code = map(int, found.groups())
        return f"rank {rank} {_how(code, max(-code, 0))}", output.partition(_HEADER)[0].rstrip()
    return _last_line(output) or output.strip()[:80], output


def _last_line(output: str) -> str:
    """The last line with a letter or digit."""
    lines = [line.strip() for line in output.split("\n") if any(map(str.isalnum, line))]
    return lines[-1] if lines else ""


def _names_exception(line: str) -> bool:
    """Whether this is `module.Name: message`, not a line of the traceback or one inserted by MPI."""
    name = line.partition(":")[0]
    return bool(name) and all(char.isalnum() or char in "._<>" for char in name)


def _fit(head: str, output: str) -> str:
    """The head, and below it as much of the end of the output as fits."""
    head = head[:_LONGEST]
    room = _LONGEST - len(head) - 2
    if not output or room < 80:
        return head
    if len(output) > room:
        # From the start of a line, if there is one.
        output = output[-room + 2 :]
        output = "…\n" + (output.partition("\n")[2] or output)
    return f"{head}\n\n{output}"


def _write(path: str, text: str) -> None:
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        # Without waiting for a reader, if the program has put a FIFO there.
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK, 0o666)
        with open(fd, "w", encoding="utf-8", errors="replace") as file:
            file.write(text)
    except OSError as error:
        log(f"cannot write {path}: {error.strerror}")
