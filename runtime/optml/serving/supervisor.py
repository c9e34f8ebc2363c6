"""The parent of the workers: how many there are, what happens when one dies, and when to give up."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from typing import Any

from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer
from gunicorn.sock import close_sockets

from ..report import log, log_error
from .application import Server
from .scoreboard import CALLS, GENERATION, LOADING, READY, RETIRING, SERVED, STATE
from .sizing import fitting
from .standby import Standby
from .worker import NO_RETRY, Worker

_START_TICK = 0.02  # seconds between checks while workers are starting
_TICK = 0.25  # seconds between checks otherwise
_STUCK = 10.0  # seconds past the timeout after which a silent worker is killed
_STANDBY_EXIT = 1.0  # seconds for the standby to exit
_FORGET_AFTER = 60.0  # seconds after which failed starts are forgotten


class Supervisor(Arbiter):  # type: ignore[misc]
    """gunicorn's arbiter with our rules.

    The first worker loads alone: a model that fails to load is reported once, and the size of one that loads
    tells how many workers fit. The standby accepts all connections, and responds while no worker is ready.
    """

    WORKER_BOOT_ERROR = -1  # never an exit code: `on_death` counts failed starts
    APP_LOAD_ERROR = NO_RETRY

    def __init__(self, app: Server) -> None:
        self.failures = 0
        self.failed_at = 0.0
        self.staged = True
        self.wanted = 1  # workers, not counting those being replaced
        self.stopping = False
        self.standby = 0
        self.retry_at = 0.0
        self.scoreboard = app.scoreboard
        super().__init__(app)

    def start(self) -> None:
        """Start the standby, then prepare; the port is open by now. `manage_workers` does the rest."""
        super().start()
        self.greet()
        # Nothing is served yet, and an installation or a load cannot be stopped gracefully.
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
        self.app.prepare()
        self.init_signals()
        self.cfg.set("pre_fork", lambda _, worker: self.assign_row(worker))
        self.cfg.set("child_exit", lambda _, worker: self.on_death(worker))

    def assign_row(self, worker: Worker) -> None:
        """Assign a row of the first position without a staying worker; the other is for a retiring one."""
        planned = self.app.planned_workers
        taken = {other.row for other in self.WORKERS.values()}
        places = {row % planned for row in taken if self.scoreboard.cells[row, STATE] != RETIRING}
        free = [row for row in self.scoreboard.rows if row not in taken]
        worker.row = min(free, key=lambda row: (row % planned in places, row))
        place = worker.row % planned
        again = any(self.scoreboard.cells[row, GENERATION] for row in (place, place + planned))
        self.scoreboard.begin(worker.row, again)

    def manage_workers(self) -> None:
        if self.stopping:
            return
        if not _runs(self.standby):
            self.greet()
        if self.staged and self.scoreboard.any_ready():
            self.staged = False
            self.failures = 0
            app = self.app
            self.wanted, reason = fitting(app.planned_workers, app.reason, app.settings, self.WORKERS)
            log(f"ready: workers {self.wanted} ({reason}), concurrent calls in each {app.settings.threads}")
        states = [self.scoreboard.cells[worker.row, STATE] for worker in self.WORKERS.values()]
        retiring = states.count(RETIRING)
        self.num_workers = self.wanted + min(retiring, self.wanted)
        if time.monotonic() >= self.retry_at:
            super().manage_workers()

    def greet(self) -> None:
        """Fork the standby."""
        self.standby = os.fork()
        if self.standby:
            return
        try:
            with open("/proc/self/comm", "w") as name:  # its name in `ps`
                name.write("standby")
            Standby(self.app, self.LISTENERS[0].sock).run()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)

    def dismiss_standby(self) -> None:
        """Stop the standby, which hands over its connections, before the workers are stopped."""
        close_sockets(self.LISTENERS)
        self.LISTENERS.clear()  # the standby still has them, and closes them after its last accept
        if self.standby:
            self.kill_worker(self.standby, signal.SIGTERM)
            limit = time.monotonic() + _STANDBY_EXIT
            while _runs(self.standby) and time.monotonic() < limit:
                time.sleep(0.005)  # reaped later, like any other child
            self.standby = 0

    def wait_for_signals(self, timeout: float = _TICK) -> Any:
        states = [self.scoreboard.cells[row, STATE] for row in self.scoreboard.rows]
        starting = LOADING in states or RETIRING in states or self.retry_at > time.monotonic()
        return super().wait_for_signals(_START_TICK if starting or self.staged else _TICK)

    def on_death(self, worker: Worker) -> None:
        """Decide whether a worker's death is a failed start, and whether to go on."""
        row, scoreboard = worker.row, self.scoreboard
        state, served, calls = (scoreboard.cells[row, column] for column in (STATE, SERVED, CALLS))
        well = state == READY and (served or not calls)  # its first call did not kill it
        scoreboard.end(row)
        self.app.exchange.report_death()
        if self.stopping or state == RETIRING:
            return
        now = time.monotonic()
        if well or now - self.failed_at > _FORGET_AFTER:
            self.failures = 0
        if well:
            return
        self.failures += 1
        self.failed_at = now
        if self.failures > self.app.settings.start_retries and not self.scoreboard.any_ready():
            log_error(
                f"a worker died {self.failures} times before it answered a call: giving up "
                "(PROCESS_MAX_START_RETRIES sets how often to try again)"
            )
            raise HaltServer("workers keep dying", 1)
        self.retry_at = now + min(0.5 * 2**self.failures, 60.0)

    def murder_workers(self) -> None:
        """Kill workers whose loop is silent for too long, because the model holds the interpreter lock."""
        for pid, worker in list(self.WORKERS.items()):
            stuck = time.monotonic() - self.scoreboard.seen(worker.row) > self.app.settings.timeout + _STUCK
            if stuck and self.scoreboard.cells[worker.row, STATE] in (READY, RETIRING):
                log_error(f"worker {pid} hangs in its model: killed and replaced")
                self.log.killed.add(pid)
                self.kill_worker(pid, signal.SIGKILL)

    def handle_hup(self) -> None:
        """Reload nothing: other settings need another container."""
        log("SIGHUP changes nothing: start a new container for other settings or another model")

    def ignore_signal(self) -> None:
        """Ignore gunicorn's signals that change the number of workers, regardless of how many fit."""

    handle_ttin = handle_ttou = handle_usr2 = handle_winch = ignore_signal

    def halt(self, reason: str | None = None, exit_status: int = 0) -> None:
        self.stop()
        sys.exit(exit_status)

    def stop(self, graceful: bool = True) -> None:
        self.stopping = True
        self.dismiss_standby()
        super().stop(graceful)

    def reap_workers(self) -> None:
        super().reap_workers()
        if self.stopping:
            for pid, worker in list(self.WORKERS.items()):
                if self.scoreboard.cells[worker.row, STATE] == LOADING:
                    self.kill_worker(pid, signal.SIGTERM)  # it may have been forked too late to get the first


def _runs(child: int) -> bool:
    """Whether a child is still running; /proc does not tell if it belongs to another user."""
    try:
        return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except ChildProcessError:
        return False
