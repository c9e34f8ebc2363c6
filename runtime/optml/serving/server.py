"""`serve`: settings → a gunicorn application whose workers load the model and answer."""

from __future__ import annotations

import os
import socket

from .. import house
from ..report import UserError
from .settings import read_settings


def serve(argv: list[str]) -> int:
    """Serve the model until SIGTERM. Returns the exit code: 0 after a stop that was asked for.

    Raises UserError for what a user can put right before the server starts.
    """
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
    from .supervisor import Server  # imports gunicorn, which takes most of the time

    house.open_to_user()
    return Server(settings, program, listener).serve()


def bind(port: int) -> socket.socket:
    """The listening socket, before anything slow. Raises UserError where the port cannot be had."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("0.0.0.0", port))
    except OSError as error:
        raise UserError(
            f"port {port} cannot be used ({error.strerror}): stop what uses it, or set SAGEMAKER_BIND_TO_PORT"
        ) from None
    listener.listen(2048)
    return listener
