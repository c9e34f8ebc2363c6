"""Calls that wait for a slot, unread in the kernel, so that they outlive this process."""

from __future__ import annotations

from .http.arrival import await_bytes, size_of_call
from .http.connection import Connection
from .http.loop import Loop


class Queue:
    """In the order in which they came. From the loop alone, but for `len`."""

    def __init__(self, loop: Loop, path: str) -> None:
        self._loop = loop
        self._path = path  # of calls, or of what is above them
        self._since: dict[Connection, float] = {}
        self._partial: set[Connection] = set()  # of these the kernel has some, and tells when it has all

    def __len__(self) -> int:
        return len(self._since)

    def __contains__(self, connection: object) -> bool:
        return connection in self._since

    def connections(self) -> list[Connection]:
        return list(self._since)

    def waiting_since(self, moment: float) -> list[Connection]:
        """Those that came before."""
        return [connection for connection, since in self._since.items() if since < moment]

    def add(self, connection: Connection, since: float) -> bool:
        """Leave unread what has arrived; false where it is no call, or more than the kernel should keep."""
        size = size_of_call(connection.sock, self._path)
        if size is None:
            return False
        if not size.missing:
            self.wake(connection)
            self._since[connection] = since
            self._loop.await_end(connection)
            return True
        return self._await_rest(connection, size.whole)

    def gather(self, connection: Connection) -> bool:
        """Leave a call unread until all of it has arrived; false where it has, or is no small call."""
        size = size_of_call(connection.sock, self._path)
        if size is not None and size.missing:
            return self._await_rest(connection, size.whole)
        connection.in_parts = connection in self._partial
        return False

    def _await_rest(self, connection: Connection, whole: int) -> bool:
        if connection in self._partial:
            return False  # it came without the rest: the client has hung up
        self._partial.add(connection)
        await_bytes(connection.sock, whole)
        self._loop.listen(connection)
        return True

    def wake(self, connection: Connection) -> None:
        """It is readable again as soon as anything has arrived."""
        if connection in self._partial:
            self._partial.discard(connection)
            await_bytes(connection.sock, 1)

    def first(self) -> Connection:
        return next(iter(self._since))

    def remove(self, connection: Connection) -> float:
        """Take it out; gives the moment since when it has waited."""
        self._partial.discard(connection)
        return self._since.pop(connection, self._loop.now)
