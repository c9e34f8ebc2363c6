"""Connections shared by the standby and the workers, so that a worker's death costs only what it was running.

The standby accepts every connection, keeps it, and sends a duplicate to a worker over the worker's socket
pair. The worker records the state of each connection in shared memory, and leaves requests unread, in the
kernel, until a slot is free. So whenever it dies, the standby has all its connections and knows which may go
to another worker.
"""

from __future__ import annotations

import mmap
import os
import socket
import struct
import time
from typing import NamedTuple

# States of a connection in its worker. Higher numbers: since when its call waits unread, in nanoseconds.
# UNTAKEN: the connection came without its file descriptor, because the worker could have no more.
UNREAD, READING, RUNNING, UNTAKEN = 0, 1, 2, 3

NUMBERS = 1 << 16  # connections have file descriptors below this
_DIED = 0  # in place of a token: a worker has died
_NONE = (1 << 63) - 1  # above all tokens


class Handed(NamedTuple):
    """The message with a duplicate. Times are nanoseconds of the monotonic clock."""

    generation: int  # of the worker that is to take it
    token: int  # identifies the connection, never reused
    since: int  # when the call began to wait, or 0
    sent: int


_HANDED = struct.Struct("<qqqq")
_RETURNED = struct.Struct("<qq")  # token and since


class Exchange:
    """Created before the fork. `None` in a worker's application means that there is no standby."""

    def __init__(self, rows: int) -> None:
        self._to_standby, self.at_standby = _pair()
        pairs = [_pair() for _ in range(rows)]
        self._to_workers = [ours for ours, _ in pairs]
        self.at_workers = [theirs for _, theirs in pairs]
        # Token and state of each file descriptor of each worker; at number 0, the highest one in use instead.
        # Pages take no memory until they are written.
        self._cells = memoryview(mmap.mmap(-1, rows * NUMBERS * 16)).cast("q", [rows, NUMBERS, 2])
        self._known = memoryview(mmap.mmap(-1, 8)).cast("q")  # the first token that the standby knows

    # In a worker

    def take(self, row: int, generation: int) -> tuple[socket.socket, int] | None:
        """The next connection for this worker, recorded as unread, and since when its call waits, or 0."""
        while received := self._receive(row):
            handed, fds = received
            if handed.generation == generation:  # else it was meant for the row's previous worker
                if fds and fds[0] < NUMBERS:
                    self._note(row, fds[0], handed.token)
                    return socket.socket(fileno=fds[0]), handed.since
                self._tell_standby(handed.token, UNTAKEN)  # it has the only duplicate
            for fd in fds:
                os.close(fd)
        return None

    def set_state(self, row: int, number: int, state: int) -> None:
        self._cells[row, number, 1] = state

    def give_back(self, row: int, number: int) -> bool:
        """Give an unread connection back, for another worker; the caller then closes its duplicate.

        False if it must keep that one: no standby has another, or the message cannot be sent.
        """
        token, since = self._cells[row, number, 0], self._cells[row, number, 1]
        return token >= self._known[0] and self._tell_standby(token, since)

    # In the supervisor

    def report_death(self) -> None:
        """Have the standby look for the dead worker now instead of at its next check."""
        self._tell_standby(_DIED, 0)

    # In the standby

    def know_from(self, token: int = _NONE) -> None:
        """Connections with tokens below this stay in their workers; by default all, as the standby ends."""
        self._known[0] = token

    def receive(self) -> tuple[int, int] | None:
        """Token and state of a connection that a worker gives back; token 0 if a worker has died."""
        try:
            return _RETURNED.unpack(self.at_standby.recv(_RETURNED.size))
        except OSError:
            return None

    def hand_over(self, row: int, connection: socket.socket, generation: int, token: int, since: int) -> bool:
        """Send a duplicate to a worker; false if too many are already on their way."""
        handed = _HANDED.pack(generation, token, since, time.monotonic_ns())
        try:
            socket.send_fds(self._to_workers[row], [handed], [connection.fileno()])
        except OSError:
            return False
        return True

    def waits_untaken(self, row: int) -> float | None:
        """Seconds for which the worker has not taken its next connection; None if there is none."""
        try:
            handed = Handed(*_HANDED.unpack(self.at_workers[row].recv(_HANDED.size, socket.MSG_PEEK)))
        except OSError:
            return None
        return (time.monotonic_ns() - handed.sent) / 1e9

    def take_back(self, row: int) -> dict[int, int]:
        """Take back all connections that the worker has not taken: since when their calls wait, by token."""
        clocks = {}
        while received := self._receive(row):
            handed, fds = received
            for fd in fds:
                os.close(fd)
            clocks[handed.token] = handed.since or handed.sent
        return clocks

    def states(self, row: int) -> dict[int, int]:
        """The states of a dead worker's connections by token, without those that it had not taken."""
        numbers = range(1, self._cells[row, 0, 0] + 1)
        return {self._cells[row, number, 0]: self._cells[row, number, 1] for number in numbers}

    def _receive(self, row: int) -> tuple[Handed, list[int]] | None:
        """The next message, without its file descriptor if this process can have no more."""
        try:
            data, fds, _, _ = socket.recv_fds(self.at_workers[row], _HANDED.size, 1)
        except OSError:
            return None
        return Handed(*_HANDED.unpack(data)), fds

    def _note(self, row: int, number: int, token: int) -> None:
        """Record a file descriptor as the connection with this token, unread."""
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
    """A socket pair that keeps message boundaries."""
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in pair:
        end.setblocking(False)
    return pair
