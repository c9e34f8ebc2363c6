"""Every setting of the server, read once from the environment and checked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TypeVar

from .. import gpus, paths
from ..report import UserError

MB = 1 << 20
_LEVELS = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40, "CRITICAL": 50}
# Set by SageMaker in the containers that it runs, but not by its SDK's local mode.
_PLATFORM = ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "SAGEMAKER_SAFE_PORT_RANGE")

_Default = TypeVar("_Default", int, None)


class Settings:
    """The server's settings. Sizes are in bytes, times in seconds.

    Raises UserError with a one-line message for an invalid value.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        read = _Reader(environ)
        self.port = read.integer("SAGEMAKER_BIND_TO_PORT", 8080, 1, 65535)
        # None: as many as CPUs, GPUs and memory allow.
        self.workers = read.integer("SAGEMAKER_MODEL_SERVER_WORKERS", None, 1, 1000)
        # Calls that one worker runs at the same time, and that may wait in all workers together.
        self.threads = read.integer("SAGEMAKER_MODEL_SERVER_THREADS", 1, 1, 1000)
        self.queue = read.integer("SAGEMAKER_MODEL_JOB_QUEUE_SIZE", 100, 0)
        # From the last byte of a request to the first of its response.
        self.timeout = read.number("SAGEMAKER_MODEL_SERVER_TIMEOUT", 60.0)
        self.start_retries = read.integer("PROCESS_MAX_START_RETRIES", 3, 0)
        self.preload = read.boolean("SAGEMAKER_MODEL_SERVER_PRELOAD")
        self.user = read.one_of("SAGEMAKER_MODEL_SERVER_USER", ("ml", "root"))
        self.default_accept = environ.get("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT") or "application/json"
        self.max_payload = (read.integer("SAGEMAKER_MAX_PAYLOAD_IN_MB", 1024, 0) or 1024) * MB
        self.multi_model = read.boolean("SAGEMAKER_MULTI_MODEL")
        self.access_log = read.one_of("SAGEMAKER_MODEL_SERVER_ACCESS_LOG", ("text", "json", "off"))
        self.metrics = read.one_of("SAGEMAKER_MODEL_SERVER_METRICS", ("true", "false")) == "true"
        self.page = read.unless_on_platform("SAGEMAKER_MODEL_SERVER_PAGE")
        self.log_level = read.level("SAGEMAKER_CONTAINER_LOG_LEVEL")
        # A file, and its folder relative to that of the code.
        program = environ.get("SAGEMAKER_PROGRAM") or "inference.py"
        self.program_folder, self.program = os.path.split(program)
        # The absolute folder of the code, an archive or s3:// address to get it from, or empty.
        self.submitted = environ.get("SAGEMAKER_SUBMIT_DIRECTORY", "").removeprefix("file://")
        # module:app, a WSGI application that replaces our own.
        self.app = environ.get("SAGEMAKER_SERVING_MODULE") or None
        if self.multi_model and self.app:
            raise UserError(
                "SAGEMAKER_MULTI_MODEL=true and SAGEMAKER_SERVING_MODULE exclude each other: "
                "unset one of them"
            )
        # Recommend the strategy in a spelling that the caller understands: the SDK's local mode, which alone
        # sets `True`, accepts only the API's.
        is_local = environ.get("SAGEMAKER_BATCH") == "True"
        recommended = "MultiRecord" if is_local else "MULTI_RECORD"
        self.batch_strategy = environ.get("SAGEMAKER_BATCH_STRATEGY") or recommended
        self.max_concurrent_transforms = read.integer("SAGEMAKER_MAX_CONCURRENT_TRANSFORMS", None, 0)
        self.gpus = gpus.find(environ.get("CUDA_VISIBLE_DEVICES"))

    @property
    def code_dirs(self) -> tuple[str, ...]:
        """Folders searched for the handlers, in this order; `paths.MODEL` differs for each of many models."""
        submitted = [self.submitted] if os.path.isabs(self.submitted) else []
        # The program's folder is below each ("serving/inference.py"), or absolute ("/srv/inference.py").
        directories = (*submitted, f"{paths.MODEL}/code", paths.CODE)
        return tuple(os.path.join(each, self.program_folder).rstrip("/") for each in directories)


class _Reader:
    """Reads variables by kind, so that all invalid values are reported in the same way."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ

    def integer(self, name: str, default: _Default, least: int, most: int = 10**9) -> int | _Default:
        text = self.environ.get(name, "").strip()
        if not text:
            return default
        is_number = text.isascii() and text.isdigit() and len(text) < 20  # int() refuses more than 4,300
        if not is_number or not least <= int(text) <= most:
            raise UserError(
                f"{name}={text!r} is not a whole number from {least} to {most}: correct or unset it"
            )
        return int(text)

    def number(self, name: str, default: float) -> float:
        text = self.environ.get(name, "").strip()
        try:
            value = float(text or default)
        except ValueError:
            value = 0.0
        if not 0 < value < 1e9:
            raise UserError(f"{name}={text!r} is not a number of seconds above 0: correct or unset it")
        return value

    def level(self, name: str) -> int:
        """A logging level, by number or name."""
        text = self.environ.get(name, "").strip().upper()
        return _LEVELS[text] if text in _LEVELS else self.integer(name, _LEVELS["INFO"], 0)

    def boolean(self, name: str) -> bool:
        return self.one_of(name, ("false", "true")) == "true"

    def unless_on_platform(self, name: str) -> bool:
        """The value if it is true or false; `auto` is true unless the platform runs this container."""
        value = self.one_of(name, ("auto", "false", "true"))
        return value == "true" or (value == "auto" and not any(self.environ.get(name) for name in _PLATFORM))

    def one_of(self, name: str, choices: tuple[str, ...]) -> str:
        """One of the choices, in any case; the first is the default."""
        text = self.environ.get(name, "").strip()
        choice = (text or choices[0]).lower()
        if choice not in choices:
            raise UserError(f"{name}={text!r} is none of {', '.join(choices)}: correct or unset it")
        return choice
