"""Which connections of a worker are read now, and which wait unread for a slot.

A call that must wait for a slot is left in the kernel, where the standby finds it should this process die
(see `exchange`). All else is read as it comes.
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

_ASLEEP = 2.0  # seconds between two looks at the clock by one model of many that nobody asks
_REST = 0.1  # seconds for which a client that was told to come again later is not listened to


class Intake:
    """The owner of a worker's loop. From the loop alone, but for may_listen, set_state and note_load."""

    def __init__(self, host: Host, requests: Dispatcher, exchange: Exchange | None, row: int) -> None:
        self._host = host
        self._exchange = exchange
        self._row = row
        self._scoreboard = host.scoreboard
        self._generation = host.scoreboard.cells[row, GENERATION]
        bodies = bodies_of_worker(host.settings.max_payload, host.app.planned_workers)
        self.loop = Loop(self, bodies, host.journal)
        self.dispatch = requests.dispatch
        self._path = "/" if host.wsgi else "/invocations"  # of calls, or of what is above them
        self.waiting: dict[Connection, float] = {}  # whose calls wait unread, in their order, and since when
        self._partial: set[Connection] = set()  # of these the kernel has some, and tells when it has all
        self._arrived: dict[Connection, float] = {}  # when calls came that have waited, and are read now
        self._resting: deque[Connection] = deque()
        self._listener: Any = None

    @property
    def patience(self) -> float:
        """Seconds for which the loop may wait for something to happen."""
        if self._resting:
            return _REST / 5
        return TICK if self._exchange or self.loop.connections else _ASLEEP

    # New connections

    def open(self, listeners: list[Any]) -> None:
        """Take connections: those that the standby offers, or what comes to the one listener of a model."""
        if self._exchange:
            for listener in listeners:
                listener.close()  # the standby accepts for all
            self.loop.watch(self._exchange.at_workers[self._row].fileno(), self._take_given)
        else:
            [self._listener] = listeners
            self.loop.watch(self._listener.fileno(), self._accept)

    def stop(self) -> None:
        """Take no more connections than are on their way here; others may have these, if there are any."""
        if self._exchange:
            self._take_given()
        elif self._listener:
            self.loop.ignore(self._listener.fileno())
            self._listener.sock.close()
            self._listener = None

    def _take_given(self) -> None:
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
                if self.loop.holds(connection) and self.may_read(connection):  # its first bytes are here
                    self.loop.read(connection)

    def _accept(self) -> None:
        try:
            self.loop.adopt(self._listener.sock.accept()[0])
        except OSError:
            pass  # the client is gone

    # What the loop asks

    def may_read(self, connection: Connection) -> bool:
        """Read all but calls that wait for a slot, or for their own end, and may do so in the kernel."""
        if connection in self.waiting:
            self.loop.close(connection)  # its client has hung up: the call is not run
            return False
        if self._exchange and connection.is_fresh and self._leave_unread(connection):
            return False
        self._wake(connection)
        self.set_state(connection, READING)
        return True

    def may_listen(self, connection: Connection) -> bool:
        """Await the next request at once, unless the client was told to come again later."""
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
        """When the call that is read now was first seen."""
        return self._arrived.pop(connection, self.loop.now)

    def set_state(self, connection: Connection, state: int) -> None:
        if self._exchange:
            self._exchange.set_state(self._row, connection.fd, state)

    def wake_resting(self) -> None:
        """Listen again to clients that were refused: one as soon as there is room, all in their time."""
        room = bool(self._resting) and not self._host.slots.full(len(self.waiting))
        while self._resting and (room or self.loop.now - self._resting[0].seen >= _REST):
            room = False
            connection = self._resting.popleft()
            if self.loop.holds(connection):
                self.loop.listen(connection)

    # Calls that wait

    def fill_slots(self) -> None:
        """Read those whose turn has come."""
        while self.waiting and not self._host.slots.busy:
            self._read_waiting(next(iter(self.waiting)))
        self.note_load()

    def read_late(self, before: float) -> None:
        """Read those that have waited since before this moment, to be refused."""
        for connection in [each for each, since in self.waiting.items() if since < before]:
            self._read_waiting(connection)

    def share(self) -> None:
        """Have other workers take half of what there is more here than where the fewest calls are.

        Clients keep their connections, so what is uneven would stay so. The last of the queue go: they wait
        for fewer calls there than here.
        """
        more = self._scoreboard.cells[self._row, CALLS] - self._scoreboard.fewest_calls()
        for connection in list(reversed(self.waiting))[: max(0, more // 2)]:
            self._give_back(connection)

    def give_back_all(self) -> None:
        for connection in list(self.waiting):
            self._give_back(connection)

    def note_load(self) -> None:
        """Tell all processes how many calls run and wait here."""
        slots, routes = self._host.slots, self._host.settings.multi_model
        own = sum(call.counted for call in slots.calls) if routes else slots.load
        self._scoreboard.cells[self._row, CALLS] = own + len(self.waiting)

    def _leave_unread(self, connection: Connection) -> bool:
        """Leave a call in the kernel until all of it is there and a slot is free.

        False for what is to be read now: no call, one too many, more than the kernel should keep, or one that
        a free slot is waiting for, which is not looked at where its client has always sent its calls whole.
        """
        slots = self._host.slots
        # Nobody overtakes those that wait.
        waits = (slots.busy or self.waiting) and not slots.full(len(self.waiting))
        size = size_of_call(connection.sock, self._path) if waits or connection.in_parts else None
        if size and size.missing:
            if connection in self._partial:
                return False  # it came without the rest: the client has hung up
            self._partial.add(connection)
            await_bytes(connection.sock, size.whole)
            self.loop.listen(connection)
            return True
        connection.in_parts = connection in self._partial
        if not waits or not size:
            return False
        self._wake(connection)
        self.waiting[connection] = came = self._arrived.get(connection, self.loop.now)
        self.loop.await_end(connection)
        self.set_state(connection, int(came * 1e9))
        self.fill_slots()  # one may have become free meanwhile
        return True

    def _wake(self, connection: Connection) -> None:
        """It is readable again as soon as anything has arrived."""
        if connection in self._partial:
            self._partial.discard(connection)
            await_bytes(connection.sock, 1)

    def _read_waiting(self, connection: Connection) -> None:
        self._arrived[connection] = self.waiting.pop(connection)
        self.set_state(connection, READING)
        self.loop.leave(connection)
        self.loop.read(connection)

    def _give_back(self, connection: Connection) -> None:
        """Have another worker take a call that waits."""
        if self._exchange and self._exchange.give_back(self._row, connection.fd):
            self.loop.close(connection, shut=False)
