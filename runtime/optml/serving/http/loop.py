"""The loop of a process: connections, what arrives on them and what is sent, without ever waiting for either.

It turns bytes into requests and sends answers; what becomes of a request is for its owner to decide.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Container
from queue import SimpleQueue
from typing import Protocol

from ..errors import InferenceError
from ..journal import Journal
from .connection import Connection
from .payload import Bodies
from .request import Request
from .response import as_bytes, failure

TICK = 0.25  # seconds between two looks at the clock
_SILENCE = 75.0  # seconds a client may send nothing; load balancers keep connections for 60
_LINGER = 3.0  # seconds a refused client may go on sending, so that it can read the refusal
_READ_SIZE = 256 << 10  # of the rest of a body
_FIRST_READ = 64 << 10  # from twice that on, each buffer is mapped and unmapped by the kernel
_WAITING = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLONESHOT
_SENDING = select.EPOLLOUT | select.EPOLLONESHOT
_END = select.EPOLLRDHUP | select.EPOLLONESHOT
_NOTHING = select.EPOLLONESHOT
_ASKED_FOR = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP  # others come without


class Owner(Protocol):
    """What the loop asks of the process that it runs in."""

    def may_read(self, connection: Connection) -> bool:
        """Something has arrived: whether to read it now. Otherwise the owner sees to the connection."""

    def dispatch(self, connection: Connection, request: Request) -> None:
        """A request is complete."""

    def may_listen(self, connection: Connection) -> bool:
        """All is answered: whether to await the next request now. From any thread."""

    def forget(self, connection: Connection) -> None:
        """The connection is closed."""


class Loop:
    """All methods are for the thread of the loop alone, but for `post` and `send`."""

    def __init__(self, owner: Owner, bodies: Bodies, journal: Journal) -> None:
        self.now = time.monotonic()
        self.connections: dict[int, Connection] = {}
        self._owner = owner
        self._bodies = bodies
        self._journal = journal
        self._poller = select.epoll()
        self._events: deque[tuple[int, int]] = deque()
        self._actions: dict[int, Callable[[], None]] = {}
        self._posted: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._wake = os.eventfd(0)
        self.watch(self._wake, self._run_posted)

    def turn(self, timeout: float) -> None:
        """Handle what has happened, or wait for it."""
        self.wait(timeout)
        while self.handle_next():
            pass

    def wait(self, timeout: float) -> None:
        """Wait until something has happened that is not handled yet."""
        if not self._events:
            events = self._poller.poll(timeout)
            if len(events) > 1:
                # New connections last: one may get the number of another that ends, and whose event is here.
                events.sort(key=lambda event: event[0] in self._actions and event[0] != self._wake)
            self._events.extend(events)
        self.now = time.monotonic()

    def handle_next(self) -> bool:
        """Handle one thing that has happened; false when that was all."""
        if not self._events:
            return False
        fd, happened = self._events.popleft()
        if connection := self.connections.get(fd):
            if happened & _ASKED_FOR:
                self._on_event(connection)
        elif action := self._actions.get(fd):
            action()
        return True

    def post(self, action: Callable[[], None]) -> None:
        """Have the loop do something; from any thread."""
        self._posted.put(action)
        os.eventfd_write(self._wake, 1)

    def _run_posted(self) -> None:
        os.eventfd_read(self._wake)
        while not self._posted.empty():
            self._posted.get()()

    # Other things to wait for

    def watch(self, fd: int, action: Callable[[], None]) -> None:
        self._actions[fd] = action
        self._poller.register(fd, select.EPOLLIN)

    def ignore(self, fd: int) -> None:
        if self._actions.pop(fd, None):
            self._poller.unregister(fd)

    # Connections

    def adopt(self, sock: socket.socket) -> Connection | None:
        """Take over a connection; None where its client is gone already."""
        try:
            sock.setblocking(False)
            peer, server = sock.getpeername(), sock.getsockname()
        except OSError:
            sock.close()
            return None
        connection = Connection(sock, peer, server, self._bodies, self.now)
        self.connections[connection.fd] = connection
        self._poller.register(connection.fd, _WAITING)
        return connection

    def listen(self, connection: Connection) -> None:
        """Wait for more from the client; from any thread."""
        self._poller.modify(connection.fd, _WAITING)

    def await_end(self, connection: Connection) -> None:
        """Leave unread what has arrived, and wait for the client to hang up."""
        self._poller.modify(connection.fd, _END)

    def leave(self, connection: Connection) -> None:
        """Wait for nothing: what is read now may be a call, which has the connection until it is answered."""
        self._poller.modify(connection.fd, _NOTHING)

    def holds(self, connection: Connection) -> bool:
        """Whether it is open; its number may belong to another by now."""
        return self.connections.get(connection.fd) is connection

    def close(self, connection: Connection, shut: bool = True) -> None:
        """Close it, on the other side as well: another process may hold a duplicate that stays open."""
        if not self.holds(connection):
            return
        self._owner.forget(connection)
        del self.connections[connection.fd]
        self._poller.unregister(connection.fd)
        connection.drop()
        if shut:
            try:
                connection.sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # the client was faster
        connection.sock.close()

    def close_silent(self, busy: Container[Connection]) -> None:
        """Close connections whose clients have sent nothing for long, but for those that wait for us."""
        for connection in list(self.connections.values()):
            allowed = _LINGER if connection.closing else _SILENCE
            waits = connection.answering or connection in busy
            if self.now - connection.seen > allowed and not waits:
                self.close(connection)

    def close_idle(self, busy: Container[Connection]) -> None:
        """Close connections on which nothing is on its way."""
        for connection in list(self.connections.values()):
            if connection not in busy and connection.is_idle():
                self.close(connection)

    def read(self, connection: Connection) -> None:
        """Read what has arrived, and act on the request that it completes."""
        try:
            data = connection.sock.recv(_READ_SIZE if connection.request else _FIRST_READ)
        except BlockingIOError:
            self.listen(connection)
            return
        except OSError:
            data = b""
        if not data:
            self.close(connection)
        elif connection.closing:
            self.listen(connection)
        else:
            self._take(connection, data)

    def _on_event(self, connection: Connection) -> None:
        """The client has sent something, or can take more of its answer."""
        connection.seen = self.now
        if connection.outgoing:
            self._flush(connection)
        elif self._owner.may_read(connection):
            self.read(connection)

    def _take(self, connection: Connection, data: bytes) -> None:
        try:
            request = connection.receive(data)
            if request is not None:
                connection.answering = True
                self._owner.dispatch(connection, request)
                return
            connection.in_parts = True
            if connection.wants_to_continue():
                connection.sock.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.listen(connection)
        except InferenceError as error:
            self.reject(connection, error)
        except OSError:
            self.close(connection)

    # Answers

    def reject(self, connection: Connection, error: InferenceError) -> None:
        """Answer what is malformed or too large, and read no more."""
        id = self._journal.new_id()
        self._journal.note(connection.request, error.status, id)
        connection.drop()
        self.send(connection, *as_bytes(failure(error, id), None, True))

    def send(self, connection: Connection, data: bytes, then_close: bool) -> None:
        """Send what the socket takes, the loop sends the rest; then await the next request, or close."""
        connection.seen = time.monotonic()  # the client has been waiting, not silent
        try:
            sent = connection.sock.send(data) if data else 0
        except BlockingIOError:
            sent = 0
        except OSError:
            self.post(lambda: self.close(connection))
            return
        if sent < len(data) or then_close or connection.has_input:
            connection.outgoing = memoryview(data)[sent:]
            connection.then_close = then_close
            connection.answering = False
            self.post(lambda: self._flush(connection))
            return
        connection.answering = False  # before the next request can come
        if self._owner.may_listen(connection):
            self.listen(connection)

    def _flush(self, connection: Connection) -> None:
        """Send more of an answer, and go on with the connection when all is sent."""
        if not self.holds(connection):
            return
        try:
            while connection.outgoing:
                connection.outgoing = connection.outgoing[connection.sock.send(connection.outgoing) :]
            if connection.then_close:
                self._hang_up(connection)
            elif connection.has_input:
                self._take(connection, b"")
            elif self._owner.may_listen(connection):
                self.listen(connection)
        except BlockingIOError:
            self._poller.modify(connection.fd, _SENDING)
        except OSError:
            self.close(connection)

    def _hang_up(self, connection: Connection) -> None:
        """Say that no more will come and let the client close: cutting it off could lose the answer."""
        connection.closing = True
        connection.seen = self.now
        connection.sock.shutdown(socket.SHUT_WR)
        self.listen(connection)
