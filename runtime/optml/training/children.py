"""The children that PID 1 starts, and the orphans that the kernel reparents to it."""

from __future__ import annotations

import os
import sys

from ..hints import Callable, Iterable

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as signal
else:
    import _signal as signal  # the same without its enums, whose import costs half an interpreter start

_PR_SET_CHILD_SUBREAPER = 36

_RANK = b"\0OMPI_COMM_WORLD_RANK="  # only ranks have this variable


class Child:
    """A child process that leads its own session."""

    def __init__(self, work: Callable[[], object]) -> None:
        self.status: int | None = None
        """Its wait status, once it has ended."""
        self.pid = os.fork()
        if self.pid == 0:
            _do(work)

    @property
    def ended(self) -> bool:
        return self.status is not None

    def signal(self, number: int) -> None:
        """Send a signal to its whole process group."""
        send(-self.pid, number)

    def kill(self) -> None:
        if not self.ended:
            os.kill(self.pid, signal.SIGKILL)  # it may not lead a group yet
        self.signal(signal.SIGKILL)


def send(target: int, number: int) -> None:
    """Send a signal to a process or, with a negative target, to a process group, as kill(2)."""
    try:
        os.kill(target, number)
    except OSError:
        pass  # it has just ended, or runs as another user


def orphans(own: Iterable[int]) -> set[int]:
    """The living children that we did not start, as targets of `send`: orphans that were reparented to us.

    Each is its process group, unless that is ours, as when a shell started it before it exec'ed us.
    """
    ours = (0, os.getpgrp())
    return {
        pid if group in ours else -group
        for pid, (parent, group) in _living().items()
        if parent == os.getpid() and pid not in own
    }


def ranks() -> set[int]:
    """The MPI ranks that mpirun or its daemon has started on this host, as targets of `send`."""
    living = _living()
    return {
        -group
        for pid, (_, group) in living.items()
        if _is_below(pid, living) and _RANK in b"\0" + _read(f"/proc/{pid}/environ")
    }


def _living() -> dict[int, tuple[int, int]]:
    """Parent and process group of each living process."""
    found = {}
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        state, _, rest = _read(f"/proc/{pid}/stat").rpartition(b") ")[2].partition(b" ")
        if rest and state != b"Z":
            parent, group, _ = rest.split(b" ", 2)
            found[int(pid)] = int(parent), int(group)
    return found


def _is_below(pid: int, living: dict[int, tuple[int, int]]) -> bool:
    while pid in living and pid != os.getpid():
        pid = living[pid][0]
    return pid == os.getpid()


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""  # it has just ended, or is another user's


def adopt_orphans() -> None:
    """Make orphans our children, by a subreaper if we are not PID 1 (docker run --init)."""
    if os.getpid() == 1:
        return
    try:
        import ctypes  # takes milliseconds, and PID 1 does not need it

        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    except Exception:
        pass  # no ctypes: orphans go to the real PID 1


def _do(work: Callable[[], object]) -> None:
    """Run the child; never returns."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in range(1, signal.NSIG):
            if callable(signal.getsignal(number)):
                signal.signal(number, signal.SIG_DFL)
        os.setsid()
        work()
        code = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)
