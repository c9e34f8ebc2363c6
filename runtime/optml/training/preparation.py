"""The child that prepares the job (`phases.py`) and then becomes the program, as PID 1 sees it.

It tells PID 1 through a socket in which phase it is and, at the end, what PID 1 must know of the job, with
the connections to the other hosts. Where the socket closes without a failure, the program runs.
"""

from __future__ import annotations

import io
import marshal
import os
import sys

from .. import paths
from ..hints import Any
from .supervisor import Supervisor

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
else:
    import _socket as socket  # the same without its enums

# Seconds for which a host whose program does not even start looks for the others, to let them know.
NOTICE = 30.0

_FD = 4  # bytes of a descriptor in a message


class Preparation:
    """The child as PID 1 sees it, and what that knows of the job."""

    def __init__(self, supervisor: Supervisor, argv: list[str]) -> None:
        self.over = False
        """Whether the program runs, or never will."""
        self._fds: list[int] = []
        self._heard = b""
        self._socket, its_socket = socket.socketpair()
        self.stderr, its_stderr = os.pipe()
        self.report, its_report = os.pipe()
        teller = Teller(its_socket)

        def work() -> None:
            from .phases import prepare  # PID 1 does without all that this imports

            prepare(argv, teller, its_stderr, its_report)

        self.child = supervisor.start(work)
        its_socket.close()
        os.close(its_stderr)
        os.close(its_report)
        supervisor.watch(self._socket.fileno(), self._hear)

    @property
    def facts(self) -> dict[str, Any]:
        """What the child has told: `phase`; `failed`, if it has; `name`, `hidden` and others at the end."""
        facts: dict[str, Any] = {}
        messages = io.BytesIO(self._heard)
        try:
            while True:
                facts.update(marshal.load(messages))
        except EOFError:
            return facts

    @property
    def runs(self) -> bool:
        """Whether the child has become the program."""
        return self.over and "name" in self.facts and "failed" not in self.facts

    @property
    def links(self) -> dict[str, int]:
        """The connections to other hosts, by host."""
        return dict(zip(self.facts.get("links", ()), self._fds, strict=False))

    def _hear(self) -> bool:
        piece, ancillary, *_ = self._socket.recvmsg(1 << 16, socket.CMSG_SPACE(_FD), socket.MSG_CMSG_CLOEXEC)
        for _, _, fd in ancillary:
            self._fds.append(int.from_bytes(fd, sys.byteorder))
        self._heard += piece
        self.over = not piece
        return bool(piece)


class Teller:
    """The child's end of the socket."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link

    def tell(self, **facts: object) -> None:
        self._link.sendall(marshal.dumps(facts))

    def hand_over(self, links: dict[str, socket.socket]) -> None:
        """Give PID 1 the connections to the other hosts, which hears and tells from then on."""
        self.tell(links=list(links))
        for link in links.values():
            # One message carries one descriptor; what else is in it must be something.
            right = (socket.SOL_SOCKET, socket.SCM_RIGHTS, link.fileno().to_bytes(_FD, sys.byteorder))
            self._link.sendmsg([marshal.dumps({})], [right])

    def close(self) -> None:
        self._link.close()


def prepare_output() -> None:
    """Make the directories that programs write to, and remove what tells the outcome of an earlier run.

    Both as far as the mounts allow. What the user's code writes from now on stands.
    """
    for directory in (paths.MODEL, paths.OUTPUT_DATA, paths.OUTPUT_INTERMEDIATE):
        try:
            os.makedirs(directory, exist_ok=True)
        except OSError:
            pass  # the program says so, if it needs it
    for path in (paths.FAILURE, paths.SUCCESS):
        try:
            os.unlink(path)
        except OSError:
            pass  # there is none, or it is on a read-only mount, where ours cannot be written either
