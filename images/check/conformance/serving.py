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
            return False  # the user's model comes with the user's handlers
        with contextlib.suppress(Broken, OSError), contextlib.ExitStack() as running:
            server = running.enter_context(self._serve({}))
            server.wait_ready(self.options.start_timeout)
            # A server that is not ready when it says so is for P-READY-2 to find.
            for _ in range(20):
                if b'"conformance"' in server.call(b'{"hello": 1}').body:
                    self._server = server
                    self._servers.push(running.pop_all())
                    return True
                time.sleep(0.1)
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

    @cached_property
    def has_ended(self) -> bool:
        """Whether the server that did not get ready has ended by then, or has not even started."""
        return bool(self.not_ready) and not (self._server and self._server.runs)

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
