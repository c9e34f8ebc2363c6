"""`serve`: settings → listener → gunicorn application → supervisor."""

from __future__ import annotations

import os
import signal
import socket
import sys

from .. import isolation
from ..machine import listen
from ..report import UserError, log
from .settings import Settings

_BACKLOG = 2048  # connections that the kernel queues until they are accepted


def serve(argv: list[str]) -> int:
    """Serve the model until SIGTERM. Returns the exit code: 0 after a requested stop.

    Raises UserError if the server cannot start for a reason that the user can fix.
    """
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # until anything is served
    if argv:
        raise UserError(f"serve takes no arguments, but got {argv[0]!r}: settings are environment variables")
    settings = Settings(os.environ)
    try:
        import gunicorn  # noqa: F401
    except ImportError:
        raise UserError("this image cannot serve, gunicorn is missing: build FROM optml/cpu-serve") from None
    from .model.handlers import find_program
    from .model.source import fetch_code

    fetch_code(settings)
    program = None if settings.app or settings.multi_model else find_program(settings)
    listener = bind(settings.port)
    from ..cuda import problems
    from .application import Server  # imports gunicorn, most of the start-up time
    from .supervisor import Supervisor

    if settings.gpus:
        for problem in problems(sys.executable, True, [vars(gpu) for gpu in settings.gpus]):
            log(f"warning: {problem}")
    isolation.open_to_user()
    app = Server(settings, program, listener)
    try:
        Supervisor(app).run()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    return 0


def bind(port: int) -> socket.socket:
    """The listening socket, opened before anything slow. Raises UserError if the port is unavailable."""
    try:
        return listen(port, _BACKLOG)
    except OSError as error:
        reason = os.strerror(error.errno or 0)
    raise UserError(
        f"port {port} cannot be used ({reason}): stop what uses it, or set SAGEMAKER_BIND_TO_PORT"
    )
