"""Which connections of a worker are read now, and which wait unread for a slot.

A call that must wait for a slot is left in the kernel, where the standby finds it should this process die
(see `exchange`). All else is read as it comes.
"""

from __future__ import annotations

import socket
from collections import deque
from typing import Any

from .dispatch import Dispatcher
from .exchange import READING, UNREAD, Exchange
from .host import Host
from .http.connection import Connection
from .http.loop import TICK, Loop
from .http.payload import bodies_of_worker
from .queue import Queue
from .scoreboard import RETIRING

_ASLEEP = 2.0  # seconds between two looks at the clock by one model of many that nobody asks
_REST = 0.1  # seconds for which a client that was told to come again later is not listened to


class Intake:
    """The owner of a worker's loop. From the loop alone, but for may_listen, set_state and note_load."""

    def __init__(self, host: Host, requests: Dispatcher, exchange: Exchange | None, row: int) -> None:
        self._host = host
        self._exchange = exchange
        self._row = row
        self._scoreboard = host.scoreboard
        self._generation = host.scoreboard.generation(row)
        bodies = bodies_of_worker(host.settings.max_payload, host.app.planned_workers)
        self.loop = Loop(self, bodies, host.journal)
        self.dispatch = requests.dispatch
        self.queue = Queue(self.loop, "/" if host.wsgi else "/invocations")
        self._arrived: dict[Connection, float] = {}  # when calls came that have waited, and are read now
        self._resting: deque[Connection] = deque()
        self._listeners: list[Any] = []

    @property
    def patience(self) -> float:
        """Seconds for which the loop may wait for something to happen."""
        if self._resting:
            return _REST / 5
        return TICK if self._exchange or self.loop.connections else _ASLEEP

    # New connections

    def open(self, listeners: list[Any]) -> None:
        """Take connections: those that the standby offers, or what comes to these sockets."""
        if self._exchange:
            self.loop.watch(self._exchange.at_workers[self._row].fileno(), self._take_given)
        for listener in listeners:
            if self._exchange:
                listener.close()  # the standby accepts for all
            else:
                self._listeners.append(listener)
                self.loop.watch(listener.fileno(), self._accept)

    def stop(self) -> None:
        """Take no more connections than are on their way here; others may have these, if there are any."""
        if self._exchange:
            self._take_given()
        for listener in self._listeners:
            self.loop.ignore(listener.fileno())
            listener.sock.close()
        self._listeners.clear()

    def _take_given(self) -> None:
        """Take over connections from the standby."""
        assert self._exchange is not None
        while given := self._exchange.take(self._row, self._generation):
            sock, handed = given
            if not self._exchange.keep(self._row, sock.fileno(), handed.token):
                sock.shutdown(socket.SHUT_RDWR)  # more than anybody can have open
            elif connection := self.loop.adopt(sock):
                if handed.since:
                    self._arrived[connection] = handed.since / 1e9
                self.loop.leave(connection)
                if self._scoreboard.state(self._row) == RETIRING:
                    self._give_back(connection)
                if self.loop.holds(connection) and self.may_read(connection):  # its first bytes are here
                    self.loop.read(connection)

    def _accept(self) -> None:
        for listener in self._listeners:
            try:
                self.loop.adopt(listener.sock.accept()[0])
            except OSError:
                pass  # the client is gone

    # What the loop asks

    def may_read(self, connection: Connection) -> bool:
        """Read all but calls that wait for a slot, or for their own end, and may do so in the kernel."""
        if connection in self.queue:
            self.loop.close(connection)  # its client has hung up: the call is not run
            return False
        fresh = connection.request is None and not connection.has_input and not connection.closing
        if fresh and self._exchange:
            waits = self._host.slots.busy or self.queue  # nobody overtakes those that wait
            if waits and self._let_wait(connection):
                return False
            if connection.in_parts and self.queue.gather(connection):
                return False
        self.queue.wake(connection)
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
        self.queue.remove(connection)
        self.note_load()

    def arrival_of(self, connection: Connection) -> float:
        """When the call that is read now was first seen."""
        return self._arrived.pop(connection, self.loop.now)

    def set_state(self, connection: Connection, state: int) -> None:
        if self._exchange:
            self._exchange.set_state(self._row, connection.fd, state)

    def wake_resting(self) -> None:
        """Listen again to clients that were refused: one as soon as there is room, all in their time."""
        room = bool(self._resting) and not self._host.slots.full(len(self.queue))
        while self._resting and (room or self.loop.now - self._resting[0].seen >= _REST):
            room = False
            connection = self._resting.popleft()
            if self.loop.holds(connection):
                self.loop.listen(connection)

    # Calls that wait

    def fill_slots(self) -> None:
        """Read those whose turn has come."""
        while self.queue and not self._host.slots.busy:
            self._read_waiting(self.queue.first())
        self.note_load()

    def read_late(self, before: float) -> None:
        """Read those that have waited since before this moment, to be refused."""
        for connection in self.queue.waiting_since(before):
            self._read_waiting(connection)

    def share(self) -> None:
        """Have other workers take half of what there is more here than where the fewest calls are.

        Clients keep their connections, so what is uneven would stay so. The last of the queue go: they wait
        for fewer calls there than here.
        """
        more = self._scoreboard.calls(self._row) - self._scoreboard.fewest_calls()
        for connection in self.queue.connections()[::-1][: max(0, more // 2)]:
            self._give_back(connection)

    def give_back_all(self) -> None:
        for connection in self.queue.connections():
            self._give_back(connection)

    def note_load(self) -> None:
        """Tell all processes how many calls run and wait here."""
        slots, routes = self._host.slots, self._host.settings.multi_model
        own = sum(call.counted for call in slots.calls) if routes else slots.load
        self._scoreboard.set_calls(self._row, own + len(self.queue))

    def _let_wait(self, connection: Connection) -> bool:
        """Leave a call unread until a slot is free; false for what is no call, or one too many."""
        came = self._arrived.get(connection, self.loop.now)
        if self._host.slots.full(len(self.queue)) or not self.queue.add(connection, came):
            return False
        if connection in self.queue:
            self.set_state(connection, int(came * 1e9))
        self.fill_slots()  # one may have become free meanwhile
        return True

    def _read_waiting(self, connection: Connection) -> None:
        self._arrived[connection] = self.queue.remove(connection)
        self.set_state(connection, READING)
        self.loop.leave(connection)
        self.loop.read(connection)

    def _give_back(self, connection: Connection) -> None:
        """Have another worker take a call that waits."""
        if self._exchange and self._exchange.give_back(self._row, connection.fd):
            self.loop.close(connection, shut=False)
