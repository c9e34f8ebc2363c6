"""`serve`: settings → a gunicorn application whose workers load the model and answer."""

from __future__ import annotations

import errno
import os
import signal
import socket
import sys

from .. import house
from ..report import UserError, log
from .settings import read_settings


def serve(argv: list[str]) -> int:
    """Serve the model until SIGTERM. Returns the exit code: 0 after a stop that was asked for.

    Raises UserError for what a user can put right before the server starts.
    """
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # until something is served
    if argv:
        raise UserError(f"serve takes no arguments, but got {argv[0]!r}: settings are environment variables")
    settings = read_settings(os.environ)
    try:
        import gunicorn  # noqa: F401
    except ImportError:
        raise UserError("this image cannot serve, gunicorn is missing: build FROM optml/cpu-serve") from None
    from .model.handlers import find_program
    from .model.source import with_code

    settings = with_code(settings)
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
    app.settle()
    try:
        Supervisor(app).run()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    return 0


def bind(port: int) -> socket.socket:
    """The listening socket, before anything slow. Raises UserError where the port cannot be had."""
    try:
        return _listen(socket.AF_INET6, "::", port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise _not_ours(port, error) from None
    try:  # the kernel or the container has no IPv6
        return _listen(socket.AF_INET, "0.0.0.0", port)
    except OSError as error:
        raise _not_ours(port, error) from None


def _listen(family: int, address: str, port: int) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)  # IPv4 comes in as well
        listener.bind((address, port))
        listener.listen(2048)
    except OSError:
        listener.close()
        raise
    return listener


def _not_ours(port: int, error: OSError) -> UserError:
    return UserError(
        f"port {port} cannot be used ({error.strerror}): stop what uses it, or set SAGEMAKER_BIND_TO_PORT"
    )
