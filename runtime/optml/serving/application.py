"""The gunicorn application: what the workers share, and how they load the model."""

from __future__ import annotations

import gc
import importlib
import mmap
import os
import socket
import sys
import traceback
from typing import Any

from gunicorn.app.base import BaseApplication

from .. import gpus, machine
from ..report import UserError, log, log_error
from .exchange import Exchange
from .host import Application
from .model.handlers import Model, load_model
from .model.requirements import find_requirements, install
from .privilege import become, decide_user
from .scoreboard import Scoreboard
from .settings import Settings
from .sizing import plan_workers
from .worker import DRAIN, NO_RETRY, Worker


class Server(BaseApplication, Application):  # type: ignore[misc]
    """The gunicorn application: our settings as gunicorn's, and what the workers share."""

    def __init__(self, settings: Settings, program: str | None, listener: socket.socket) -> None:
        self.settings = settings
        self.program = program
        self.listener = listener
        self.planned_workers, self.reason = plan_workers(settings)
        # A worker keeps its row until it is gone; its replacement has another.
        rows = 2 * self.planned_workers
        self.scoreboard = Scoreboard(rows)
        self.exchange = Exchange(rows)
        self.model: Model | None = None
        self._tracebacks = mmap.mmap(-1, 8)
        super().__init__()
        self.drop_to = decide_user(settings, program)
        if "OMP_NUM_THREADS" not in os.environ:
            # One OpenMP thread per CPU in all workers together, not in each.
            os.environ["OMP_NUM_THREADS"] = str(max(1, machine.cpu_count() // self.planned_workers))

    def load_config(self) -> None:
        temporary = "/dev/shm" if os.access("/dev/shm", os.W_OK) else "/tmp"
        for name, value in {
            "bind": f"fd://{self.listener.detach()}",
            "workers": 1,  # the first one loads alone, see Supervisor
            "worker_class": Worker,
            "timeout": 0,  # we check heartbeats ourselves
            "graceful_timeout": int(DRAIN) + 1,
            "worker_tmp_dir": temporary,
            "control_socket_disable": True,
            "logger_class": Log,
            "preload_app": False,
        }.items():
            self.cfg.set(name, value)

    def drop_privileges(self) -> None:
        """Become the user that workers run as."""
        if self.drop_to is not None:
            become(*self.drop_to)
            self.cfg.set("user", self.drop_to[0])
            self.drop_to = None

    def prepare(self) -> None:
        """Once for all workers: install the requirements, and load the model if it is shared."""
        if self.settings.multi_model:
            return  # each model has its own requirements
        if path := find_requirements(self.program):
            install(path)
        if self.settings.preload and self.program:
            self.drop_privileges()  # the model is user code
            try:
                self.model = load_model(self.program, self.settings, None)
            except UserError:
                raise
            except BaseException as error:  # also SystemExit, if a user module raises it
                traceback.print_exc()
                raise UserError(f"the model does not load: {type(error).__name__}, see above") from None
            if self.settings.gpus and gpus.are_open():
                raise UserError(
                    "SAGEMAKER_MODEL_SERVER_PRELOAD=true, but loading the model started CUDA, which does not "
                    "survive the fork of a worker: unset it, or move the model to the GPU in the first call"
                )
            # Exempt all present objects from garbage collection, so that their pages stay shared.
            gc.collect()
            gc.freeze()

    def load(self, worker: Worker) -> None:
        """Load the worker's model or application; ends the worker if that fails."""
        try:
            self._load(worker)
        except UserError as problem:
            log_error(str(problem))
            os._exit(NO_RETRY)
        except BaseException as error:  # also SystemExit, if a user module raises it
            self._tracebacks[0] += 1
            if self._tracebacks[0] == 1:  # print the traceback of the first failed start only
                traceback.print_exc()
            log_error(f"the model does not load: {type(error).__name__} in worker {worker.pid}")
            sys.stdout.flush()
            os._exit(NO_RETRY if isinstance(error, (ModuleNotFoundError, SyntaxError)) else 1)

    def _load(self, worker: Worker) -> None:
        if self.settings.multi_model:
            worker.wsgi = load_router(worker)
            return
        if self.settings.app:
            worker.wsgi = load_app(self.settings)
            return
        assert self.program is not None
        worker.model = self.model or load_model(self.program, self.settings, worker.gpu)
        if worker.model.has_stream:
            from . import websocket  # takes 50 ms, and few models have a stream_fn

            worker.websocket = websocket

    def gpus_of(self, row: int) -> list[str]:
        """The ids of a worker's GPUs: its share of all or, if there are more workers, one that they share."""
        ids = [gpu.id for gpu in self.settings.gpus]
        step = min(self.planned_workers, len(ids))
        return ids[row % self.planned_workers % step :: step] if ids else []


class Log:
    """gunicorn's logger: warnings and errors, in our format. Workers log requests themselves."""

    def __init__(self, cfg: Any) -> None:
        self.cfg = cfg
        self.killed: set[int] = set()  # pids of workers that we killed, with a line in the log

    def debug(self, *_: Any, **__: Any) -> None:
        pass

    info = access = close_on_exec = reopen_files = debug

    def warning(self, message: str, *values: Any, exc_info: bool = False, **_: Any) -> None:
        if values[1:] == (NO_RETRY,) or (values[:1] and values[0] in self.killed):
            return  # the reason is already in the log
        text = message % values if values else message
        log(f"{text}\n{traceback.format_exc().rstrip()}" if exc_info else text)

    error = critical = warning

    def exception(self, message: str, *values: Any, **_: Any) -> None:
        self.warning(message, *values, exc_info=True)


def load_router(worker: Worker) -> Any:
    """The application of a multi-model server. Also forks the forkserver of its models."""
    import tempfile

    from .multimodel.forkserver import fork_forkserver

    home = tempfile.mkdtemp(prefix="optml-models-")
    forkserver = fork_forkserver(worker, home)
    from .multimodel.router import create_router  # after the fork: models do not need flask

    return create_router(worker, forkserver, home)


def load_app(settings: Settings) -> Any:
    """The user's WSGI application, from `module:app`. Raises UserError if there is none."""
    assert settings.app is not None
    module_name, _, attribute = settings.app.partition(":")
    for directory in reversed(settings.code_dirs):
        if os.path.isdir(directory) and directory not in sys.path:
            sys.path.insert(0, directory)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module exists, but something that it imports does not
        folders = " or ".join(settings.code_dirs)
        raise UserError(
            f"SAGEMAKER_SERVING_MODULE={settings.app}: there is no module {error.name} in {folders}"
        ) from None
    app = getattr(module, attribute or "app", None)
    if not callable(app):
        raise UserError(f"SAGEMAKER_SERVING_MODULE={settings.app}: there is no application of that name")
    return app
