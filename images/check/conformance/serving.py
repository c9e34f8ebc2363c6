"""The image serves."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from functools import cached_property
from typing import Any

from conformance.clause import Broken, NotChecked
from conformance.engine import Engine, Files, folder
from conformance.server import Answer, Server
from conformance.target import Options, Target, probe, start


class Serving(Target):
    def __init__(self, engine: Engine, image: str, options: Options) -> None:
        super().__init__(engine, image, options)
        self._server: Server | None = None
        self._servers = contextlib.ExitStack()

    def close(self) -> None:
        self._servers.close()

    @cached_property
    def handlers_run(self) -> bool:
        """Whether the image serves with handlers in /opt/ml/model/code."""
        if self.options.model is not None:
            return False  # the user's model has its own handlers
        with contextlib.suppress(Broken, OSError), contextlib.ExitStack() as running:
            server = running.enter_context(self._serve({}))
            server.wait_ready(self.options.start_timeout)
            # A server that reports ready too early breaks only P-READY-2.
            for _ in range(20):
                if b'"conformance"' in server.call(b'{"hello": 1}').body:
                    self._server = server
                    self._servers.push(running.pop_all())
                    return True
                time.sleep(0.1)
        return False

    @property
    def first_server(self) -> Server:
        """The server that is shared by all clauses which leave it unchanged; it may not be ready."""
        plan: dict[str, Any] | None = {} if self.handlers_run else None
        if self._server is None:
            self._server = self.keep(self._serve(plan))
        return self._server

    @cached_property
    def not_ready(self) -> str:
        """Why the image's server does not become ready; empty if it does."""
        try:
            self.first_server.wait_ready(self.options.start_timeout)
        except Broken as error:
            return str(error)
        return ""

    @cached_property
    def has_ended(self) -> bool:
        """Whether the server did not become ready because it exited or never started."""
        return bool(self.not_ready) and not (self._server and self._server.runs)

    def needs_start(self) -> None:
        """A server that does not become ready cannot be checked further."""
        if not self.handlers_run and self.not_ready:
            raise NotChecked("the server does not become ready: see E-SERVE-1 and P-READY-1")

    @property
    def server(self) -> Server:
        """The shared server, ready."""
        self.needs_start()
        if self._server and not self._server.runs:
            self._server = None  # an earlier clause ended it, and reported that
        server = self.first_server
        server.wait_ready(self.options.start_timeout)
        return server

    @cached_property
    def plain_answer(self) -> Answer:
        """The response to the user's payload, or to the default one."""
        return self.server.call()

    def needs_handlers(self) -> None:
        if not self.handlers_run:
            raise NotChecked("the image does not run handlers in /opt/ml/model/code, which this call needs")

    @contextlib.contextmanager
    def serving(
        self, plan: dict[str, Any] | None = None, *, plain: bool = False, **how: Any
    ) -> Iterator[Server]:
        """A separate server for one clause: its handlers follow `plan`; if `plain`, it has no model."""
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
