"""The child that prepares the job (`phases.py`) and then becomes the program, as PID 1 sees it.

It tells PID 1 through a socket in which phase it is and, at the end, what PID 1 must know of the job, with
the connections to the other hosts. Where the socket closes without a failure, the program runs.
"""

from __future__ import annotations

import marshal
import os
import sys

TYPE_CHECKING = False  # typing takes milliseconds to import
if TYPE_CHECKING:
    import socket
    from typing import Any

    from .supervisor import Supervisor
else:
    import _socket as socket  # the same without its enums

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
        while len(self._begun) >= 4 + (size := int.from_bytes(self._begun[:4], "big")):
            self.facts.update(marshal.loads(self._begun[4 : 4 + size]))
            self._begun = self._begun[4 + size :]
        self.over = not piece
        return bool(piece)


class Teller:
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
