"""The event loop of a process: reads from connections and writes to them, without ever blocking on either.

It turns bytes into requests and sends responses; its owner decides what happens to a request.
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

TICK = 0.25  # seconds between checks of the clock
_SILENCE = 75.0  # seconds a client may send nothing; load balancers keep connections for 60
_LINGER = 3.0  # seconds a refused client may go on sending, so that it can read the refusal
_READ_SIZE = 256 << 10  # bytes, of the rest of a body
_FIRST_READ = 64 << 10  # bytes; from twice that, the C library by default maps and unmaps each buffer
_WAITING = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLONESHOT
_SENDING = select.EPOLLOUT | select.EPOLLONESHOT
_END = select.EPOLLRDHUP | select.EPOLLONESHOT
_NOTHING = select.EPOLLONESHOT
_ASKED_FOR = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP  # others come unasked


class Owner(Protocol):
    """What the loop calls in the process that it runs in."""

    def may_read(self, connection: Connection) -> bool:
        """Whether to read now what has arrived. Otherwise the owner takes care of the connection."""

    def dispatch(self, connection: Connection, request: Request) -> None:
        """Handle a complete request."""

    def may_listen(self, connection: Connection) -> bool:
        """Whether to await the next request now, after a complete response. Called from any thread."""

    def forget(self, connection: Connection) -> None:
        """Drop a connection that is being closed."""


class Loop:
    """All methods are for the loop's thread only, except `post`, `send` and `listen`."""

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
        """Wait for events and handle them."""
        self.wait(timeout)
        while self.handle_next():
            pass

    def wait(self, timeout: float) -> None:
        """Wait for events, unless there are unhandled ones."""
        if not self._events:
            events = self._poller.poll(timeout)
            if len(events) > 1:
                # New connections last: one may get the file descriptor of another that an event here closes.
                events.sort(key=lambda event: event[0] in self._actions and event[0] != self._wake)
            self._events.extend(events)
        self.now = time.monotonic()

    def handle_next(self) -> bool:
        """Handle one event; false if there is none."""
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
        """Have the loop run an action. May be called from any thread."""
        self._posted.put(action)
        os.eventfd_write(self._wake, 1)

    def _run_posted(self) -> None:
        os.eventfd_read(self._wake)
        while not self._posted.empty():
            self._posted.get()()

    # Other file descriptors

    def watch(self, fd: int, action: Callable[[], None]) -> None:
        self._actions[fd] = action
        self._poller.register(fd, select.EPOLLIN)

    def ignore(self, fd: int) -> None:
        if self._actions.pop(fd, None):
            self._poller.unregister(fd)

    # Connections

    def adopt(self, sock: socket.socket) -> Connection | None:
        """Take over a connection; None if its client is already gone."""
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
        """Wait for more from the client. May be called from any thread."""
        self._poller.modify(connection.fd, _WAITING)

    def await_end(self, connection: Connection) -> None:
        """Leave unread what has arrived, and wait for the client to hang up."""
        self._poller.modify(connection.fd, _END)

    def leave(self, connection: Connection) -> None:
        """Wait for nothing: what is read now may be a call, which owns the connection until its response."""
        self._poller.modify(connection.fd, _NOTHING)

    def holds(self, connection: Connection) -> bool:
        """Whether the connection is open; its file descriptor may be another's by now."""
        return self.connections.get(connection.fd) is connection

    def close(self, connection: Connection, shut: bool = True) -> None:
        """Close a connection. `shut`: for its duplicates in other processes, too."""
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
                pass  # the client was first
        connection.sock.close()

    def close_silent(self, busy: Container[Connection]) -> None:
        """Close connections whose clients have been silent too long, unless they wait for a response."""
        for connection in list(self.connections.values()):
            allowed = _LINGER if connection.closing else _SILENCE
            waits = connection.answering or connection in busy
            if self.now - connection.seen > allowed and not waits:
                self.close(connection)

    def close_idle(self, busy: Container[Connection]) -> None:
        """Close connections on which nothing is in progress."""
        for connection in list(self.connections.values()):
            if connection not in busy and connection.is_idle():
                self.close(connection)

    def read(self, connection: Connection) -> None:
        """Read what has arrived, and dispatch the request that it completes."""
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
        """The client has sent something, or can take more of its response."""
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

    # Responses

    def reject(self, connection: Connection, error: InferenceError) -> None:
        """Send an error response, and read no more."""
        id = self._journal.new_id()
        self._journal.note(connection.request, error.status, id)
        connection.drop()
        self.send(connection, *as_bytes(failure(error, id), None, True))

    def send(self, connection: Connection, data: bytes, then_close: bool) -> None:
        """Send a response: at once what the socket takes, the rest by the loop. Then listen or close."""
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
        """Send more of a response, and go on with the connection when all is sent."""
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
        """Shut down sending and let the client close: closing at once could lose the response."""
        connection.closing = True
        connection.seen = self.now
        connection.sock.shutdown(socket.SHUT_WR)
        self.listen(connection)
