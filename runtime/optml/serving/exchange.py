"""What the standby and the workers share of connections, so that a worker's death costs no more than it ran.

A worker sends the standby a duplicate of each connection that it takes, and notes in shared memory for which
it has begun to read a request. It leaves requests unread, in the kernel, until a slot is free. When it dies,
the standby ends the connections with a request that was read, and gives the others to another worker.
"""

from __future__ import annotations

import mmap
import socket
import struct

KEEP, RETURN, DEATH = 1, 2, 3
READING = 1  # the state of a connection; more is a moment in nanoseconds of the monotonic clock

_MESSAGE = struct.Struct("<BII")  # one of the above, the row of a worker, the connection's number there
_SINCE = struct.Struct("<q")
_NUMBERS = 1 << 16  # connections with a higher number in their worker are not kept


class Exchange:
    """Made before the fork. Where it is `None` in a worker's application, there is no standby."""

    def __init__(self, rows: int) -> None:
        self._to_standby, self.at_standby = socket.socketpair()
        self._to_workers, self.at_workers = socket.socketpair()
        for each in (self._to_standby, self.at_standby, self._to_workers, self.at_workers):
            each.setblocking(False)
        # 0, READING or since when a call waits there; pages take memory as they are first written.
        self._states = memoryview(mmap.mmap(-1, rows * _NUMBERS * 8)).cast("q")

    # In a worker

    def keep(self, row: int, connection: socket.socket) -> None:
        """Have the standby keep a duplicate."""
        number = connection.fileno()
        if number < _NUMBERS:
            self.set_state(row, number, 0)
            self._send(KEEP, row, number, [number])

    def give_back(self, row: int, number: int) -> bool:
        """Have another worker take a connection of which nothing was read; the caller closes its own."""
        return number < _NUMBERS and self._send(RETURN, row, number)

    def set_state(self, row: int, number: int, state: int) -> None:
        """0, READING while a request is begun to be read or not answered yet, or since when a call waits."""
        if number < _NUMBERS:
            self._states[row * _NUMBERS + number] = state

    def take(self) -> tuple[socket.socket, int] | None:
        """A connection from the standby, and since when its call waits; None if another worker was faster."""
        try:
            data, fds, _, _ = socket.recv_fds(self.at_workers, _SINCE.size, 1)
        except OSError:
            return None
        return (socket.socket(fileno=fds[0]), _SINCE.unpack(data)[0]) if fds else None

    # In the supervisor

    def report_death(self, row: int) -> None:
        self._send(DEATH, row, 0)

    # In the standby

    def receive(self) -> tuple[int, int, int, int | None] | None:
        """What a worker or the supervisor tells: the message, row and number, and a duplicate for KEEP."""
        try:
            data, fds, _, _ = socket.recv_fds(self.at_standby, _MESSAGE.size, 1)
        except OSError:
            return None
        message, row, number = _MESSAGE.unpack(data)
        return message, row, number, fds[0] if fds else None

    def state(self, row: int, number: int) -> int:
        return self._states[row * _NUMBERS + number]

    def give(self, connection: socket.socket, since: int) -> bool:
        """Give a connection to the first worker that looks up; false where too many wait for that."""
        try:
            socket.send_fds(self._to_workers, [_SINCE.pack(since)], [connection.fileno()])
        except OSError:
            return False
        return True

    def _send(self, message: int, row: int, number: int, fds: list[int] | None = None) -> bool:
        try:
            socket.send_fds(self._to_standby, [_MESSAGE.pack(message, row, number)], fds or [])
        except OSError:  # the standby is far behind: what it cannot keep is not safe, but served
            return False
        return True


def raise_file_limit() -> None:
    """The standby holds the connections of all workers."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
