"""The parent of the workers: how many there are, what happens when one dies, and when to give up."""

from __future__ import annotations

import gc
import importlib
import mmap
import os
import signal
import socket
import sys
import time
import traceback

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer

from .. import machine, paths
from ..report import UserError, log, log_error
from .model.handlers import Model, load_program
from .model.requirements import find_requirements, install
from .scoreboard import LOADING, READY, RETIRING, Scoreboard
from .settings import Settings
from .worker import DRAIN, NO_RETRY, Worker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_WATCH = 0.02  # seconds between two looks at workers that are starting
_STUCK = 10.0  # seconds beyond the deadline after which a silent worker is killed


class Server(BaseApplication):  # type: ignore[misc]
    """The gunicorn application: our settings in its words, and what the workers share."""

    def __init__(self, settings: Settings, program: str | None, listener: socket.socket) -> None:
        self.settings = settings
        self.program = program
        self.listener = listener
        self.planned_workers, self.reason = plan_workers(settings)
        self.scoreboard = Scoreboard(self.planned_workers)
        # Connections that the standby took for the workers: it sends, and whoever looks up first receives.
        self.handing, self.handed = socket.socketpair()
        self.handing.setblocking(False)
        self.handed.setblocking(False)
        self.model: Model | None = None
        self.drop_to: tuple[int, str] | None = None
        self._tracebacks = mmap.mmap(-1, 8)
        super().__init__()

    def load_config(self) -> None:
        temporary = "/dev/shm" if os.access("/dev/shm", os.W_OK) else "/tmp"
        for name, value in {
            "bind": f"fd://{self.listener.detach()}",
            "workers": 1,  # the first one loads alone, see Supervisor
            "worker_class": Worker,
            "timeout": 0,  # we look at heartbeats ourselves
            "graceful_timeout": int(DRAIN) + 1,
            "worker_tmp_dir": temporary,
            "control_socket_disable": True,
            "logger_class": Log,
            "preload_app": False,
        }.items():
            self.cfg.set(name, value)

    def serve(self) -> int:
        self.drop_to = decide_user(self)
        if "OMP_NUM_THREADS" not in os.environ:
            # One team of threads per worker, not one per worker and CPU.
            os.environ["OMP_NUM_THREADS"] = str(max(1, machine.cpu_count() // self.planned_workers))
        try:
            Supervisor(self).run()
        except SystemExit as stop:
            return stop.code if isinstance(stop.code, int) else 1
        return 0

    def drop_privileges(self) -> None:
        """Become the user that workers run as."""
        if self.drop_to is not None:
            become(*self.drop_to)
            self.cfg.set("user", self.drop_to[0])
            self.drop_to = None

    def prepare(self) -> None:
        """What is done once for all workers: install the requirements, and load the model if it is shared."""
        if path := find_requirements(self.program):
            install(path)
        if self.settings.preload and self.program:
            self.drop_privileges()  # the model is user code
            self.configure_logging()
            try:
                self.model = Model(load_program(self.program), self.settings, None)
            except UserError:
                raise
            except BaseException as error:  # the SystemExit of a user's module is a failure as well
                traceback.print_exc()
                raise UserError(f"the model does not load: {type(error).__name__}, see above") from None
            # What exists now is not looked at by the collector again, so that its pages stay shared.
            gc.collect()
            gc.freeze()

    def has_preparations(self) -> bool:
        if self.settings.multi_model:
            return False  # each model has its own
        return self.settings.preload or find_requirements(self.program) is not None

    def load(self, worker: Worker) -> None:
        """Give the worker its model, or the user's whole application."""
        if self.settings.multi_model:
            worker.wsgi = load_router(worker)
            return
        if self.settings.app:
            worker.wsgi = load_app(self.settings)
            return
        assert self.program is not None
        self.configure_logging()
        worker.model = self.model or Model(load_program(self.program), self.settings, self.gpu_of(worker.row))
        if worker.model.has_stream:
            from . import websocket  # takes 50 ms, and few models talk

            worker.websocket = websocket

    def configure_logging(self) -> None:
        """Let the user's handlers log: lines of their loggers go to stderr."""
        import logging  # gunicorn has imported it

        logging.basicConfig(level=self.settings.log_level)

    def first_traceback(self) -> bool:
        """Whether nobody has printed the traceback of a failed start yet."""
        self._tracebacks[0] += 1
        return self._tracebacks[0] == 1

    def gpu_of(self, row: int) -> int | None:
        return row % self.settings.gpus if self.settings.gpus else None

    def execution_parameters(self) -> dict[str, Any]:
        """What a batch job may send.

        A strategy that was set goes back as it came; settings.py says which is recommended otherwise.
        """
        settings = self.settings
        return {
            "MaxConcurrentTransforms": settings.max_concurrent_transforms
            or self.planned_workers * settings.threads,
            "BatchStrategy": settings.batch_strategy,
            "MaxPayloadInMB": min(settings.max_payload >> 20, 100),
        }


class Supervisor(Arbiter):  # type: ignore[misc]
    """gunicorn's arbiter with our rules.

    The first worker loads alone: a model that does not load says so once, and the size of one that does
    tells how many fit. While none is ready, or all hold the interpreter, the standby answers.
    """

    WORKER_BOOT_ERROR = -1  # no exit code: failed starts are counted in `on_death`
    APP_LOAD_ERROR = NO_RETRY

    def __init__(self, app: Server) -> None:
        self.failures = 0
        self.staged = True
        self.stopping = False
        self.standby = 0
        self.retry_at = 0.0
        super().__init__(app)

    def start(self) -> None:
        """The port is open: greet whoever comes, prepare, and leave the rest to `manage_workers`."""
        super().start()
        if self.app.has_preparations():
            self.greet()
            # Nothing is served yet, and what is being installed or loaded cannot be asked to stop.
            signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
            self.app.prepare()
            self.init_signals()
        self.cfg.set("pre_fork", lambda _, worker: self.assign_row(worker))
        self.cfg.set("child_exit", lambda _, worker: self.on_death(worker))

    @property
    def scoreboard(self) -> Scoreboard:
        scoreboard: Scoreboard = self.app.scoreboard
        return scoreboard

    def assign_row(self, worker: Worker) -> None:
        taken = {other.row for other in self.WORKERS.values()}
        worker.row = next(row for row in self.scoreboard.rows if row not in taken)
        self.scoreboard.begin(worker.row)

    def manage_workers(self) -> None:
        if self.stopping:
            return
        ready = self.scoreboard.any_ready()
        if not self.standby or not os.path.exists(f"/proc/{self.standby}"):
            self.greet()
        if self.staged and ready:
            self.staged = False
            self.failures = 0
            self.num_workers = self.fitting()
        if time.monotonic() >= self.retry_at:
            super().manage_workers()

    def greet(self) -> None:
        """Fork the process that answers while no worker can."""
        standby = Worker(0, self.pid, self.LISTENERS, self.app, 0, self.cfg, self.log)
        self.standby = os.fork()
        if self.standby:
            standby.tmp.close()
            return
        try:
            standby.pid = os.getpid()
            with open("/proc/self/comm", "w") as name:  # told apart in `ps`
                name.write("standby")
            standby.init_process()
        finally:
            os._exit(0)

    def dismiss_standby(self) -> None:
        if self.standby:
            self.kill_worker(self.standby, signal.SIGTERM)  # reaped like any child of an init process
            self.standby = 0

    def wait_for_signals(self, timeout: float = 1.0) -> Any:
        starting = (
            any(self.scoreboard.state(row) == LOADING for row in self.scoreboard.rows)
            or self.retry_at > time.monotonic()
        )
        return super().wait_for_signals(_WATCH if starting or self.staged else timeout)

    def fitting(self) -> int:
        """How many workers to run, now that the first shows how large one is; says so in one line."""
        planned: int = self.app.planned_workers
        reason: str = self.app.reason
        size = max((resident_memory(pid) for pid in self.WORKERS), default=0)
        limit = machine.memory_limit()
        count = planned
        if self.app.settings.workers is None and limit and size:
            count = max(1, min(planned, int(limit * 0.9) // size))
        if limit and count < planned:
            reason = f"{planned} for {reason}, but only {count} of {size >> 20} MB fit into {limit >> 20} MB"
        log(f"ready: workers {count} ({reason}), calls at once in each {self.app.settings.threads}")
        return count

    def on_death(self, worker: Worker) -> None:
        """A worker is gone: decide whether that was a failed start, and whether to go on."""
        state, served = self.scoreboard.state(worker.row), self.scoreboard.served(worker.row)
        self.scoreboard.end(worker.row)
        if self.stopping or state == RETIRING:
            return
        if served and state == READY:
            self.failures = 0
            return
        self.failures += 1
        if self.failures > self.app.settings.start_retries and not self.scoreboard.any_ready():
            log_error(
                f"a worker died {self.failures} times before it answered a call: giving up "
                "(PROCESS_MAX_START_RETRIES sets how often to try again)"
            )
            raise HaltServer("workers keep dying", 1)
        self.retry_at = time.monotonic() + min(0.5 * 2**self.failures, 60.0)

    def murder_workers(self) -> None:
        """Kill workers whose loop is silent for longer than any call may take: one holds the interpreter."""
        for pid, worker in list(self.WORKERS.items()):
            stuck = self.scoreboard.silence(worker.row) > self.app.settings.timeout + _STUCK
            if stuck and self.scoreboard.state(worker.row) in (READY, RETIRING):
                log_error(f"worker {pid} hangs in its model: killed and replaced")
                self.kill_worker(pid, signal.SIGKILL)

    def halt(self, reason: str | None = None, exit_status: int = 0) -> None:
        self.stop()
        sys.exit(exit_status)

    def stop(self, graceful: bool = True) -> None:
        self.stopping = True
        self.dismiss_standby()
        super().stop(graceful)


class Log:
    """gunicorn's logger in our words: warnings and errors. Requests are logged by the worker."""

    def __init__(self, cfg: Any) -> None:
        self.cfg = cfg

    def debug(self, message: str, *values: Any, **_: Any) -> None:
        pass

    info = debug

    def warning(self, message: str, *values: Any, exc_info: bool = False, **_: Any) -> None:
        if values[1:] == (NO_RETRY,):
            return  # the worker has said why in a line of its own
        text = message % values if values else message
        log(f"{text}\n{traceback.format_exc().rstrip()}" if exc_info else text)

    error = critical = warning

    def exception(self, message: str, *values: Any, **_: Any) -> None:
        self.warning(message, *values, exc_info=True)

    def access(self, *_: Any) -> None:
        pass

    def close_on_exec(self) -> None:
        pass

    reopen_files = close_on_exec


def plan_workers(settings: Settings) -> tuple[int, str]:
    """How many workers, and why in a few words."""
    if settings.multi_model:
        return 1, "the router of many models"
    if settings.workers is not None:
        return settings.workers, "SAGEMAKER_MODEL_SERVER_WORKERS"
    if settings.gpus:
        return settings.gpus, f"{settings.gpus} GPUs"
    cpus = machine.cpu_count()
    return cpus, f"{cpus} CPUs"


def resident_memory(pid: int) -> int:
    """Bytes of memory that a process holds."""
    try:
        with open(f"/proc/{pid}/statm") as file:
            return int(file.read().split()[1]) * mmap.PAGESIZE
    except (OSError, IndexError):
        return 0


def decide_user(app: Server) -> tuple[int, str] | None:
    """The uid and home that workers drop to, or None to stay; says in one line why it stays as root."""
    if os.geteuid() != 0 or app.settings.user == "root":
        return None
    import pwd

    try:
        entry = pwd.getpwnam("ml")
    except KeyError:
        log("there is no user ml: workers stay root")
        return None
    folders = [paths.MODEL, *(os.path.dirname(p) for p in [app.program] if p)]
    reason = _why_not(entry.pw_uid, entry.pw_dir, [] if app.settings.multi_model else folders)
    if reason:
        log(f"user ml {reason}: workers stay root")
        return None
    return entry.pw_uid, entry.pw_dir


def _why_not(uid: int, home: str, folders: list[str]) -> str:
    """Why this uid cannot serve, tried out in a child process; empty when it can."""
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        reason = ""
        try:
            become(uid, home)
            reason = next((f"cannot read {path}" for folder in folders for path in _unreadable(folder)), "")
        except OSError as error:
            reason = f"cannot be taken on ({error.strerror})"
        finally:
            os.write(sender, reason.encode()[:4000])
            os._exit(0)
    os.close(sender)
    with os.fdopen(receiver, "rb") as pipe:
        reason = pipe.read().decode()
    os.waitpid(child, 0)
    return reason


def _unreadable(folder: str) -> Any:
    """Paths below the folder, itself included, that this process may not read."""
    if not os.access(folder, os.R_OK | os.X_OK):
        yield folder
        return
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            yield from _unreadable(entry.path)
        elif not os.access(entry.path, os.R_OK) and os.path.exists(entry.path):
            yield entry.path


def become(uid: int, home: str) -> None:
    """Give up root for good: this uid, group 0, no other groups. Raises OSError without the right to."""
    os.setgroups([])
    os.setgid(0)
    os.setuid(uid)
    os.environ["HOME"] = home


def load_router(worker: Worker) -> Any:
    """The application of a multi-model server, beside the forkserver of its models."""
    import tempfile

    from .multimodel.forkserver import fork_forkserver

    home = tempfile.mkdtemp(prefix="optml-models-")
    forkserver = fork_forkserver(worker, home)
    from .multimodel.router import (
        create_router,  # flask and its memory are the router's alone, so after the fork
    )

    return create_router(worker, forkserver, home)


def load_app(settings: Settings) -> Any:
    """The user's own WSGI application, from `module:app`. Raises UserError when it is not one."""
    assert settings.app is not None
    module_name, _, attribute = settings.app.partition(":")
    for directory in reversed(settings.code_dirs):
        if os.path.isdir(directory) and directory not in sys.path:
            sys.path.insert(0, directory)
    module = importlib.import_module(module_name)
    app = getattr(module, attribute or "app", None)
    if not callable(app):
        raise UserError(f"SAGEMAKER_SERVING_MODULE={settings.app}: there is no application of that name")
    return app
