"""The image that is checked, run as the platform would run it.

A small program of ours is put where the toolkits' users put theirs (probes/). Where an image runs it, nearly
every clause can be checked with no knowledge of the image; an image with code of its own is checked as it is.
"""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from docker.errors import APIError, NotFound
from docker.models.containers import Container
from requests.exceptions import RequestException

from conformance.clause import Broken, NotChecked
from conformance.engine import Engine, Files, folder, remove
from conformance.server import Answer, Server

PROBES = Path(__file__).parent / "probes"
INPUT = {
    "hyperparameters": {},
    "resourceconfig": {"current_host": "algo-1", "hosts": ["algo-1"], "network_interface_name": "eth0"},
    "inputdataconfig": {"train": {"TrainingInputMode": "File"}},
}


class NotStarted(Broken):
    """The engine could not start the container."""


@dataclass(frozen=True)
class Options:
    """What the user knows of the image."""

    code: Path | None = None
    model: Path | None = None
    input: Path | None = None
    payload: bytes | None = None
    content_type: str = "application/json"
    environment: dict[str, str] = field(default_factory=dict)
    start_timeout: float = 120


@dataclass(frozen=True)
class Job:
    """A training container that has ended."""

    code: int
    stdout: str
    stderr: str
    files: dict[str, bytes]  # what lies below /opt/ml/model and /opt/ml/output
    seconds: float

    @property
    def report(self) -> dict[str, Any] | None:
        """What our program saw; None if it did not run."""
        text = self.files.get("model/conformance.json")
        return json.loads(text) if text else None

    @property
    def failure(self) -> str | None:
        text = self.files.get("output/failure")
        return None if text is None else text.decode(errors="replace")

    @property
    def end(self) -> str:
        """How it ended, for messages."""
        last = (self.stdout + self.stderr).strip().splitlines()[-1:]
        return f"exit code {self.code}" + (
            f", and its last line is {last[0][:200]!r}" if last else ", in silence"
        )


class Subject:
    def __init__(self, engine: Engine, image: str, options: Options) -> None:
        self.engine, self.options = engine, options
        self.image = engine.client.images.get(image)
        self.config: dict[str, Any] = self.image.attrs["Config"]
        self.labels: dict[str, str] = self.config.get("Labels") or {}
        self.name = image
        self.remembered: dict[str, Any] = {}
        self._server: Server | None = None
        self._servers = contextlib.ExitStack()

    def close(self) -> None:
        self._servers.close()

    # Training

    @cached_property
    def plain_job(self) -> Job:
        """One that does nothing but to record how it was started."""
        return self._job({})

    @cached_property
    def failed_job(self) -> Job:
        """One that ends by an exception, below a traceback that is longer than a reason may be."""
        return self.job({"raise": 60})

    def job(self, plan: dict[str, Any], **how: Any) -> Job:
        """Train with our program, which does as `plan` says."""
        if self.plain_job.report is None:
            raise NotChecked(
                "the image does not run the program that SAGEMAKER_PROGRAM names in /opt/ml/code, "
                f"so what it does for a program is its own affair ({self.plain_job.end})"
            )
        return self._job(plan, **how) if plan or how else self.plain_job

    @cached_property
    def own_job(self) -> Job:
        """Train with what the image has, and the code and data of the command line."""
        if self.options.code is None and self.plain_job.report is not None:
            return self.plain_job
        if self.options.code is None and self.options.input is None and self.plain_job.code == 0:
            return self.plain_job
        return self.own()

    def own(self, **how: Any) -> Job:
        with self.training(None, **how) as container:
            return ended(container, 600)

    def _job(self, plan: dict[str, Any], timeout: float = 120, **how: Any) -> Job:
        with self.training(plan, **how) as container:
            return ended(container, timeout)

    @contextlib.contextmanager
    def training(
        self,
        plan: dict[str, Any] | None,
        *,
        parameters: dict[str, str] | None = None,
        config: dict[str, Any] | None = None,
        environment: dict[str, str] | None = None,
        files: Files | None = None,
        program: str = "conformance_probe.py",
        command: tuple[str, ...] = ("train",),
        **options: Any,
    ) -> Iterator[Container]:
        """A training container that runs."""
        variables = {"TRAINING_JOB_NAME": "conformance", **self.options.environment, **(environment or {})}
        tree: Files = {}
        if plan is None:
            for source, target in ((self.options.code, "code"), (self.options.input, "input")):
                tree |= folder(source, f"/opt/ml/{target}") if source else {}
            if self.options.input is None:
                tree |= _configuration({})
        else:
            variables |= {"SAGEMAKER_PROGRAM": program, "SAGEMAKER_SUBMIT_DIRECTORY": "/opt/ml/code"}
            given = {
                "sagemaker_program": program,
                "sagemaker_submit_directory": "/opt/ml/code",
                **(parameters or {}),
            }
            tree |= _configuration({"hyperparameters": given} | (config or {}))
            tree |= {
                "/opt/ml/code/conformance_probe.py": probe("train.py", plan),
                "/opt/ml/input/data/train": None,
                "/opt/ml/input/data/train/data.csv": "1,2\n",
            }
        tree |= files or {}
        container = self.engine.create(
            self.name,
            *command,
            files=tree,
            environment=variables,
            **options,
        )
        try:
            start(container)
            yield container
        finally:
            remove(container)

    # Serving

    @cached_property
    def handlers_run(self) -> bool:
        """Whether the image serves with handlers in /opt/ml/model/code."""
        if self.options.model is not None:
            return False  # the user's model comes with the user's handlers
        server = self.keep(self._serve({}))
        with contextlib.suppress(Broken, OSError):
            server.wait_ready(self.options.start_timeout)
            # A server that is not ready when it says so is for P-READY-2 to find.
            for _ in range(20):
                if b'"conformance"' in server.call(b'{"hello": 1}').body:
                    self._server = server
                    return True
                time.sleep(0.1)
        server.end()
        return False

    @property
    def first_server(self) -> Server:
        """The server that all clauses share which leave it as it was, ready or not."""
        plan: dict[str, Any] | None = {} if self.handlers_run else None
        if self._server is None:
            self._server = self.keep(self._serve(plan))
        return self._server

    @cached_property
    def not_ready(self) -> str:
        """Why no server of the image gets ready; empty if one does."""
        try:
            self.first_server.wait_ready(self.options.start_timeout)
        except Broken as error:
            return str(error)
        return ""

    def needs_start(self) -> None:
        """Nothing more can be found out about a server that does not get ready."""
        if not self.handlers_run and self.not_ready:
            raise NotChecked("the server does not get ready: see E-SERVE-1 and P-READY-1")

    @property
    def server(self) -> Server:
        """The shared server, ready."""
        self.needs_start()
        if self._server and not self._server.runs:
            self._server = None  # a clause before has ended it, and said so
        server = self.first_server
        server.wait_ready(self.options.start_timeout)
        return server

    @cached_property
    def plain_answer(self) -> Answer:
        """What the image answers to the user's payload, or to ours."""
        return self.server.call()

    def needs_handlers(self) -> None:
        if not self.handlers_run:
            raise NotChecked(
                "the image does not run handlers in /opt/ml/model/code, so no call can be shaped"
            )

    @contextlib.contextmanager
    def serving(
        self, plan: dict[str, Any] | None = None, *, plain: bool = False, **how: Any
    ) -> Iterator[Server]:
        """A server of its own for one clause: with our handlers by a plan, with no model if plain."""
        if plan is not None:
            self.needs_handlers()
        self.needs_start()
        if plan is None and not plain and self.handlers_run:
            plan = {}
        with self._serve(plan, **how) as server:
            yield server

    def keep(self, serving: contextlib.AbstractContextManager[Server]) -> Server:
        """A server that runs until the check ends."""
        return self._servers.enter_context(serving)

    @contextlib.contextmanager
    def _serve(
        self,
        plan: dict[str, Any] | None,
        *,
        environment: dict[str, str] | None = None,
        files: Files | None = None,
        port: int = 8080,
        sealed: bool = False,
        **options: Any,
    ) -> Iterator[Server]:
        variables = {**self.options.environment, **(environment or {})}
        tree: Files = {}
        if plan is None:
            for source, target in ((self.options.code, "code"), (self.options.model, "model")):
                tree |= folder(source, f"/opt/ml/{target}") if source else {}
        else:
            variables |= {
                "SAGEMAKER_PROGRAM": "inference.py",
                "SAGEMAKER_SUBMIT_DIRECTORY": "/opt/ml/model/code",
            }
            tree |= {
                "/opt/ml/model/code": None,
                "/opt/ml/model/code/inference.py": probe("inference.py", plan),
            }
        tree |= files or {}
        if sealed:
            model = {path: content for path, content in tree.items() if path.startswith("/opt/ml/model")}
            options["mounts"] = [self.engine.sealed(self.name, "/opt/ml/model", model)]
            tree = {path: content for path, content in tree.items() if path not in model}
        container = self.engine.create(self.name, "serve", files=tree, environment=variables, **options)
        server = Server(container, port, self.options.payload, self.options.content_type)
        try:
            start(container)
            yield server
        finally:
            server.end()


def probe(name: str, plan: dict[str, Any]) -> str:
    """The source of one of our programs, with what it is to do."""
    return f"PLAN = {plan!r}\n" + (PROBES / name).read_text()


def start(container: Container) -> None:
    """Start it; what the engine cannot start breaks the clause that wanted it."""
    try:
        container.start()
    except APIError as error:
        raise NotStarted(f"the container does not start: {error.explanation}") from None


def _configuration(changes: dict[str, Any]) -> Files:
    """The files of /opt/ml/input/config; a value of None leaves one out."""
    return {
        f"/opt/ml/input/config/{name}.json": json.dumps(content)
        for name, content in (INPUT | changes).items()
        if content is not None
    }


def ended(container: Container, timeout: float = 120) -> Job:
    """Wait for its end, and take what it left."""
    begin = time.monotonic()
    try:
        code = container.wait(timeout=timeout)["StatusCode"]
    except RequestException:
        raise Broken(f"the container still runs after {timeout:.0f} s") from None
    seconds = time.monotonic() - begin
    stdout, stderr = (
        container.logs(stdout=out, stderr=not out).decode(errors="replace") for out in (True, False)
    )
    files: dict[str, bytes] = {}
    for part in ("model", "output"):
        files |= _tree(container, f"/opt/ml/{part}")
    return Job(code, stdout, stderr, files, seconds)


def _tree(container: Container, path: str) -> dict[str, bytes]:
    """The small files below a folder of a container."""
    try:
        stream, _ = container.get_archive(path)
        with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as tar:
            members = [m for m in tar.getmembers() if m.isfile() and m.size < 10_000_000]
            return {m.name: tar.extractfile(m).read() for m in members}  # type: ignore[union-attr]
    except (NotFound, APIError):
        return {}
