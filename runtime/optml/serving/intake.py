"""Which connections of a worker are read now, and which wait unread for a slot.

A call that must wait for a slot is left in the kernel, where the standby finds it if this process dies (see
`exchange`). Everything else is read as it arrives.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from .dispatch import Dispatcher
from .exchange import READING, UNREAD, Exchange
from .host import Host
from .http.arrival import await_bytes, size_of_call
from .http.connection import Connection
from .http.loop import TICK, Loop
from .http.payload import bodies_of_worker
from .scoreboard import CALLS, GENERATION, RETIRING, STATE

_ASLEEP = 2.0  # seconds between checks of the clock in the idle process of one of many models
_REST = 0.3  # seconds for which a client is not read after a refusal by a full queue


class Intake:
    """The owner of a worker's loop. For the loop's thread, except may_listen, set_state and note_load."""

    def __init__(self, host: Host, requests: Dispatcher, exchange: Exchange | None, row: int) -> None:
        self._host = host
        self._exchange = exchange
        self._row = row
        self._scoreboard = host.scoreboard
        self._generation = host.scoreboard.cells[row, GENERATION]
        bodies = bodies_of_worker(host.settings.max_payload, host.app.planned_workers)
        self.loop = Loop(self, bodies, host.journal)
        self.dispatch = requests.dispatch
        self._path = "/" if host.wsgi else "/invocations"  # prefix of the paths of calls
        self.waiting: dict[Connection, float] = {}  # whose calls wait unread, in order, and since when
        self._partial: set[Connection] = set()  # whose calls the kernel has in part; it reports the rest
        self._arrived: dict[Connection, float] = {}  # when calls arrived that have waited
        self._resting: deque[Connection] = deque()
        self._listener: Any = None

    @property
    def patience(self) -> float:
        """Seconds for which the loop may wait for events."""
        if self._resting:
            return _REST / 10
        return TICK if self._exchange or self.loop.connections else _ASLEEP

    # New connections

    def open(self, listeners: list[Any]) -> None:
        """Start taking connections: from the standby or, without one, from the model's own listener."""
        if self._exchange:
            for listener in listeners:
                listener.close()  # the standby accepts for all workers
            self.loop.watch(self._exchange.at_workers[self._row].fileno(), self._take_handed_over)
        else:
            [self._listener] = listeners
            self.loop.watch(self._listener.fileno(), self._accept)

    def stop(self) -> None:
        """Take only the connections already on their way; a retiring worker gives them back."""
        if self._exchange:
            self._take_handed_over()
        elif self._listener:
            self.loop.ignore(self._listener.fileno())
            self._listener.sock.close()
            self._listener = None

    def _take_handed_over(self) -> None:
        """Take over connections from the standby."""
        assert self._exchange is not None
        while taken := self._exchange.take(self._row, self._generation):
            sock, since = taken
            if connection := self.loop.adopt(sock):
                if since:
                    self._arrived[connection] = since / 1e9
                self.loop.leave(connection)
                if self._scoreboard.cells[self._row, STATE] == RETIRING:
                    self._give_back(connection)
                if self.loop.holds(connection) and self.may_read(connection):  # its first bytes have arrived
                    self.loop.read(connection)

    def _accept(self) -> None:
        try:
            self.loop.adopt(self._listener.sock.accept()[0])
        except OSError:
            pass  # the client is gone

    # Called by the loop

    def may_read(self, connection: Connection) -> bool:
        """Whether to read now: all but calls that can wait in the kernel for a slot or for their rest."""
        if connection in self.waiting:
            self.loop.close(connection)  # its client has hung up: the call is not run
            return False
        if self._exchange and connection.is_fresh and self._leave_unread(connection):
            return False
        self._wake(connection)
        self.set_state(connection, READING)
        return True

    def may_listen(self, connection: Connection) -> bool:
        """Whether to await the next request now: not just after a refusal by a full queue."""
        self._arrived.pop(connection, None)
        self.set_state(connection, UNREAD)
        if connection.rest:
            connection.rest = False
            self._resting.append(connection)
            return False
        return True

    def forget(self, connection: Connection) -> None:
        self._arrived.pop(connection, None)
        self.waiting.pop(connection, None)
        self._partial.discard(connection)
        self.note_load()

    def arrival_of(self, connection: Connection) -> float:
        """When the call that is being read was first seen."""
        return self._arrived.pop(connection, self.loop.now)

    def set_state(self, connection: Connection, state: int) -> None:
        if self._exchange:
            self._exchange.set_state(self._row, connection.fd, state)

    def wake_resting(self) -> None:
        """Listen to refused clients again: one as soon as there is room, the others after their pause."""
        room = bool(self._resting) and not self._host.slots.full(len(self.waiting))
        while self._resting and (room or self.loop.now - self._resting[0].seen >= _REST):
            room = False
            connection = self._resting.popleft()
            if self.loop.holds(connection):
                self.loop.listen(connection)

    # Calls that wait

    def fill_slots(self) -> None:
        """Read waiting calls while slots are free."""
        while self.waiting and not self._host.slots.busy:
            self._read_waiting(next(iter(self.waiting)))
        self.note_load()

    def read_late(self, before: float) -> None:
        """Read calls that have waited since before this moment, so that they are refused."""
        for connection in [each for each, since in self.waiting.items() if since < before]:
            self._read_waiting(connection)

    def share(self) -> None:
        """Give half of the surplus over the least busy worker to other workers.

        Clients keep their connections, so an uneven load would stay uneven. Calls are taken from the end of
        the queue: fewer are ahead of them elsewhere.
        """
        more = self._scoreboard.cells[self._row, CALLS] - self._scoreboard.fewest_calls()
        for connection in list(reversed(self.waiting))[: max(0, more // 2)]:
            self._give_back(connection)

    def give_back_all(self) -> None:
        for connection in list(self.waiting):
            self._give_back(connection)

    def note_load(self) -> None:
        """Write to the scoreboard how many calls run and wait here."""
        slots, routes = self._host.slots, self._host.settings.multi_model
        own = sum(call.counted for call in slots.calls) if routes else slots.load
        self._scoreboard.cells[self._row, CALLS] = own + len(self.waiting)

    def _leave_unread(self, connection: Connection) -> bool:
        """Leave a call in the kernel until all of it has arrived and a slot is free.

        False if it is to be read now: it is no call, too large to wait in the kernel, the queue is full, or a
        slot is free. In the last case it is not even peeked at if its client has always sent whole calls.
        """
        slots = self._host.slots
        # No call overtakes those that wait.
        waits = (slots.busy or self.waiting) and not slots.full(len(self.waiting))
        size = size_of_call(connection.sock, self._path) if waits or connection.in_parts else None
        if size and size.missing:
            if connection in self._partial:
                return False  # readable without the rest: the client has hung up
            self._partial.add(connection)
            await_bytes(connection.sock, size.whole)
            self.loop.listen(connection)
            return True
        connection.in_parts = connection in self._partial
        if not waits or not size:
            return False
        self._wake(connection)
        self.waiting[connection] = arrived = self._arrived.get(connection, self.loop.now)
        self.loop.await_end(connection)
        self.set_state(connection, int(arrived * 1e9))
        self.fill_slots()  # a slot may have become free meanwhile
        return True

    def _wake(self, connection: Connection) -> None:
        """Make the connection readable again as soon as anything has arrived."""
        if connection in self._partial:
            self._partial.discard(connection)
            await_bytes(connection.sock, 1)

    def _read_waiting(self, connection: Connection) -> None:
        self._arrived[connection] = self.waiting.pop(connection)
        self.set_state(connection, READING)
        self.loop.leave(connection)
        self.loop.read(connection)

    def _give_back(self, connection: Connection) -> None:
        """Give a waiting call back to the standby, for another worker."""
        if self._exchange and self._exchange.give_back(self._row, connection.fd):
            self.loop.close(connection, shut=False)
