"""`serve`: settings → a gunicorn application whose workers load the model and answer."""

from __future__ import annotations

import os
import signal
import socket
import sys

from .. import house
from ..machine import listen
from ..report import UserError, log
from .settings import Settings

_BACKLOG = 2048  # connections that the kernel keeps until they are accepted


def serve(argv: list[str]) -> int:
    """Serve the model until SIGTERM. Returns the exit code: 0 after a stop that was asked for.

    Raises UserError for what a user can put right before the server starts.
    """
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # until something is served
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
    from .application import Server  # imports gunicorn, which takes most of the time
    from .supervisor import Supervisor

    if settings.gpus:
        for problem in problems(sys.executable, True, [vars(gpu) for gpu in settings.gpus]):
            log(f"warning: {problem}")
    house.open_to_user()
    app = Server(settings, program, listener)
    try:
        Supervisor(app).run()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    return 0


def bind(port: int) -> socket.socket:
    """The listening socket, before anything slow. Raises UserError where the port cannot be had."""
    try:
        return listen(port, _BACKLOG)
    except OSError as error:
        reason = os.strerror(error.errno or 0)
    raise UserError(
        f"port {port} cannot be used ({reason}): stop what uses it, or set SAGEMAKER_BIND_TO_PORT"
    )
