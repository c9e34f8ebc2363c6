"""The forkserver: a process that forks one child for each model of a multi-model server.

It is forked while the router has one thread and no flask, but has imported all that a worker needs. A child
is a worker with one model and its own socket, so slots, deadlines, streams and refusals work as in any other.
It reports its process id, then the result of its start; its pipe closes when it ends.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sys
import traceback
from types import SimpleNamespace
from typing import Any, NoReturn

from ... import paths
from ...report import UserError, log_error
from ..cuda_errors import is_out_of_memory
from ..host import Application
from ..model.handlers import find_program, load_model
from ..model.requirements import find_requirements, install
from ..scoreboard import Scoreboard
from ..settings import Settings
from ..worker import Worker

_PR_SET_DUMPABLE = 4
_OOM_LOADING, _OOM_LOADED = 1000, 500  # OOM scores: first a loading model, then any, never the router


def fork_forkserver(router: Worker, home: str) -> socket.socket:
    """Fork it. Returns a socket for orders: JSON (`url`, `packages`, `gpu`), a listener, a report pipe."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork():
        theirs.close()
        return ours
    try:
        ours.close()
        _fork_on_demand(router, theirs)
    finally:
        shutil.rmtree(home, ignore_errors=True)
        os._exit(0)


def _fork_on_demand(router: Worker, orders: socket.socket) -> None:
    """Fork on demand until the router is gone, then kill all children."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)  # the router lets running calls finish first
    for listener in router.sockets:
        listener.close()
    import ctypes  # needed only here

    # After giving up root, this process's files in /proc belong to root unless it is dumpable.
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1)
    children: set[int] = set()
    while True:
        order, fds, _, _ = socket.recv_fds(orders, 65536, 2)
        children -= _reaped()
        if not order:
            break
        try:
            child = os.fork()
        except OSError as error:  # too many processes or too little memory: other models continue
            _refuse(fds[1], error)
        else:
            if child == 0:
                orders.close()
                _run_model(router, json.loads(order), *fds)
            children.add(child)
        for fd in fds:
            os.close(fd)
    for child in children:
        try:
            os.killpg(child, signal.SIGKILL)
        except ProcessLookupError:
            pass  # just forked, and not yet the leader of a group: it notices that we are gone


def _refuse(reports: int, error: OSError) -> None:
    """Report, in the child's place, that it cannot be started."""
    message = f"No process can be started for the model: {error.strerror}."
    log_error(message)
    os.write(reports, b"0\n")
    _report(reports, 507, message)


def _reaped() -> set[int]:
    reaped = set()
    try:
        while child := os.waitpid(-1, os.WNOHANG)[0]:
            reaped.add(child)
    except ChildProcessError:
        pass  # there are none
    return reaped


def _run_model(router: Worker, order: dict[str, Any], listener: int, reports: int) -> NoReturn:
    try:
        os.setsid()  # a group, to be killed with all that the model starts
        os.write(reports, b"%d\n" % os.getpid())
        os.set_inheritable(reports, False)
        paths.MODEL = order["url"]
        app = ModelApp(router.settings, order["packages"], order["gpu"])
        sock = socket.socket(fileno=listener)
        sock.setblocking(False)
        wrapped = SimpleNamespace(sock=sock, fileno=sock.fileno)
        worker = ModelWorker(0, os.getppid(), [wrapped], app, 0, router.cfg, router.log)
        worker.row, worker.pid, worker.reports = 0, os.getpid(), reports
        worker.init_process()
    except BaseException as error:
        # Log everything before the report, after which the router ends this process.
        if isinstance(error, UserError):
            log_error(str(error))
        else:
            traceback.print_exc()
        sys.stdout.flush()
        _report(reports, *_load_failure(error))
    finally:
        os._exit(1)


class ModelWorker(Worker):
    """Reports success once its loop runs, when its start can no longer fail."""

    reports: int

    def prepare(self) -> None:
        super().prepare()
        self.loop.post(lambda: _report(self.reports, 200, ""))


class ModelApp(Application):
    """The application of a process with one model."""

    planned_workers = 1
    exchange = None  # there is no standby

    def __init__(self, settings: Settings, packages: str, gpu: int | None) -> None:
        self.settings = settings
        settings.access_log, settings.multi_model = "off", False  # in this process only
        self.packages = packages
        self.gpu = gpu
        self.scoreboard = Scoreboard(1)
        self.scoreboard.begin(0)

    def drop_privileges(self) -> None:
        """Do nothing: the router already has."""

    def load(self, worker: Worker) -> None:
        _set_oom_score(_OOM_LOADING)
        self.program = find_program(self.settings)
        if os.path.isdir(self.packages):  # an earlier process of this model has installed them
            sys.path.insert(1, self.packages)
        elif path := find_requirements(self.program):
            install(path, self.packages)
        worker.model = load_model(self.program, self.settings, None if self.gpu is None else 0)
        _set_oom_score(_OOM_LOADED)

    def gpus_of(self, row: int) -> list[str]:
        return [] if self.gpu is None else [self.settings.gpus[self.gpu].id]


def _report(reports: int, status: int, message: str) -> None:
    os.write(reports, json.dumps([status, message]).encode() + b"\n")


def _load_failure(error: BaseException) -> tuple[int, str]:
    """Status and message for a model that does not load."""
    if isinstance(error, UserError):
        return 400, str(error)
    if isinstance(error, MemoryError) or is_out_of_memory(error):
        return 507, "Not enough memory to load the model."
    return 500, f"The model does not load: {type(error).__name__}; the log tells more."


def _set_oom_score(score: int) -> None:
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write(str(score))
    except OSError:
        pass  # then the kernel chooses by size only
