"""What happens to a complete request: an immediate response, a slot, or a thread beside the loop."""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from typing import Any

from .call import Call
from .errors import InferenceError
from .execution import Execution, over_time
from .host import Host
from .http.connection import Connection
from .http.request import Request
from .http.response import Response, as_bytes, failure

_STREAM = "/invocations-bidirectional-stream"
_ROUTES = ("/", "/status", "/metrics", "/execution-parameters", "/openapi.json")  # of the control plane
_FULL = InferenceError("All slots are busy and the queue is full.", 503, {"Retry-After": "1"})
HELD = InferenceError("All slots are held by WebSocket sessions.", 503, {"Retry-After": "1"})
_USE_POST = InferenceError("Use POST.", 405, {"Allow": "POST"})


class Dispatcher:
    """All methods are for the loop's thread, except those that the executors run."""

    def __init__(self, host: Host, execution: Execution) -> None:
        self._host = host
        self._execution = execution
        # One thread each, beside the loop, started when first needed.
        self._health, self._control = ThreadPoolExecutor(1, "health"), ThreadPoolExecutor(1, "control")

    def dispatch(self, connection: Connection, request: Request) -> None:
        """Route a complete request."""
        if request.path == "/ping":
            self.ping(connection, request)
        elif self._host.settings.multi_model and request.path in _ROUTES:
            self.beside(self.ask_app, connection, request)
        elif self._host.wsgi is not None:
            self.call(connection, request)
        elif request.path == "/invocations":
            if request.method == "POST":
                self.call(connection, request)
            else:
                self.refuse(connection, request, _USE_POST)
        elif self._host.websocket and (request.path == _STREAM or self.may_be_session(request)):
            self.upgrade(connection, request)
        else:
            self.beside(self.ask_app, connection, request)

    def may_be_session(self, request: Request) -> bool:
        """Whether the request may open a session: on any path that the client chooses, except our routes."""
        asks = any(name == "UPGRADE" and value.lower() == "websocket" for name, value in request.headers)
        return asks and request.path not in _ROUTES

    def upgrade(self, connection: Connection, request: Request) -> None:
        """Start a call that becomes a session. An invalid handshake is refused before it takes a slot."""
        try:
            opening = self._host.websocket.accept(request.method, request.headers, request.version)
        except InferenceError as error:
            self.refuse(connection, request, error)
        else:
            self.call(connection, request, opening)

    def ping(self, connection: Connection, request: Request) -> None:
        """Answer /ping: 200 if any worker is ready. User code that has a say in it runs beside the loop."""
        if not self._host.scoreboard.any_ready():
            self.respond(connection, request, Response(503, b"", {"Retry-After": "1"}))
        elif self._host.settings.app:
            self.beside(self.ask_app, connection, request)
        elif self._host.model is not None and self._host.model.has_ping:
            self.beside(self.ask_user, connection, request)
        else:
            self.respond(connection, request, Response(200))

    def call(self, connection: Connection, request: Request, opening: bytes = b"") -> None:
        """Run the request on a slot, now or in turn, or refuse it at once."""
        host = self._host
        # A router sets no deadline: the model's process does.
        timeout = math.inf if host.settings.multi_model else host.settings.timeout
        arrived = host.intake.arrival_of(connection)
        call = Call(request, connection, host.journal.new_id(), arrived, timeout)
        call.opening = opening
        call.counted = not host.settings.multi_model or request.path.endswith("/invoke")
        if host.loop.now > call.deadline:
            self.refuse(connection, request, over_time(timeout))
        elif host.slots.held and arrived < host.loop.now:
            self.refuse(connection, request, HELD)
        elif host.slots.admit(call, len(host.intake.waiting)):
            host.intake.note_load()
        else:
            connection.rest = True
            self.refuse(connection, request, _FULL)

    def respond(self, connection: Connection, request: Request, response: Response) -> None:
        self._host.loop.send(connection, *as_bytes(response, request, self._host.closes))

    def refuse(self, connection: Connection, request: Request, error: InferenceError) -> None:
        id = self._host.journal.new_id()
        request.body.close()
        self.respond(connection, request, failure(error, id))
        self._host.journal.note(request, error.status, id)

    # Beside the loop: takes no slot and does not delay the loop

    def beside(self, action: Callable[[Call], int | None], connection: Connection, request: Request) -> None:
        host, is_ping = self._host, request.path == "/ping"
        call = Call(request, connection, host.journal.new_id(), host.loop.now, host.settings.timeout)

        def act() -> None:
            try:
                status = action(call)
            except BaseException as error:
                status = self._execution.break_off(call, error)
            if not is_ping:
                host.journal.note(request, status or 500, call.id)
            request.body.close()

        executor = self._health if is_ping else self._control
        executor.submit(act).add_done_callback(_print_fault)

    def ask_app(self, call: Call) -> int | None:
        """Answer by the control plane, or /ping by the user's application."""
        return self._execution.run_app(call, self.app)

    def ask_user(self, call: Call) -> int:
        """Answer /ping by the user's ping_fn."""
        assert self._host.model is not None
        try:
            healthy = self._host.model.ping()
        except Exception:
            traceback.print_exc()
            healthy = False
        response = Response(200 if healthy else 503)
        self.respond(call.connection, call.request, response)
        return response.status

    @cached_property
    def app(self) -> Any:
        if self._host.wsgi is not None:  # the user's, or a router, which includes the control plane
            return self._host.wsgi
        from .admin import create_app  # flask takes 190 ms to import

        return create_app(self._host)


def _print_fault(done: Future[None]) -> None:
    """Print the error of a future that nobody waits for."""
    if error := done.exception():
        traceback.print_exception(error)
