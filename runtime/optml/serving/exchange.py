"""What the standby and the workers share of connections, so that a worker's death costs only what it ran.

The standby accepts every connection, keeps it, and sends a duplicate to a worker, on the worker's own socket.
The worker notes in shared memory how far it is with each; it leaves requests unread, in the kernel, until a
slot is free. So when it dies, whatever it was doing, the standby has all its connections and knows which may
go to another worker.
"""

from __future__ import annotations

import mmap
import os
import socket
import struct
import time
from typing import NamedTuple

# States of a connection in its worker; more is since when a call waits there, unread, in nanoseconds. One
# that is untaken has come without its file descriptor: the worker could have no more.
UNREAD, READING, RUNNING, UNTAKEN = 0, 1, 2, 3

NUMBERS = 1 << 16  # file descriptors of a worker that can be connections
_DIED = 0  # in place of a token: some worker has
_NONE = (1 << 63) - 1  # above all tokens


class Handed(NamedTuple):
    """What goes with a duplicate to a worker. Moments are nanoseconds of the monotonic clock."""

    generation: int  # of the worker that it is meant for
    token: int  # names the connection; no other ever has the same
    since: int  # when the call began to wait, or 0
    sent: int


_HANDED = struct.Struct("<qqqq")
_RETURNED = struct.Struct("<qq")  # token and since


class Exchange:
    """Made before the fork. Where it is `None` in a worker's application, there is no standby."""

    def __init__(self, rows: int) -> None:
        self._to_standby, self.at_standby = _pair()
        pairs = [_pair() for _ in range(rows)]
        self._to_workers = [ours for ours, _ in pairs]
        self.at_workers = [theirs for _, theirs in pairs]
        # Token and state for each file descriptor of each worker, and in place of number 0 the highest one in
        # use; pages take memory as they are first written.
        self._cells = memoryview(mmap.mmap(-1, rows * NUMBERS * 16)).cast("q", [rows, NUMBERS, 2])
        self._known = memoryview(mmap.mmap(-1, 8)).cast("q")  # the first token that the standby knows

    # In a worker

    def take(self, row: int, generation: int) -> tuple[socket.socket, int] | None:
        """The next connection for this worker, noted as unread, and since when its call waits, or 0."""
        while received := self._receive(row):
            handed, fds = received
            if handed.generation == generation:  # else it is meant for the worker that had the row before
                if fds and fds[0] < NUMBERS:
                    self._note(row, fds[0], handed.token)
                    return socket.socket(fileno=fds[0]), handed.since
                self._tell_standby(handed.token, UNTAKEN)  # whose duplicate is the only one
            for fd in fds:
                os.close(fd)
        return None

    def set_state(self, row: int, number: int, state: int) -> None:
        self._cells[row, number, 1] = state

    def give_back(self, row: int, number: int) -> bool:
        """Have another worker take a connection of which nothing was read; the caller closes its own.

        False where that one would be the last: no standby has a duplicate, or the message cannot be sent.
        """
        token, since = self._cells[row, number, 0], self._cells[row, number, 1]
        return token >= self._known[0] and self._tell_standby(token, since)

    # In the supervisor

    def report_death(self) -> None:
        """Have the standby look at once; it does so now and then in any case."""
        self._tell_standby(_DIED, 0)

    # In the standby

    def know_from(self, token: int = _NONE) -> None:
        """Connections with names below this one stay where they are; so do all when the standby ends."""
        self._known[0] = token

    def receive(self) -> tuple[int, int] | None:
        """Token and clock of a connection that a worker gives back; token 0 when one has died."""
        try:
            return _RETURNED.unpack(self.at_standby.recv(_RETURNED.size))
        except OSError:
            return None

    def hand_over(self, row: int, connection: socket.socket, generation: int, token: int, since: int) -> bool:
        """Send a duplicate to a worker; false where too many are on their way there."""
        handed = _HANDED.pack(generation, token, since, time.monotonic_ns())
        try:
            socket.send_fds(self._to_workers[row], [handed], [connection.fileno()])
        except OSError:
            return False
        return True

    def waits_untaken(self, row: int) -> float | None:
        """For how many seconds the worker has left the next one untaken; None where there is none."""
        try:
            handed = Handed(*_HANDED.unpack(self.at_workers[row].recv(_HANDED.size, socket.MSG_PEEK)))
        except OSError:
            return None
        return (time.monotonic_ns() - handed.sent) / 1e9

    def take_back(self, row: int) -> dict[int, int]:
        """Tokens and clocks of all that the worker has not taken; it will not get them any more."""
        clocks = {}
        while received := self._receive(row):
            handed, fds = received
            for fd in fds:
                os.close(fd)
            clocks[handed.token] = handed.since or handed.sent
        return clocks

    def states(self, row: int) -> dict[int, int]:
        """How far a worker was with its connections when it died; without those that it had not looked at."""
        numbers = range(1, self._cells[row, 0, 0] + 1)
        return {self._cells[row, number, 0]: self._cells[row, number, 1] for number in numbers}

    def _receive(self, row: int) -> tuple[Handed, list[int]] | None:
        """The next message, without its file descriptor where this process can have no more."""
        try:
            data, fds, _, _ = socket.recv_fds(self.at_workers[row], _HANDED.size, 1)
        except OSError:
            return None
        return Handed(*_HANDED.unpack(data)), fds

    def _note(self, row: int, number: int, token: int) -> None:
        """This file descriptor is the connection of that name, of which nothing was read yet."""
        self._cells[row, number, 1] = UNREAD
        self._cells[row, number, 0] = token
        self._cells[row, 0, 0] = max(self._cells[row, 0, 0], number)

    def _tell_standby(self, token: int, since: int) -> bool:
        try:
            self._to_standby.send(_RETURNED.pack(token, since))
        except OSError:
            return False
        return True


def _pair() -> tuple[socket.socket, socket.socket]:
    """Two ends, whose messages stay whole."""
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in pair:
        end.setblocking(False)
    return pair
