"""The standby: a process without a model that accepts every connection and keeps what workers may lose.

It answers /ping and, until a worker has loaded its model, everything else with 503. It hands any other
connection to the worker with the fewest calls, and keeps a duplicate until the client hangs up. When a worker
dies, it closes the connections whose calls were running and gives the others to another worker (see
`exchange`), as it does if a worker does not take a connection because its model holds the interpreter lock.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import time
from itertools import count
from typing import Any

from .application import Server
from .errors import InferenceError
from .exchange import READING, RUNNING, UNREAD, UNTAKEN
from .http.arrival import await_bytes
from .http.connection import Connection
from .http.loop import TICK, Loop
from .http.payload import bodies_of_worker
from .http.request import Request
from .http.response import Response, as_bytes, failure
from .journal import Journal
from .scoreboard import CALLS, GENERATION, READY, STATE

_PATIENCE = 0.1  # seconds after which a connection that its worker does not take is taken back
_RETRY = 0.02  # seconds between checks of connections that no worker has taken
_AT_ONCE = 64  # connections accepted before other events are handled
_BACKLOG = 4096  # more than the listener's backlog
_PING = b"GET /ping "
_LOADING = InferenceError("The model is loading.", 503, {"Retry-After": "1"})
_BUSY = InferenceError("All workers are busy.", 503, {"Retry-After": "1"})
_CROWDED = InferenceError("The worker has reached its limit of open files.", 503, {"Retry-After": "1"})
_DIED = InferenceError("The worker died before it started this request.", 503, {"Retry-After": "1"})


class Standby:
    """The standby process. Runs until SIGTERM or the supervisor's end."""

    def __init__(self, app: Server, listener: socket.socket) -> None:
        self.app = app
        self.scoreboard = app.scoreboard
        self.exchange = app.exchange
        self.parent = os.getppid()
        self.alive = True
        self.journal = Journal(app.scoreboard, len(app.scoreboard.rows), app.settings.access_log)
        self.loop = Loop(self, bodies_of_worker(app.settings.max_payload, app.planned_workers), self.journal)
        self.listener = listener
        first = time.monotonic_ns()  # above all tokens of earlier standbys
        self.tokens = count(first)
        self.exchange.know_from(first)
        self.handed: dict[Connection, tuple[int, int]] = {}  # row and token of those at workers
        self.by_token: dict[int, Connection] = {}
        self.held = [0 for _ in self.scoreboard.rows]  # how many of them each worker has
        self.generations = [self.scoreboard.cells[row, GENERATION] for row in self.scoreboard.rows]
        # How many connections were handed to a row since its worker had last taken all of them.
        self.untaken: dict[int, int] = {}
        self.blocked: dict[int, float] = {}  # when a row's worker last took none in time
        # Connections that a worker gave back, or had when it died: they may wait even if none is ready.
        self.orphans: set[Connection] = set()
        self.waiting: dict[Connection, int] = {}  # whose calls wait for a worker, and since when

    def run(self) -> None:
        signal.signal(signal.SIGTERM, self.stop)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for each in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
            signal.signal(each, signal.SIG_IGN)
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # for the connections of all workers
        self.app.drop_privileges()
        self.loop.watch(self.exchange.at_standby.fileno(), self.on_message)
        self.loop.watch(self.listener.fileno(), self.accept)
        looked = 0.0
        while self.alive:
            self.loop.turn(_RETRY if self.waiting or self.untaken else TICK)
            self.look_at_untaken()
            for connection in list(self.waiting):
                self.offer_again(connection)
            if self.loop.now - looked >= TICK:
                looked = self.loop.now
                self.look_at_workers()
                self.loop.close_silent({*self.handed, *self.waiting})
                self.alive = self.alive and os.getppid() == self.parent
        self.hand_over_rest()
        self.journal.flush()

    def stop(self, *_: Any) -> None:
        self.alive = False

    def hand_over_rest(self) -> None:
        """Hand over all connections before the server stops, so that they are still served."""
        self.exchange.know_from()  # workers keep what they have
        self.accept(_BACKLOG)
        self.listener.close()  # at once: a connection made after the last accept would be lost
        self.on_message()  # connections given back earlier
        for connection in list(self.loop.connections.values()):
            if connection not in self.handed and connection.is_fresh:
                since = self.waiting.get(connection, 0)
                self.place(connection, since)  # even if its first bytes have not arrived

    # New connections, and those that wait for a worker

    def accept(self, most: int = _AT_ONCE) -> None:
        """Accept at most so many connections."""
        for _ in range(most):
            try:
                sock, _ = self.listener.accept()
            except BlockingIOError:
                return
            except OSError:  # too many open files: some will be closed soon
                time.sleep(_RETRY)
                return
            connection = self.loop.adopt(sock)
            # Most clients have sent their request by now, which saves a turn of the loop.
            if connection and _first_bytes(connection) and self.may_read(connection):
                self.loop.read(connection)

    def may_read(self, connection: Connection) -> bool:
        """Whether to read here: /ping, and what no worker can take. Hands over the rest."""
        if connection in self.handed or connection in self.waiting:
            self.loop.close(connection, shut=False)  # one side has hung up
            return False
        if not connection.is_fresh:
            return True
        head = _first_bytes(connection)
        return not head or (head == _PING and self.answers_ping()) or not self.place(connection)

    def answers_ping(self) -> bool:
        """Whether user code has no say in /ping, or no worker can be asked."""
        return not self.scoreboard.any_asked() or self.choose() is None

    def place(self, connection: Connection, since: int = 0) -> bool:
        """Hand a call to a worker, or have it wait for one; false if it is to be answered here."""
        row = self.choose()
        if row is not None and self.hand_over(connection, row, since):
            return True
        if not (since or connection in self.orphans or self.scoreboard.any_ready()):
            return False
        now = time.monotonic_ns()
        if now - (since or now) > self.app.settings.timeout * 1e9:
            return False
        if connection not in self.waiting:
            self.loop.await_end(connection)
        self.waiting[connection] = since or now
        return True

    def offer_again(self, connection: Connection) -> None:
        is_ping = self.answers_ping() and _first_bytes(connection) == _PING
        if is_ping or not self.place(connection, self.waiting[connection]):
            del self.waiting[connection]
            self.loop.read(connection)

    def choose(self) -> int | None:
        """The row of the ready worker with the fewest calls and, among several, the fewest connections.

        Leaves out workers without a heartbeat since they last failed to take a connection in time.
        """
        cells, seen = self.scoreboard.cells, self.scoreboard.seen
        calls = {
            row: cells[row, CALLS] + self.untaken.get(row, 0)
            for row in self.scoreboard.rows
            if cells[row, STATE] == READY and seen(row) > self.blocked.get(row, 0.0)
        }
        return min(calls, key=lambda row: (calls[row], self.held[row]), default=None)

    # Connections at the workers

    def hand_over(self, connection: Connection, row: int, since: int) -> bool:
        self.look_at_worker(row)
        token = next(self.tokens)
        if not self.exchange.hand_over(row, connection.sock, self.generations[row], token, since):
            return False
        self.forget(connection)
        self.handed[connection] = row, token
        self.by_token[token] = connection
        self.held[row] += 1
        self.untaken[row] = self.untaken.get(row, 0) + 1
        self.loop.await_end(connection)
        return True

    def forget(self, connection: Connection) -> None:
        """Drop the records of a connection that is closed or changes hands."""
        self.orphans.discard(connection)
        self.waiting.pop(connection, None)
        row, token = self.handed.pop(connection, (-1, 0))
        if token:
            del self.by_token[token]
            self.held[row] -= 1

    def look_at_untaken(self) -> None:
        """Take back connections that a worker does not take: its model holds the interpreter lock."""
        for row in list(self.untaken):
            waits = self.exchange.waits_untaken(row)
            if waits is None:
                self.untaken.pop(row)
            elif waits > _PATIENCE:
                self.blocked[row] = time.monotonic()
                if self.choose() is None and not self.scoreboard.any_asked():
                    del self.blocked[row]  # no other worker could take them
                    continue
                self.untaken.pop(row)
                for token, since in self.exchange.take_back(row).items():
                    if connection := self.by_token.get(token):
                        self.inherit(connection, since)

    def on_message(self) -> None:
        """A worker gives back a connection, or has died."""
        while received := self.exchange.receive():
            token, since = received
            if not token:
                self.look_at_workers()
            elif connection := self.by_token.get(token):
                self.inherit(connection, since)

    def look_at_workers(self) -> None:
        for row in self.scoreboard.rows:
            self.look_at_worker(row)

    def look_at_worker(self, row: int) -> None:
        """Inherit the connections of a row's dead worker, before any goes to the row's next worker."""
        generation = self.scoreboard.cells[row, GENERATION]
        if generation == self.generations[row]:
            return
        self.generations[row] = generation
        states = self.exchange.states(row) | self.exchange.take_back(row)
        for connection, (owner, token) in list(self.handed.items()):
            if owner == row:
                self.inherit(connection, states.get(token, UNREAD))

    def inherit(self, connection: Connection, state: int) -> None:
        """Take over a connection that a worker gave back, or had when it died."""
        self.forget(connection)
        if state == RUNNING:
            self.loop.close(connection)
        elif state == READING:
            self.loop.reject(connection, _DIED)
        elif state == UNTAKEN:
            self.loop.reject(connection, _CROWDED)
        else:
            await_bytes(connection.sock, 1)
            self.orphans.add(connection)
            if state == UNREAD:
                self.loop.listen(connection)
            elif not self.place(connection, state):
                self.loop.read(connection)

    # Answers

    def may_listen(self, connection: Connection) -> bool:
        return True

    def dispatch(self, connection: Connection, request: Request) -> None:
        """Answer a request that no worker gets. All but /ping close the connection: a retry may find one."""
        ready = self.scoreboard.any_ready()
        if request.path != "/ping":
            id = self.journal.new_id()
            error = _BUSY if ready else _LOADING
            answer, closes = failure(error, id), True
            self.journal.note(request, error.status, id)
        else:
            answer = Response(200) if ready else Response(503, b"", {"Retry-After": "1"})
            closes = connection.has_input
        self.loop.send(connection, *as_bytes(answer, request, closes))
        request.body.close()


def _first_bytes(connection: Connection) -> bytes:
    """Peek at the first unread bytes; none if nothing has arrived or the client has hung up."""
    try:
        return connection.sock.recv(len(_PING), socket.MSG_PEEK)
    except OSError:
        return b""
