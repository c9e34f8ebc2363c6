"""The standby: a process without a model, which answers while no worker can, and keeps what they may lose.

It answers 503 until a worker has loaded its model. Then it takes only connections that no worker wants for a
while, because their models hold the interpreter: it answers /ping, and gives what is no /ping to the first
worker that looks up. When a worker dies, it ends the connections whose calls ran there, and gives the others
to another worker (see `exchange`).
"""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from .acceptor import Acceptor
from .errors import InferenceError
from .exchange import DEATH, KEEP, READING, raise_file_limit
from .http.arrival import PING, await_bytes
from .http.loop import TICK, Loop
from .http.payload import bodies_of_worker
from .http.response import Response, as_bytes, failure, refusal
from .journal import Journal

if TYPE_CHECKING:
    from .application import Server
    from .http.connection import Connection
    from .http.request import Request

_PATIENCE = 0.1  # seconds that a new connection is left to the workers
_RETRY = 0.02  # seconds after which a connection is offered to the workers again
_LOADING = InferenceError("The model is loading.", 503, {"Retry-After": "1"})
_BUSY = InferenceError("All workers are busy.", 503, {"Retry-After": "1"})


class Standby:
    """One process of it, which runs until SIGTERM or the supervisor's end."""

    def __init__(self, app: Server, listeners: list[Any]) -> None:
        self.app = app
        self.scoreboard = app.scoreboard
        self.exchange = app.exchange
        self.parent = os.getppid()
        self.alive = True
        self.journal = Journal(app.scoreboard, len(app.scoreboard.rows), app.settings.access_log)
        self.loop = Loop(self, bodies_of_worker(app.settings.max_payload, app.planned_workers))
        self.acceptor = Acceptor(self.loop, listeners, self.loop.adopt, self.patience)
        # Duplicates of the connections of all workers, by row and number there.
        self.kept: dict[tuple[int, int], int] = {}
        # Connections of dead workers: what is unread has waited there, and waits here for the next worker.
        self.orphans: dict[Connection, int] = {}
        self.again: deque[Connection] = deque()  # to be offered to the workers again
        self._ids = 0

    def run(self) -> None:
        signal.signal(signal.SIGTERM, self.stop)
        for each in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(each, signal.SIG_DFL if each == signal.SIGCHLD else signal.SIG_IGN)
        raise_file_limit()
        self.app.drop_privileges()
        self.loop.watch(self.exchange.at_standby.fileno(), self.on_message)
        looked = 0.0
        while self.alive:
            self.loop.turn(_RETRY if self.acceptor.is_waiting or self.again else TICK)
            self.acceptor.look_at_clock()
            for _ in range(len(self.again)):
                self.offer_again(self.again.popleft())
            if self.loop.now - looked >= TICK:
                looked = self.loop.now
                self.loop.close_silent(self.orphans)
                self.alive = self.alive and os.getppid() == self.parent
        self.journal.flush()

    def stop(self, *_: Any) -> None:
        self.alive = False

    # Connections that nobody took

    def patience(self) -> float:
        """For how long to leave a new connection to the workers."""
        return _PATIENCE if self.scoreboard.any_ready() else 0.0

    def may_read(self, connection: Connection) -> bool:
        """Read /ping, and what no worker could take."""
        if connection.request is not None or connection.has_input or connection.closing:
            return True
        try:
            head = connection.sock.recv(len(PING), socket.MSG_PEEK)
        except OSError:
            head = b""
        if head in (PING, b""):
            return True
        if self.scoreboard.any_ready():
            if self.exchange.give(connection.sock, self.orphans.get(connection, 0)):
                self.loop.close(connection, shut=False)
            else:
                self.again.append(connection)
            return False
        if connection not in self.orphans or self.is_late(connection):
            return True
        self.again.append(connection)
        return False

    def is_late(self, connection: Connection) -> bool:
        """Whether the call of a dead worker has waited for too long."""
        since = self.orphans[connection] = self.orphans[connection] or time.monotonic_ns()
        return time.monotonic_ns() - since > self.app.settings.timeout * 1e9

    def offer_again(self, connection: Connection) -> None:
        if self.loop.holds(connection) and self.may_read(connection):
            self.loop.read(connection)

    def may_listen(self, connection: Connection) -> bool:
        return True

    def forget(self, connection: Connection) -> None:
        self.orphans.pop(connection, None)

    # Connections of the workers

    def on_message(self) -> None:
        received = self.exchange.receive()
        if received is None:
            return
        message, row, number, duplicate = received
        if message == DEATH:
            for key in [key for key in self.kept if key[0] == row]:
                self.inherit(key)
        elif message != KEEP:
            self.inherit((row, number))
        elif duplicate is not None:
            self.drop((row, number))
            self.kept[row, number] = duplicate
            self.loop.watch(duplicate, lambda: self.on_end(row, number, duplicate), select.EPOLLRDHUP)

    def on_end(self, row: int, number: int, duplicate: int) -> None:
        """One side has hung up."""
        if self.kept.get((row, number)) == duplicate:
            self.drop((row, number))

    def drop(self, key: tuple[int, int]) -> None:
        duplicate = self.kept.pop(key, None)
        if duplicate is not None:
            self.loop.ignore(duplicate)
            os.close(duplicate)

    def inherit(self, key: tuple[int, int]) -> None:
        """A worker gives up a connection, or had it when it died."""
        duplicate = self.kept.pop(key, None)
        if duplicate is None:
            return
        self.loop.ignore(duplicate)
        sock = socket.socket(fileno=duplicate)
        state = self.exchange.state(*key)
        if state == READING:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # the client is gone
            sock.close()
        elif connection := self.loop.adopt(sock):
            await_bytes(sock, 1)
            self.orphans[connection] = state

    # Answers

    def dispatch(self, connection: Connection, request: Request) -> None:
        ready = self.scoreboard.any_ready()
        if request.path != "/ping":
            id = self.new_id()
            error = _BUSY if ready else _LOADING
            self.respond(connection, request, failure(error, id))
            self.journal.note(request, error.status, id)
        elif ready:
            self.respond(connection, request, Response(200))
        else:
            self.respond(connection, request, Response(503, b"", {"Retry-After": "1"}))
        request.body.close()

    def respond(self, connection: Connection, request: Request, response: Response) -> None:
        """Answer, and close: who calls again shall find a worker."""
        self.loop.send(connection, *as_bytes(response, request, True))

    def reject(self, connection: Connection, error: InferenceError) -> None:
        id = self.new_id()
        self.journal.note(connection.request, error.status, id)
        connection.drop()
        self.loop.send(connection, refusal(error, id), True)

    def new_id(self) -> str:
        self._ids += 1
        return f"{os.getpid():x}-standby-{self._ids}"
