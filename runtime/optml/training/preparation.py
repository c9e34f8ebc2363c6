"""What lies between PID 1 and the program: one child that prepares the job and then becomes the program.

It tells PID 1 through a socket in which phase it is and, at the end, what PID 1 must know of the job, with
the connections to the other hosts. Where the socket closes without a failure, the program runs.
A stop needs no care here: it kills this process.
"""

from __future__ import annotations

import errno
import marshal
import os
import sys

from ..report import UserError
from . import banner, intermediate, launchers, program, reporting, requirements, secrets, source
from . import job as jobs
from .arguments import arguments
from .environment import environment

TYPE_CHECKING = False  # typing takes milliseconds to import
if TYPE_CHECKING:
    import signal
    import socket
    from typing import Any

    from .launchers import Launch
    from .rendezvous import Host
    from .supervisor import Supervisor
else:
    import _signal as signal
    import _socket as socket  # the same without its enums

# Python ignores these two; the user's program must start with their default, as any other program does.
_RESTORED = (signal.SIGPIPE, signal.SIGXFSZ)

# Seconds that a host takes to let the others know that its program does not even start.
NOTICE = 30.0

# The kernel passes 253 descriptors at once.
_FDS_AT_ONCE = 100
_FD = 4


class Preparation:
    """The child as PID 1 sees it, and what that knows of the job."""

    def __init__(self, supervisor: Supervisor, argv: list[str]) -> None:
        self.facts: dict[str, Any] = {}
        """What the child has told: `phase`; `failed`, if it has; `name`, `hidden` and others at the end."""
        self.over = False
        """Whether the program runs, or never will."""
        self._fds: list[int] = []
        self._begun = b""
        self._socket, its_socket = socket.socketpair()
        self.stderr, its_stderr = os.pipe()
        self.report, its_report = os.pipe()
        teller = _Teller(its_socket)
        self.child = supervisor.start(lambda: _prepare(argv, teller, its_stderr, its_report))
        its_socket.close()
        os.close(its_stderr)
        os.close(its_report)
        supervisor.watch(self._socket.fileno(), self._hear)

    @property
    def runs(self) -> bool:
        """Whether the child has become the program."""
        return self.over and "name" in self.facts and "failed" not in self.facts

    @property
    def links(self) -> dict[str, int]:
        """The connections to other hosts, by host."""
        return dict(zip(self.facts.get("links", ()), self._fds, strict=True))

    def _hear(self) -> bool:
        piece, ancillary, *_ = self._socket.recvmsg(
            1 << 16, socket.CMSG_SPACE(_FDS_AT_ONCE * _FD), socket.MSG_CMSG_CLOEXEC
        )
        for _, _, fds in ancillary:
            self._fds += memoryview(fds).cast("i")
        self._begun += piece
        while len(self._begun) >= 4 and len(self._begun) >= 4 + (
            size := int.from_bytes(self._begun[:4], "big")
        ):
            self.facts.update(marshal.loads(self._begun[4 : 4 + size]))
            self._begun = self._begun[4 + size :]
        self.over = not piece
        return bool(piece)


class _Teller:
    """The child's end of the socket."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link

    def tell(self, **facts: object) -> None:
        words = marshal.dumps(facts)
        self._link.sendall(len(words).to_bytes(4, "big") + words)

    def hand_over(self, fds: list[int]) -> None:
        for start in range(0, len(fds), _FDS_AT_ONCE):
            some = b"".join(fd.to_bytes(_FD, sys.byteorder) for fd in fds[start : start + _FDS_AT_ONCE])
            empty = marshal.dumps({})
            self._link.sendmsg(
                [len(empty).to_bytes(4, "big") + empty], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, some)]
            )

    def close(self) -> None:
        self._link.close()


def _prepare(argv: list[str], to_pid1: _Teller, stderr: int, report: int) -> None:
    """Everything that comes before the program, phase by phase, and the program itself."""
    tell = to_pid1.tell
    hidden = secrets.secret_values({})
    host = None
    try:
        tell(phase="reading the job")
        job = jobs.read()
        hidden = secrets.secret_values({**job.framework_parameters, **job.hyperparameters})
        host = launchers.meet(job)
        tell(phase="fetching the code", distributed=host is not None)
        directory, named = source.fetch(job)
        entry = program.find(job, directory, named)
        words = arguments(job.hyperparameters) + argv
        variables = environment(job, entry, words)
        banner.start(job, entry, hidden)
        tell(phase="installing the requirements")
        requirements.install(entry, variables)
        banner.warn_of_driver(job, entry)
        tell(phase="meeting the other hosts")
        links = host.join() if host else {}
        tell(phase="starting the program")
        launch = launchers.launch(job, entry, words, variables)
        banner.command(launch.argv, hidden)
        tell(
            name=entry.name,
            hidden=hidden,
            upload=intermediate.place(job),
            links=list(links),
            current=job.current_host,
            follows=job.master if launch.engine == "sshd" and links else "",
            gpus=job.gpus,
            ranks=launch.engine in ("mpirun", "sshd"),
            torch_report=launch.environment.get(reporting.TORCH_VARIABLE, ""),
        )
        to_pid1.hand_over([link.fileno() for link in links.values()])
        _become(launch, reporting.argv(launch, entry, report), directory, stderr)
    except UserError as problem:
        reason = str(problem)
    except Exception as bug:
        reason = f"optml itself failed: {type(bug).__name__}: {bug}; please report it"
    tell(failed=secrets.mask(reason, hidden))
    to_pid1.close()
    announce(1, NOTICE, host)


def announce(code: int, patience: float, host: Host | None = None) -> None:
    """Tell the other hosts, if there are any, that the program of this one does not start."""
    host = host or launchers.rendezvous_without_job()
    if host:
        host.announce(code, patience)


def _become(launch: Launch, argv: list[str], directory: str, stderr: int) -> None:
    """Become the program. Raises UserError where it cannot be started."""
    log = os.dup(2)
    os.set_inheritable(log, False)
    try:
        os.chdir(directory)
        os.dup2(stderr, 2)
        for number in _RESTORED:
            signal.signal(number, signal.SIG_DFL)
        os.execvpe(argv[0], argv, launch.environment)
    except OSError as error:
        os.dup2(log, 2)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        hint = "; begin it with #! and its interpreter" if error.errno == errno.ENOEXEC else ""
        raise UserError(f"cannot start {launch.argv[0]} in {directory}: {error.strerror}{hint}") from error
