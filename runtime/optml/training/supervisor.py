"""PID 1 of a training container: it waits, and does nothing that could take long.

What may take long (reading and fetching, a GPU's library, an installer, the other hosts, the uploads, and the
program itself) runs in children. A child can be killed in the middle of anything, so a stop takes effect
within moments in every phase. A signal runs none of our code: it becomes a byte in a pipe, which the loop
reads. The first that asks to stop is recorded in `Supervisor.stopped`, and no `except` can swallow it.
"""

from __future__ import annotations

import os
import select
import time

from ..hints import Callable
from .children import Child, adopt_orphans, orphans, ranks, send, signal
from .record import Record
from .stderr import Tail

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .peers import Peers

_STOPPING = (signal.SIGTERM, signal.SIGINT)
_FORWARDED = (*_STOPPING, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)

# Seconds for a program to fail by itself after another host is lost, and then to end after SIGTERM.
_GRACE = 10.0
_PATIENCE = 30.0

# The share of the time after a stop that is for programs; the rest is for the last upload and the report.
_SHARE = 0.9
# Seconds of it for the report alone.
_REPORT = 0.5
# Seconds between searches for new orphans after a stop: no event announces them.
_LOOK = 0.2

_FOREVER = float("inf")


class Ended(Record):
    """How a program ended."""

    code: int
    """Its exit code, or 128 + N if signal N killed it."""
    signal: int
    """The signal that killed it, or 0."""
    stopped: int
    """The signal that asked to stop while it ran, or 0."""
    tail: str
    """The end of what it wrote to stderr."""
    lost: str | None
    """What happened on another host that kept this program from going on."""


class Supervisor:
    """The children of PID 1, the signals that it gets, and the time left after a stop."""

    def __init__(self) -> None:
        self.patience = 120.0
        """Seconds that the platform waits after its signal before it kills the container."""
        self.stopped = 0
        """The first signal that asked to stop, or 0."""
        self._stopped_at = 0.0
        self._children: dict[int, Child] = {}
        self._receives: Callable[[int], None] | None = None
        """Where signals go: to the program, while it runs."""
        self._readers: dict[int, Callable[[], bool]] = {}
        self._poll = select.poll()
        # Never closed: a signal may arrive until the very end.
        self._awake, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._poll.register(self._awake, select.POLLIN)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        for number in (*_FORWARDED, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)  # the byte in the pipe is all that counts
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)  # the entry point has blocked them
        adopt_orphans()

    def start(self, work: Callable[[], object]) -> Child:
        """Run `work` in a child that leads its own session."""
        child = Child(work)
        self._children[child.pid] = child
        return child

    def watch(self, fd: int, reader: Callable[[], bool], event: int = select.POLLIN) -> None:
        """Call `reader` whenever there is something to read, until it returns False."""
        self._readers[fd] = reader
        self._poll.register(fd, event)

    def wait(self, done: Callable[[], bool], seconds: float = _FOREVER) -> bool:
        """Wait until `done`, at most `seconds`. False if a stop comes first, or the time after one ends."""
        before, until = self.stopped, time.monotonic() + seconds
        if before:
            until = min(until, self._stopped_at + self.patience - _REPORT)
        self._wait(lambda: done() or self.stopped != before, until)
        return done()

    def run(self, program: Child, stderr: int, peers: Peers, has_ranks: bool = False) -> Ended:
        """Wait until the program has ended, and return how. Signals reach its whole process group.

        With `has_ranks` the program is mpirun or its daemon on this host, which would kill its ranks a
        moment after a stop. So signals go to the ranks, on each host to its own, and it ends when they do.

        When the program ends, the job ends: background processes are not waited for. But after a stop,
        everything that it has started gets its time. If another host is lost, the program gets some seconds
        to fail with its own message before it is stopped.
        """
        tail = Tail(stderr)
        self._pass_on(stderr, tail)
        for fd in peers.fds:
            self.watch(fd, lambda fd=fd: self._hear(peers, fd))  # type: ignore[misc]
        self._receives = program.signal
        if has_ranks:
            self._receives = lambda number: self._signal_ranks(number, program, peers)
        if self.stopped:
            self._receives(self.stopped)  # it arrived just before
        # If this host follows another, the end of that one counts.
        self._wait(lambda: (program.ended and not peers.follows) or bool(self.stopped or peers.lost))
        if peers.follows or not program.ended:
            self._end_with_others(program, peers)
        if self.stopped or peers.lost:
            self._let_all_end(program)
        self._receives = None
        for fd in list(self._readers):
            self._forget(fd)
        self._write_rest(tail)
        # A large one that was killed may still be freeing its memory.
        code = os.waitstatus_to_exitcode(signal.SIGKILL if program.status is None else program.status)
        return Ended(
            code=code if code >= 0 else 128 - code,
            signal=max(0, -code),
            stopped=self.stopped,
            tail=tail.text,
            lost=peers.lost,
        )

    def _pass_on(self, stderr: int, tail: Tail) -> None:
        """Copy the program's stderr to ours; while ours is full, read no more from the program."""

        def read() -> bool:
            more = tail.read()
            if not tail.write():
                return more
            self.watch(2, write, select.POLLOUT)
            return False

        def write() -> bool:
            if tail.write():
                return True
            self.watch(stderr, read)
            return False

        self.watch(stderr, read)

    def _write_rest(self, tail: Tail) -> None:
        """Wait until the rest is written; after a stop, only as long as for programs."""
        tail.read_rest()
        if tail.write():
            self.watch(2, tail.write, select.POLLOUT)
        self._wait(lambda: 2 not in self._readers or bool(self.stopped))
        self._wait(lambda: 2 not in self._readers, self._programs_end())

    def _hear(self, peers: Peers, fd: int) -> bool:
        more = peers.read(fd)
        if peers.stopped and not self.stopped:
            self._handle(peers.stopped)
        return more

    def _signal_ranks(self, number: int, program: Child, peers: Peers) -> None:
        for rank in ranks() or {-program.pid}:
            send(rank, number)
        if number in _STOPPING:
            peers.stop(number)

    def _end_with_others(self, program: Child, peers: Peers) -> None:
        """Tell the program to stop: at once after the end of the host that it follows, and some seconds after
        the loss of another host."""
        if peers.follows:
            self._wait(lambda: bool(peers.lost), self._programs_end())
        elif not self.stopped:
            self._wait(lambda: program.ended or bool(self.stopped), time.monotonic() + _GRACE)
        else:
            return
        program.signal(signal.SIGTERM)

    def _let_all_end(self, program: Child) -> None:
        """Wait for the program and everything that it has started; kill what does not end in time."""
        signalled = {-program.pid}

        def over() -> bool:
            left = orphans(self._children) if program.ended else set()
            for orphan in left - signalled:
                send(orphan, signal.SIGTERM)
            signalled.update(left)
            return program.ended and not left

        until = self._programs_end() if self.stopped else time.monotonic() + _PATIENCE
        self._wait(over, until, _LOOK)
        program.kill()
        for orphan in orphans(self._children):
            send(orphan, signal.SIGKILL)
        self._wait(lambda: program.ended, time.monotonic() + 1)

    def _programs_end(self) -> float:
        """When programs must have ended after a stop."""
        return self._stopped_at + _SHARE * self.patience if self.stopped else _FOREVER

    def _wait(self, done: Callable[[], bool], until: float = _FOREVER, look: float = _FOREVER) -> None:
        """Handle events until `done` or this time; call `done` at least every `look` seconds."""
        while not done():
            pause = min(until - time.monotonic(), look)
            if pause <= 0:
                return
            for fd, _ in self._poll.poll(None if pause == _FOREVER else pause * 1000):
                if fd == self._awake:
                    for number in os.read(fd, 1 << 16):
                        self._handle(number)
                elif fd in self._readers and not self._readers[fd]():
                    self._forget(fd)
            self._reap()

    def _handle(self, number: int) -> None:
        """Handle one signal."""
        if number in _STOPPING and not self.stopped:
            self.stopped, self._stopped_at = number, time.monotonic()
        if number in _FORWARDED and self._receives:
            self._receives(number)

    def _reap(self) -> None:
        """Reap every child that has ended, also orphans."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid in self._children:
                self._children.pop(pid).status = status

    def _forget(self, fd: int) -> None:
        del self._readers[fd]
        self._poll.unregister(fd)
