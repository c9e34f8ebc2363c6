"""One worker process: a loop that talks to the clients, and slots that run the model.

The loop reads requests, answers /ping, sends refusals, and hands calls to the slots. It never waits for a
client or a slot, so /ping and the 504 of an overlong call work while all slots are busy.
"""

from __future__ import annotations

import math
import os
import resource
import signal
import sys
import time
from typing import Any

from gunicorn.workers.base import Worker as BaseWorker

from ..report import log
from .call import Call
from .dispatch import HELD, Dispatcher
from .errors import InferenceError
from .exchange import NUMBERS, RUNNING
from .execution import Execution, over_time
from .host import Application
from .http.connection import Connection
from .http.loop import TICK
from .intake import Intake
from .journal import Journal
from .model.handlers import Model
from .scoreboard import ASKED, READY, RETIRING, SERVED
from .slots import Slots

NO_RETRY = os.EX_CONFIG  # exit code of a worker that would fail in the same way again
DRAIN = 25.0  # seconds for running calls after SIGTERM; the platform kills after 30
_STANDSTILL = 1.0  # seconds that a call waits while sessions hold all slots
_ROUTED = 128  # calls that a router forwards at the same time
_REPLACED = InferenceError("The worker is being replaced.", 503, {"Retry-After": "1"})


class Worker(BaseWorker):  # type: ignore[misc]
    """The gunicorn worker of an `Application`."""

    app: Application
    row = 0  # its row in the scoreboard
    model: Model | None = None
    wsgi: Any = None  # the user's application or the router, if any
    websocket: Any = None  # the module of that name, if there is a stream_fn

    # Life cycle

    def init_process(self) -> None:
        self.settings = self.app.settings
        self.scoreboard = self.app.scoreboard
        self.gpu = None
        if gpus := self.app.gpus_of(self.row):
            # Before any import of user code. CUDA numbers the visible GPUs from 0.
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
            self.gpu = 0
        allow_connections()
        self.app.drop_privileges()
        super().init_process()

    def load_wsgi(self) -> None:
        """Load the model. gunicorn calls this once in each worker."""
        self.app.load(self)

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
            self.scoreboard.cells[self.row, ASKED] = 1
        self.scoreboard.set_state(self.row, READY)
        self.looked = time.monotonic()
        signal.siginterrupt(signal.SIGTERM, True)  # else this thread's wait resumes without the handler
        self.slots.watch(self.lead)

    def prepare(self) -> None:
        # Slots share the interpreter lock with the loop: it gets its turn after 1 ms instead of 5.
        sys.setswitchinterval(0.001)
        settings = self.settings
        self.journal = Journal(self.scoreboard, self.row, settings.access_log)
        self.execution = Execution(self)
        self.requests = Dispatcher(self, self.execution)
        self.intake = Intake(self, self.requests, self.app.exchange, self.row)
        self.loop = self.intake.loop
        self.slots = Slots(
            _ROUTED if settings.multi_model else settings.threads,
            -(-settings.queue // self.app.planned_workers),
            self.run_call,
            self.too_late,
        )
        self.intake.open(self.sockets)

    def lead(self) -> None:
        """Run the loop, until a call takes so long that another thread has taken over the loop."""
        while self.alive:
            if not self.turn():
                return
        self.drain()

    def turn(self) -> bool:
        """Wait for events and handle them; false if another thread has taken over the loop."""
        self.loop.wait(self.intake.patience)
        while self.loop.handle_next():
            if not self.slots.run_own():
                return False
        self.intake.wake_resting()
        now = self.loop.now
        self.scoreboard.beat(self.row)
        if now - self.looked >= TICK:
            self.looked = now
            self.look_at_clock(now)
        return True

    def look_at_clock(self, now: float) -> None:
        if stuck := self.slots.stuck(now):
            self.retire(stuck)  # before the 504s, so a client that retries reaches another worker
        for call in self.slots.late(now):
            self.requests.refuse(call.connection, call.request, over_time(self.settings.timeout))
        self.intake.read_late(now - (_STANDSTILL if self.slots.held else self.settings.timeout))
        if self.slots.held:
            for call in self.slots.give_up(now - _STANDSTILL):
                self.requests.refuse(call.connection, call.request, HELD)
        if self.alive:  # else the others may be stopping, too
            self.intake.share()
        self.loop.close_silent(self.busy_connections())
        if self.ppid != os.getppid():
            self.alive = False

    def retire(self, stuck: list[Call]) -> None:
        """Have this worker replaced, because the threads of stuck calls cannot be stopped."""
        self.scoreboard.set_state(self.row, RETIRING)
        self.alive = False
        self.intake.stop()
        for call in stuck:
            log(f"request {call.id} exceeds its time: worker {self.pid} finishes other calls and is replaced")
            self.execution.give_up(call)
            if call.claim():  # its client has waited at least as long
                self.requests.refuse(call.connection, call.request, over_time(self.settings.timeout))
        self.intake.give_back_all()
        if self.slots.count <= 0:
            self.intake.read_late(math.inf)  # those of which no standby has a duplicate
            for stranded in self.slots.give_up():
                self.requests.refuse(stranded.connection, stranded.request, _REPLACED)

    def replace(self) -> None:
        if self.alive:
            log(f"CUDA has failed for good in worker {self.pid}: it finishes its calls and is replaced")
            self.retire([])

    def drain(self) -> None:
        """Finish the calls, then exit."""
        limit = time.monotonic() + DRAIN
        self.slots.run_no_own()
        self.intake.stop()
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
        """Connections whose calls run or wait."""
        return {call.connection for call in self.slots.calls} | self.intake.waiting.keys()

    # Slots

    def run_call(self, call: Call) -> None:
        """Run a call on its slot, then admit the next."""
        self.intake.set_state(call.connection, RUNNING)
        self.execution.run(call)
        self.slots.release(call)
        self.scoreboard.cells[self.row, SERVED] += 1
        if self.intake.waiting:
            self.loop.post(self.intake.fill_slots)
        else:
            self.intake.note_load()

    def too_late(self, call: Call) -> None:
        """Refuse a call that could not finish in time."""
        self.loop.post(lambda: self.requests.refuse(call.connection, call.request, over_time(call.timeout)))
        self.loop.post(self.intake.fill_slots)

    @property
    def closes(self) -> bool:
        """Whether connections close after their responses, so that the next call reaches another worker."""
        return not self.alive or self.slots.held


def allow_connections() -> None:
    """Raise the limit of open files to as many connections as the exchange can track.

    The usual limit, 1024, is that of select(). User code can still call it: the lowest free number is taken
    first, so its files have higher ones only if that many clients are connected.
    """
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(limit, min(most, NUMBERS)), most))
