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

_MESSAGE = struct.Struct("<BII")  # one of the above, the row of a worker, the connection's number there
_NUMBERS = 1 << 16  # connections with a higher number in their worker are not kept


class Exchange:
    """Made before the fork. Where it is `None` in a worker's application, there is no standby."""

    def __init__(self, rows: int) -> None:
        self._to_standby, self.at_standby = socket.socketpair()
        self._to_workers, self.at_workers = socket.socketpair()
        for each in (self._to_standby, self.at_standby, self._to_workers, self.at_workers):
            each.setblocking(False)
        self._reading = mmap.mmap(-1, rows * _NUMBERS)  # its pages take memory as they are first written

    # In a worker

    def keep(self, row: int, connection: socket.socket) -> None:
        """Have the standby keep a duplicate."""
        number = connection.fileno()
        if number < _NUMBERS:
            self.set_reading(row, number, False)
            self._send(KEEP, row, number, [number])

    def give_back(self, row: int, number: int) -> bool:
        """Have another worker take a connection of which nothing was read; the caller closes its own."""
        return number < _NUMBERS and self._send(RETURN, row, number)

    def set_reading(self, row: int, number: int, reading: bool) -> None:
        """Whether a request was begun to be read that is not answered yet."""
        if number < _NUMBERS:
            self._reading[row * _NUMBERS + number] = reading

    def take(self) -> socket.socket | None:
        """A connection from the standby; None where another worker was faster."""
        try:
            _, fds, _, _ = socket.recv_fds(self.at_workers, 1, 1)
        except OSError:
            return None
        return socket.socket(fileno=fds[0]) if fds else None

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

    def was_reading(self, row: int, number: int) -> bool:
        return bool(self._reading[row * _NUMBERS + number])

    def give(self, connection: socket.socket) -> bool:
        """Give a connection to the first worker that looks up; false where too many wait for that."""
        try:
            socket.send_fds(self._to_workers, [b"\0"], [connection.fileno()])
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
