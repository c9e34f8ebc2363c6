"""Run a program as PID 1 must: signals reach its whole process group, orphans are reaped, output
passes through.

stdout is inherited and never touched. stderr comes through a pipe, is copied byte for byte in large
pieces, and its end is kept: it holds the reason of a failure.
"""

from __future__ import annotations

import errno
import os
import select
import time

from ..report import UserError
from .record import Record

TYPE_CHECKING = False  # typing takes milliseconds to import
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
    from types import FrameType

    from .rendezvous import Peers
else:
    import _signal as signal  # the same without its enums, whose import costs as much as half an interpreter

_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
# Python ignores these two; the user's program must start with their default, as any other program does.
_RESTORED = (signal.SIGPIPE, signal.SIGXFSZ)

# No pipe holds more than this unless somebody enlarges it, so that one read empties it.
_PIECE = 1 << 20
_TAIL = 32 << 10

# Seconds that a program gets to fail by itself when another host is lost, and then to obey SIGTERM.
_GRACE = 10.0
_PATIENCE = 30.0


class Stopped(Exception):
    """A signal asked the container to stop while no program was running. `args[0]` is its number."""


class Ended(Record):
    """How a program ended."""

    code: int
    """Its exit code, or 128 + N where signal N killed it."""
    signal: int
    """The signal that killed it, or 0."""
    forwarded: int
    """The last signal that was passed on to it and asks to stop, or 0."""
    tail: str
    """The end of what it wrote to stderr."""
    lost: str | None
    """What happened on another host, so that this program could not go on."""


def stop_on_signals() -> None:
    """From here on a signal that asks to stop raises Stopped: the kernel ignores it for a PID 1
    without a handler."""
    _handle(_stop)


def run(argv: list[str], environment: dict[str, str], directory: str, links: Peers | None = None) -> Ended:
    """Start the program in a session of its own, wait until it ends, and tell how.

    The end of the program is the end of the job: children that it left in the background, also
    those that hold its stderr open, are not waited for. Where `links` tell that another host is
    lost, the program gets some seconds to fail with its own words and is stopped then. Raises
    UserError where it cannot be started.
    """
    forwarded = 0
    pid = 0

    def forward(number: int, _frame: FrameType | None) -> None:
        nonlocal forwarded
        if number in (signal.SIGTERM, signal.SIGINT):
            forwarded = number
        if pid:
            _signal_group(pid, number)

    # A signal writes a byte here, so that one that comes just before poll() still ends it.
    awake, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    stderr, program_stderr = os.pipe()
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    _handle(forward)
    signal.signal(signal.SIGCHLD, _nothing)
    try:
        pid = _spawn(argv, environment, directory, program_stderr)
        os.close(program_stderr)
        program_stderr = -1
        if forwarded:
            _signal_group(pid, forwarded)
        status, tail, lost = _wait(pid, stderr, awake, links)
    finally:
        _handle(_stop)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        for fd in (awake, wake, stderr, program_stderr):
            if fd >= 0:
                os.close(fd)
    code = os.waitstatus_to_exitcode(status)
    return Ended(
        code=code if code >= 0 else 128 - code,
        signal=max(0, -code),
        forwarded=forwarded,
        tail=tail.decode("utf-8", "replace"),
        lost=lost,
    )


def _spawn(argv: list[str], environment: dict[str, str], directory: str, stderr: int) -> int:
    try:
        os.chdir(directory)
        return os.posix_spawnp(
            argv[0],
            argv,
            environment,
            file_actions=[(os.POSIX_SPAWN_DUP2, stderr, 2)],
            setsid=True,
            setsigdef=_RESTORED,
        )
    except OSError as error:
        hint = "; begin it with #! and its interpreter" if error.errno == errno.ENOEXEC else ""
        raise UserError(f"cannot start {argv[0]} in {directory}: {error.strerror}{hint}") from error


def _wait(pid: int, stderr: int, awake: int, links: Peers | None) -> tuple[int, bytes, str | None]:
    """Copy stderr, reap children and listen to the other hosts until the program has ended.

    Its wait status, the end of its stderr, and what was lost on another host.
    """
    tail, lost = b"", None
    deadlines: list[tuple[float, int]] = []
    poll = select.poll()
    for fd in (awake, stderr, *(links.fds if links else ())):
        poll.register(fd, select.POLLIN)
    status = _reap(pid)
    while status is None:
        pause = max(0.0, deadlines[0][0] - time.monotonic()) * 1000 if deadlines else None
        for fd, _ in poll.poll(pause):
            if fd == awake:
                os.read(awake, _PIECE)
            elif fd != stderr and links:
                more, reason = links.read(fd)
                if not more:
                    poll.unregister(fd)
                if reason and not lost:
                    lost, deadlines = reason, _deadlines(0 if links.follows else _GRACE)
            elif piece := os.read(stderr, _PIECE):
                tail = _copied(piece, tail)
            else:
                poll.unregister(stderr)  # the program closed it
        if deadlines and time.monotonic() >= deadlines[0][0]:
            _signal_group(pid, deadlines.pop(0)[1])
        status = _reap(pid)
    os.set_blocking(stderr, False)
    try:
        tail = _copied(os.read(stderr, _PIECE), tail)
    except BlockingIOError:
        pass  # a child of the program holds the pipe open, and nothing is in it
    return status, tail, lost


def _deadlines(grace: float) -> list[tuple[float, int]]:
    """When a program that cannot go on without another host is told to stop, and when it is stopped."""
    now = time.monotonic()
    return [(now + grace, signal.SIGTERM), (now + grace + _PATIENCE, signal.SIGKILL)]


def _reap(pid: int) -> int | None:
    """Reap every child that has ended; the status of this one, if it has."""
    while True:
        try:
            child, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return None
        if child == pid:
            return status
        if child == 0:
            return None


def _copied(piece: bytes, tail: bytes) -> bytes:
    """Write the piece to our own stderr; the new tail."""
    rest = memoryview(piece)
    while rest:
        try:
            rest = rest[os.write(2, rest) :]
        except BlockingIOError:
            select.select([], [2], [])
        except OSError:
            break  # nobody reads it any more: no reason to stop the program
    return (tail + piece[-_TAIL:])[-_TAIL:]


def _signal_group(pid: int, number: int) -> None:
    try:
        os.killpg(pid, number)
    except OSError:
        pass  # it has just ended, or became another user


def _handle(handler: Callable[[int, FrameType | None], None]) -> None:
    for number in _FORWARDED:
        signal.signal(number, handler)


def _stop(number: int, _frame: FrameType | None) -> None:
    if number in (signal.SIGTERM, signal.SIGINT):
        raise Stopped(number)


def _nothing(_number: int, _frame: FrameType | None) -> None:
    pass
