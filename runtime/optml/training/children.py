"""Processes that PID 1 starts itself, and those that the kernel gives it when their parents have ended."""

from __future__ import annotations

import os
import sys

from ..hints import Callable, Iterable

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as signal
else:
    import _signal as signal  # the same without its enums, whose import costs as much as half an interpreter

_PR_SET_CHILD_SUBREAPER = 36

_RANK = b"\0OMPI_COMM_WORLD_RANK="  # only ranks have this variable


class Child:
    """A process of ours that leads a session of its own."""

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
    """Send a signal to a process, or to a group: the negative of its leader, as for kill(2)."""
    try:
        os.kill(target, number)
    except OSError:
        pass  # it has just ended, or became another user


def orphans(own: Iterable[int]) -> set[int]:
    """What `send` takes for the living children that are not our own: the kernel gave them to us.

    They are signalled by group, but not where that is ours: of what a shell started before it became us.
    """
    ours = (0, os.getpgrp())
    return {
        pid if group in ours else -group
        for pid, (parent, group) in _living().items()
        if parent == os.getpid() and pid not in own
    }


def ranks() -> set[int]:
    """What `send` takes for the MPI ranks that mpirun, or its daemon on this host, has started below us."""
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
    """Be what PID 1 is to a container: where another process is that (docker run --init), ask for it."""
    if os.getpid() == 1:
        return
    try:
        import ctypes  # takes milliseconds, and the container's own PID 1 needs none

        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    except Exception:
        pass  # an interpreter without ctypes: orphans go to the other PID 1


def _do(work: Callable[[], object]) -> None:
    """The whole life of a child."""
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
