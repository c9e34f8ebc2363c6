"""One worker process: a loop that talks to the clients, and slots that run the model.

The loop reads requests, answers /ping and refusals itself, and hands calls to the slots. It never waits for a
client or a slot, so /ping and the 504 of a call that takes too long work while all are busy. A call that must
wait for a slot is left unread, so that it is not lost with this process (see `exchange`).
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
import traceback
from collections import deque
from typing import TYPE_CHECKING, Any

from gunicorn.workers.base import Worker as BaseWorker

from ..report import UserError, log, log_error
from .call import Call
from .dispatch import HELD, Dispatcher
from .errors import InferenceError
from .exchange import READING, RUNNING, UNREAD
from .execution import Execution, over_time
from .http.loop import TICK, Loop
from .http.payload import bodies_of_worker
from .journal import Journal
from .queue import Queue
from .scoreboard import READY, RETIRING
from .slots import Slots

if TYPE_CHECKING:
    from .http.connection import Connection
    from .model.handlers import Model

NO_RETRY = os.EX_CONFIG  # exit code of a worker that would fail in the same way again
DRAIN = 25.0  # seconds for running calls after SIGTERM; the platform kills after 30
_REST = 0.1  # seconds for which a client that was told to come again later is not listened to
_STANDSTILL = 1.0  # seconds for which a call waits where sessions hold all slots
_ROUTED = 128  # calls that a router has on their way to models
_REPLACED = InferenceError("The worker is being replaced.", 503, {"Retry-After": "1"})


class Worker(BaseWorker):  # type: ignore[misc]
    """The gunicorn worker of an `Application`."""

    row = 0  # its row in the scoreboard
    offered = False  # connections, by the standby
    model: Model | None = None
    wsgi: Any = None  # the user's own application, where there is one
    websocket: Any = None  # the module of that name, where the user has a stream_fn

    # Its life

    def init_process(self) -> None:
        self.settings = self.app.settings
        self.scoreboard = self.app.scoreboard
        self.gpu = None
        if gpus := self.app.gpus_of(self.row):
            # Before any import of the user's. CUDA counts those that it is shown from 0.
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
            self.gpu = 0
        self.several = self.app.planned_workers > 1
        self.app.drop_privileges()
        super().init_process()

    def load_wsgi(self) -> None:
        """Load the model: gunicorn's moment for what is done once in every worker."""
        try:
            self.app.load(self)
        except UserError as problem:
            log_error(str(problem))
            os._exit(NO_RETRY)
        except BaseException as error:  # the SystemExit of a user's module is a failure as well
            if self.app.first_traceback():
                traceback.print_exc()
            log_error(f"the model does not load: {type(error).__name__} in worker {self.pid}")
            sys.stdout.flush()
            os._exit(NO_RETRY if isinstance(error, (ModuleNotFoundError, SyntaxError)) else 1)

    def handle_exit(self, sig: int, frame: Any) -> None:
        if not hasattr(self, "loop"):
            os._exit(0)  # the model is loading: there is nothing to finish
        self.alive = False
        self.loop.post(lambda: None)  # wake up the loop

    def handle_quit(self, sig: int, frame: Any) -> None:
        os._exit(0)

    def run(self) -> None:
        self.prepare()
        if self.settings.app or (self.model and self.model.has_ping):
            self.scoreboard.set_asked(self.row)
        self.scoreboard.set_state(self.row, READY)
        self.looked = time.monotonic()
        signal.siginterrupt(signal.SIGTERM, True)  # this thread only waits, and must not go on with that
        self.slots.watch(self.lead)

    def prepare(self) -> None:
        # Slots share the interpreter with the loop: let the loop in after 1 ms instead of 5.
        sys.setswitchinterval(0.001)
        settings = self.settings
        self.journal = Journal(self.scoreboard, self.row, settings.access_log)
        self.loop = Loop(self, bodies_of_worker(settings.max_payload, self.app.planned_workers))
        self.execution = Execution(self)
        self.requests = Dispatcher(self, self.execution)
        self.dispatch, self.reject = self.requests.dispatch, self.requests.reject
        self.queue = Queue(self.loop, "/" if self.wsgi else "/invocations")
        self.arrived: dict[Connection, float] = {}  # when calls came that have waited, and are read now
        self.resting: deque[Connection] = deque()
        count = _ROUTED if settings.multi_model else settings.threads
        self.slots = Slots(
            count, -(-settings.queue // self.app.planned_workers), self.run_call, self.too_late
        )
        self.exchange = self.app.exchange
        self.generation = self.scoreboard.generation(self.row)
        if self.exchange:
            self.loop.watch(self.exchange.at_workers[self.row].fileno(), self.on_offer)
        for listener in self.sockets:
            if self.exchange:
                listener.close()  # the standby accepts for all
            else:
                self.loop.watch(listener.fileno(), self.accept)

    def lead(self) -> None:
        """Be the thread of the loop, until a call keeps it for so long that another thread is."""
        while self.alive:
            if not self.turn():
                return
        self.drain()

    def turn(self) -> bool:
        """Handle what has happened, or wait for it until it is time to look at the clock again."""
        self.loop.wait(_REST / 5 if self.resting else TICK)
        while self.loop.handle_next():
            if not self.slots.run_own():
                return False
        if self.offered:
            self.offered = False
            self.take_given()
            if not self.slots.run_own():
                return False
        now = self.loop.now
        self.scoreboard.beat(self.row)
        if self.resting:
            self.wake_resting()
        if now - self.looked >= TICK:
            self.looked = now
            self.look_at_clock(now)
        return True

    def look_at_clock(self, now: float) -> None:
        if stuck := self.slots.stuck(now):
            self.retire(stuck)  # before the 504s, so a client that retries reaches another worker
        for call in self.slots.late(now):
            self.requests.refuse(call.connection, call.request, over_time(self.settings.timeout))
        for connection in self.queue.waiting_since(
            now - (_STANDSTILL if self.slots.held else self.settings.timeout)
        ):
            self.read_waiting(connection)  # to be refused
        if self.slots.held:
            for call in self.slots.give_up(now - _STANDSTILL):
                self.requests.refuse(call.connection, call.request, HELD)
        idle = self.scoreboard.count_below(self.slots.count)
        for connection in self.queue.waiting_since(now - TICK)[:idle]:
            self.give_back(connection)  # another worker has a free slot
        self.loop.close_silent(self.busy_connections())
        if self.ppid != os.getppid():
            self.alive = False

    def retire(self, stuck: list[Call]) -> None:
        """Have this worker replaced: slots are stuck in the model, and a thread cannot be stopped."""
        self.scoreboard.set_state(self.row, RETIRING)
        self.alive = False
        self.stop_listening()
        for call in stuck:
            log(f"request {call.id} is over its time: worker {self.pid} finishes what it can and is replaced")
            self.execution.give_up(call)
            if call.claim():  # its client has waited no less
                self.requests.refuse(call.connection, call.request, over_time(self.settings.timeout))
        for connection in self.queue.connections():
            self.give_back(connection)
        if self.slots.count <= 0:
            for stranded in self.slots.give_up():
                self.requests.refuse(stranded.connection, stranded.request, _REPLACED)

    def replace(self) -> None:
        if self.alive:
            log(f"CUDA has failed for good in worker {self.pid}: it finishes what runs and is replaced")
            self.retire([])

    def drain(self) -> None:
        """Finish what runs, and leave."""
        limit = time.monotonic() + DRAIN
        self.slots.run_no_own()
        self.stop_listening()
        while time.monotonic() < limit:
            busy = self.busy_connections()
            self.loop.close_idle(busy)
            if not busy and not self.loop.connections:
                break
            self.turn()
        self.journal.flush()
        sys.stdout.flush()
        os._exit(0)  # not sys.exit: a slot that is stuck in the model must not keep the process

    def busy_connections(self) -> set[Connection]:
        """Those whose clients wait for us."""
        return {call.connection for call in self.slots.calls} | {*self.queue.connections()}

    # Connections

    def on_offer(self) -> None:
        """The standby has some for us: taken after this turn, in which others may have had their numbers."""
        self.offered = True

    def take_given(self) -> None:
        """Take over connections from the standby."""
        assert self.exchange is not None
        while given := self.exchange.take(self.row, self.generation):
            sock, handed = given
            if not self.exchange.keep(self.row, sock.fileno(), handed.token):
                sock.shutdown(socket.SHUT_RDWR)  # more than anybody can have open
            elif connection := self.loop.adopt(sock):
                if handed.since:
                    self.arrived[connection] = handed.since / 1e9
                self.loop.leave(connection)
                if self.scoreboard.state(self.row) == RETIRING:
                    self.give_back(connection)
                if self.loop.holds(connection) and self.may_read(connection):  # its first bytes are here
                    self.loop.read(connection)

    def accept(self) -> None:
        for listener in self.sockets:
            try:
                self.loop.adopt(listener.sock.accept()[0])
            except OSError:
                pass  # the client is gone

    def stop_listening(self) -> None:
        """Take no more connections than are on their way here; others may have these, if there are any."""
        if self.exchange:
            self.take_given()
        else:
            for listener in self.sockets:
                self.loop.ignore(listener.fileno())
                listener.sock.close()

    # What the loop asks

    def may_read(self, connection: Connection) -> bool:
        """Read all but calls that would have to wait, and may do so in the kernel."""
        if connection in self.queue:
            self.loop.close(connection)  # its client has hung up: the call is not run
            return False
        fresh = connection.request is None and not connection.has_input and not connection.closing
        waits = self.exchange and (self.slots.busy or self.queue)  # nobody overtakes those that wait
        if fresh and waits and self.let_wait(connection):
            return False
        self.queue.wake(connection)
        self.set_state(connection, READING)
        return True

    def let_wait(self, connection: Connection) -> bool:
        """Leave a call unread until a slot is free; false for what is no call, or one too many."""
        came = self.arrived.get(connection, self.loop.now)
        if self.slots.full(len(self.queue)) or not self.queue.add(connection, came):
            return False
        if connection in self.queue:
            self.set_state(connection, int(came * 1e9))
        self.fill_slots()  # one may have become free meanwhile
        return True

    def may_listen(self, connection: Connection) -> bool:
        """Await the next request at once, unless the client was told to come again later."""
        self.arrived.pop(connection, None)
        self.set_state(connection, UNREAD)
        if connection.rest:
            connection.rest = False
            self.resting.append(connection)
            return False
        return True

    def wake_resting(self) -> None:
        """Listen again to clients that were refused: one as soon as there is room, all in their time."""
        room = not self.slots.full(len(self.queue))
        while self.resting and (room or self.loop.now - self.resting[0].seen >= _REST):
            room = False
            connection = self.resting.popleft()
            if self.loop.holds(connection):
                self.loop.listen(connection)

    def forget(self, connection: Connection) -> None:
        self.arrived.pop(connection, None)
        self.queue.remove(connection)
        self.note_load()

    def arrival_of(self, connection: Connection) -> float:
        """When the call that is read now was first seen."""
        return self.arrived.pop(connection, self.loop.now)

    def set_state(self, connection: Connection, state: int) -> None:
        if self.exchange:
            self.exchange.set_state(self.row, connection.fd, state)

    def give_back(self, connection: Connection) -> None:
        """Have another worker take a call that waits."""
        if self.exchange and self.exchange.give_back(self.row, connection.fd):
            self.loop.close(connection, shut=False)

    def read_waiting(self, connection: Connection) -> None:
        """The turn of a call that was left unread."""
        self.arrived[connection] = self.queue.remove(connection)
        self.set_state(connection, READING)
        self.loop.leave(connection)
        self.loop.read(connection)

    # Slots

    def run_call(self, call: Call) -> None:
        """Run a call on its slot, and let the next one in."""
        self.set_state(call.connection, RUNNING)
        self.execution.run(call)
        self.slots.release(call)
        self.scoreboard.count_served(self.row)
        if self.queue:
            self.loop.post(self.fill_slots)
        else:
            self.note_load()

    def fill_slots(self) -> None:
        while self.queue and not self.slots.busy:
            self.read_waiting(self.queue.first())
        self.note_load()

    def too_late(self, call: Call) -> None:
        """Answer a call that could not end in time, in place of its slot."""
        self.loop.post(lambda: self.requests.refuse(call.connection, call.request, over_time(call.timeout)))
        self.loop.post(self.fill_slots)

    def note_load(self) -> None:
        own = sum(call.counted for call in self.slots.calls) if self.settings.multi_model else self.slots.load
        self.scoreboard.set_calls(self.row, own + len(self.queue))

    @property
    def closes(self) -> bool:
        """Whether connections end with their answers: who calls again shall find a worker to take it."""
        return not self.alive or self.slots.held
