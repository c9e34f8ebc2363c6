"""One worker process: a loop that talks to the clients, and threads that run the model.

The loop reads whole requests, answers /ping and refusals itself, and hands calls to the threads: one
thread a slot. A thread is busy with nothing but the model, whatever the clients do. The loop never waits
for a thread, so /ping and the 504 of a call that takes too long work while every slot is busy.

The greeter is a worker without a model: it answers 503 until a worker has loaded its own.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import threading
import time
import traceback
from queue import SimpleQueue

from gunicorn.http.wsgi import Response
from gunicorn.http.wsgi import create as wsgi_environ
from gunicorn.workers.base import Worker as BaseWorker

from ..report import Problem, complain, say
from .connection import Connection
from .errors import InferenceError, as_inference_error, error_body, phrase
from .handlers import Context, Model
from .readiness import LOADING, READY, RETIRING

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable
    from typing import Any

    from gunicorn.http.message import Request

    from .accesslog import Log
    from .readiness import Table
    from .settings import Settings

NO_RETRY = 4  # exit code of a worker that would fail again: bad settings, no handlers
DRAIN = 25.0  # seconds for running calls after SIGTERM; the platform kills after 30
TICK = 0.25  # seconds between two looks at deadlines and silent clients
_SILENCE = 75.0  # seconds a client may send nothing; load balancers keep connections for 60
_LINGER = 3.0  # seconds a refused client may go on sending, so that it can read the refusal
_READ_SIZE = 256 << 10
_YIELD = 0.001  # seconds a busy worker leaves a new connection to the others
_WAITING = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLONESHOT
_SENDING = select.EPOLLOUT | select.EPOLLONESHOT


class Call:
    """One request on its way to the model and back."""

    __slots__ = ("_claim", "connection", "deadline", "id", "received", "request", "started", "streaming")

    def __init__(self, request: Request, connection: Connection, id: str, now: float, timeout: float) -> None:
        self.request = request
        self.connection = connection
        self.id = id
        self.received = now
        self.deadline = now + timeout
        self.started = 0.0
        self.streaming = False
        self._claim = threading.Lock()

    def claim(self) -> bool:
        """Take the right to answer: true for the first who asks, be it the slot or the deadline."""
        return self._claim.acquire(blocking=False)


class Outbox:
    """Stands where gunicorn's Response expects a socket, so that an answer leaves in one piece."""

    __slots__ = ("parts",)

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def sendall(self, data: bytes) -> None:
        self.parts.append(data)


class Worker(BaseWorker):  # type: ignore[misc]
    """The gunicorn worker. The application that made it gives `settings`, `table`, `log` and `load`."""

    row = -1  # its row in the table; the greeter has none

    def init_process(self) -> None:
        self.settings: Settings = self.app.settings
        self.table: Table = self.app.table
        self.access: Log = self.app.access_log
        self.slots = 0 if self.row < 0 else self.settings.threads
        self.limit = self.slots + -(-self.settings.queue // self.app.planned_workers)
        self.calls: set[Call] = set()
        self.queue: SimpleQueue[Call] = SimpleQueue()
        self.connections: dict[int, Connection] = {}
        self.finished: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self.ids = f"{os.getpid():x}-{time.time_ns() & 0xFFFFFFFF:08x}-"
        self.count = 0
        self.side: SimpleQueue[Callable[[], None]] | None = None
        self.app.before_worker(self)
        super().init_process()

    def load_wsgi(self) -> None:
        """Load the model: gunicorn's moment for what is done once in every worker."""
        self.model: Model | None = None
        self.wsgi: Any = None
        if self.row < 0:
            return
        try:
            self.app.load(self)
        except Problem as problem:
            complain(str(problem))
            sys.exit(NO_RETRY)
        except BaseException as error:  # SystemExit of a user's module is a failure as well
            if self.app.first_traceback():
                traceback.print_exc()
            complain(f"the model does not load: {type(error).__name__} in worker {self.pid}")
            sys.stderr.flush()
            os._exit(1)

    def handle_exit(self, sig: int, frame: Any) -> None:
        if not self.booted:
            os._exit(0)  # nothing to finish while the model loads
        self.alive = False

    def handle_quit(self, sig: int, frame: Any) -> None:
        os._exit(0)

    # The loop

    def run(self) -> None:
        # Threads of the model share the interpreter with the loop: let the loop in after 1 ms instead of 5.
        sys.setswitchinterval(0.001)
        self.poller = select.epoll()
        self.poller.register(self.PIPE[0], select.EPOLLIN)
        self.listeners = {listener.fileno(): listener.sock for listener in self.sockets}
        for fd in self.listeners:
            self.poller.register(fd, select.EPOLLIN)
        for _ in range(self.slots):
            self.start_slot()
        if self.row >= 0:
            self.table.set_state(self.row, READY)
        self.now = self.checked = time.monotonic()
        while self.alive:
            self.turn()
            if self.ppid != os.getppid() or (self.row < 0 and self.table.any_ready()):
                break
        self.drain()

    def turn(self) -> None:
        """Wait for events, at most until the next look at the deadlines, and handle them."""
        events = self.poller.poll(TICK)
        self.now = time.monotonic()
        for fd, event in events:
            connection = self.connections.get(fd)
            if connection is not None:
                self.on_connection(connection, event)
            elif fd in self.listeners:
                self.accept(self.listeners[fd])
            elif fd == self.PIPE[0]:
                self.on_wakeup()
        if self.now - self.checked >= TICK:
            self.checked = self.now
            self.tick()

    def drain(self) -> None:
        """Take what has connected already, finish what runs, and leave."""
        limit = time.monotonic() + DRAIN
        for listener in self.listeners.values():
            while self.row >= 0 and self.accept(listener):
                pass
            self.poller.unregister(listener)
            listener.close()
        self.listeners = {}
        while time.monotonic() < limit:
            for connection in list(self.connections.values()):
                if self.is_idle(connection):
                    self.close(connection)
            if not self.calls and not self.connections:
                break
            self.turn()
        sys.stdout.flush()
        # Not sys.exit: a thread that is stuck in the model must not keep the process.
        os._exit(0)

    def is_idle(self, connection: Connection) -> bool:
        """Whether nothing is on its way on this connection, after a last look at the socket."""
        if any(call.connection is connection for call in list(self.calls)):
            return False
        if connection.outgoing or connection.closing or connection.request is not None:
            return False
        try:
            return not connection.sock.recv(1, 2)  # MSG_PEEK
        except BlockingIOError:
            return not connection.has_input
        except OSError:
            return True

    def tick(self) -> None:
        self.notify()
        for call in list(self.calls):
            if self.now > call.deadline:
                self.on_deadline(call)
        for connection in list(self.connections.values()):
            allowed = _LINGER if connection.closing else _SILENCE
            if self.now - connection.seen > allowed and not self.is_busy(connection):
                self.close(connection)
        if self.row >= 0 and self.table.state(self.row) == RETIRING:
            self.alive = False

    def is_busy(self, connection: Connection) -> bool:
        return any(call.connection is connection for call in list(self.calls))

    def notify(self) -> None:
        """The arbiter's heartbeat, in the table instead of a file."""
        if self.row >= 0:
            self.table.beat(self.row)
            self.table.set_connections(self.row, len(self.connections))

    def on_wakeup(self) -> None:
        try:
            os.read(self.PIPE[0], 4096)
        except BlockingIOError:
            pass
        while not self.finished.empty():
            self.finished.get()()

    def on_loop(self, action: Callable[[], None]) -> None:
        """Have the loop do something; from any thread."""
        self.finished.put(action)
        try:
            os.write(self.PIPE[1], b"\0")
        except BlockingIOError:
            pass  # the pipe is full of wake-ups already

    # Connections

    def accept(self, listener: socket.socket) -> bool:
        if self.row < 0 and self.table.any_ready():
            return False
        # A free worker shall have the connection: without this, queues grow unevenly.
        if (
            self.alive
            and self.slots
            and (len(self.calls) >= self.slots or self.table.has_most_connections(self.row))
        ):
            time.sleep(_YIELD)
        try:
            sock, peer = listener.accept()
        except OSError:
            return False  # another worker was faster, or the client is gone
        sock.setblocking(False)
        connection = Connection(sock, peer, sock.getsockname(), self.settings.max_payload, self.now)
        self.connections[connection.fd] = connection
        if self.row >= 0:
            self.table.set_connections(self.row, len(self.connections))
        self.poller.register(connection.fd, _WAITING)
        return True

    def close(self, connection: Connection) -> None:
        if self.connections.pop(connection.fd, None) is None:
            return
        if self.row >= 0:
            self.table.set_connections(self.row, len(self.connections))
        connection.drop()
        try:
            self.poller.unregister(connection.fd)
        except OSError:
            pass
        connection.sock.close()

    def on_connection(self, connection: Connection, event: int) -> None:
        connection.seen = self.now
        if connection.outgoing:
            self.flush(connection)
            return
        try:
            data = connection.sock.recv(_READ_SIZE)
        except BlockingIOError:
            self.poller.modify(connection.fd, _WAITING)
            return
        except OSError:
            data = b""
        if not data:
            self.close(connection)
        elif connection.closing:
            self.poller.modify(connection.fd, _WAITING)
        else:
            self.take(connection, data)

    def take(self, connection: Connection, data: bytes) -> None:
        """Give bytes to the connection, and act on the request that they complete."""
        try:
            request = connection.receive(data, self.cfg)
            if request is None:
                head = connection.request
                if head is not None and head._expected_100_continue:
                    head._expected_100_continue = False
                    connection.sock.send(b"HTTP/1.1 100 Continue\r\n\r\n")
                self.poller.modify(connection.fd, _WAITING)
                return
            self.dispatch(connection, request)
        except InferenceError as error:
            self.reject(connection, error)
        except OSError:
            self.close(connection)

    def dispatch(self, connection: Connection, request: Request) -> None:
        path = request.path
        if path == "/ping" and not self.wsgi:
            self.ping(connection, request)
        elif self.wsgi and path == "/ping":
            self.aside(lambda: self.run_wsgi(connection, request, self.wsgi))
        elif self.row < 0:
            self.refuse(
                connection, request, InferenceError("The model is loading.", 503, {"Retry-After": "1"})
            )
        elif path == "/invocations" or self.wsgi:
            if request.method != "POST" and not self.wsgi:
                self.refuse(connection, request, InferenceError("Use POST.", 405, {"Allow": "POST"}))
            elif len(self.calls) >= self.limit:
                busy = InferenceError("All slots are busy and the queue is full.", 503, {"Retry-After": "1"})
                self.refuse(connection, request, busy)
            else:
                call = Call(request, connection, self.new_id(), self.now, self.settings.timeout)
                self.calls.add(call)
                self.queue.put(call)
        elif path == "/execution-parameters":
            self.aside(lambda: self.execution_parameters(connection, request))
        else:
            self.refuse(connection, request, InferenceError(f"There is nothing at {path}.", 404))

    def ping(self, connection: Connection, request: Request) -> None:
        if not self.table.any_ready():
            self.respond(connection, request, 503, [("Content-Length", "0"), ("Retry-After", "1")], b"")
        elif self.model is not None and self.model.has_ping:
            model = self.model
            self.aside(lambda: self.user_ping(model, connection, request))
        else:
            self.respond(connection, request, 200, [("Content-Length", "0")], b"")

    def new_id(self) -> str:
        self.count += 1
        return f"{self.ids}{self.count}"

    def refuse(self, connection: Connection, request: Request, error: InferenceError) -> None:
        """Answer with an error at once, from the loop."""
        id = self.new_id()
        body = error_body(error.status, str(error), id)
        headers = [
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
            *error.headers.items(),
        ]
        request.body.close()
        self.respond(connection, request, error.status, headers, body)
        self.access(request.method, request.path, error.status, 0.0, 0.0, 0.0, id)

    def reject(self, connection: Connection, error: InferenceError) -> None:
        """Answer a request that is malformed or too large, and read no further."""
        id = self.new_id()
        request = connection.request
        body = error_body(error.status, str(error), id)
        connection.drop()
        head = (
            f"HTTP/1.1 {error.status} {phrase(error.status)}\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self.access(
            *(request.method, request.path) if request else ("-", "-"), error.status, 0.0, 0.0, 0.0, id
        )
        self.send(connection, head.encode() + body, True)

    def respond(
        self,
        connection: Connection,
        request: Request,
        status: int,
        headers: list[tuple[str, str]],
        body: bytes,
    ) -> None:
        """Send a whole answer; from the loop or from a slot."""
        outbox = Outbox()
        response = Response(request, outbox, self.cfg)
        if not self.alive or self.row < 0:
            response.force_close()
        response.start_response(f"{status} {phrase(status)}", headers)
        response.write(body)
        response.close()
        self.send(connection, b"".join(outbox.parts), response.should_close())

    def send(self, connection: Connection, data: bytes, then_close: bool) -> None:
        """Send what the socket takes; the loop sends the rest. Then wait for the next request, or close."""
        try:
            sent = connection.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.on_loop(lambda: self.close(connection))
            return
        if sent < len(data) or then_close or connection.has_input:
            connection.outgoing = memoryview(data)[sent:]
            connection.then_close = then_close
            self.on_loop(lambda: self.flush(connection))
        else:
            self.poller.modify(connection.fd, _WAITING)

    def flush(self, connection: Connection) -> None:
        """Send more of an answer; from the loop alone."""
        if connection.fd not in self.connections:
            return
        try:
            while connection.outgoing:
                connection.outgoing = connection.outgoing[connection.sock.send(connection.outgoing) :]
        except BlockingIOError:
            self.poller.modify(connection.fd, _SENDING)
            return
        except OSError:
            self.close(connection)
            return
        if connection.then_close:
            self.hang_up(connection)
        elif connection.has_input:
            self.take(connection, b"")
        else:
            self.poller.modify(connection.fd, _WAITING)

    def hang_up(self, connection: Connection) -> None:
        """Say that no more will come, and wait for the client to close: it may still be sending."""
        connection.closing = True
        connection.seen = self.now
        try:
            connection.sock.shutdown(1)  # SHUT_WR
            self.poller.modify(connection.fd, _WAITING)
        except OSError:
            self.close(connection)

    # Slots

    def start_slot(self) -> None:
        threading.Thread(target=self.work, name="slot", daemon=True).start()

    def work(self) -> None:
        """A slot: one call after the other."""
        while True:
            call = self.queue.get()
            call.started = time.monotonic()
            try:
                if self.wsgi:
                    if call.claim():
                        self.run_wsgi(call.connection, call.request, self.wsgi, call)
                else:
                    self.invoke(call)
            except OSError:
                connection = call.connection
                self.on_loop(lambda connection=connection: self.close(connection))
            except BaseException:
                traceback.print_exc()
                connection = call.connection
                self.on_loop(lambda connection=connection: self.close(connection))
            finally:
                self.calls.discard(call)
                call.request.body.close()
            if self.row >= 0:
                self.table.count_served(self.row)

    def invoke(self, call: Call) -> None:
        """Run the handlers and answer, unless the deadline has."""
        request = call.request
        content_type = accept = ""
        for name, value in request.headers:
            if name == "CONTENT-TYPE":
                content_type = value
            elif name == "ACCEPT":
                accept = value
        context = Context(request.headers, call.id, self.app.gpu_of(self.row))
        assert self.model is not None
        mimetype: str | None
        try:
            body, mimetype = self.model.answer(request.body, content_type, accept, context)
            if not isinstance(body, bytes):
                self.stream(call, context, mimetype, body)
                return
        except BaseException as error:
            if not call.claim():
                return  # the deadline answered
            context.status, context.response_headers, body = self.explain(error, call.id)
            mimetype = "application/json"
        else:
            if not call.claim():
                return
        ended = time.monotonic()
        headers = [("Content-Length", str(len(body))), *context.response_headers.items()]
        if mimetype is not None and "Content-Type" not in context.response_headers:
            headers.append(("Content-Type", mimetype))
        # Out of the way before the answer is: the client may send its next call at once.
        self.calls.discard(call)
        self.respond(call.connection, request, context.status, headers, body)
        self.log_call(call, context.status, ended)

    def explain(self, error: BaseException, id: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body for an exception of a handler; its traceback goes to the log alone."""
        answer = as_inference_error(error)
        if answer is None:
            lines = "".join(traceback.format_exception(error))
            say(f"request {id} failed\n{lines.rstrip()}")
            answer = InferenceError(f"The model raised {type(error).__name__}; the log tells more.", 500)
        return answer.status, dict(answer.headers), error_body(answer.status, str(answer), id)

    def stream(self, call: Call, context: Context, mimetype: str | None, chunks: Iterable[bytes]) -> None:
        """Send chunks as they come; each has the time of a whole call."""
        iterator = iter(chunks)
        try:
            first = next(iterator, None)  # an error before the first chunk is an ordinary one
        except BaseException as error:
            if call.claim():
                status, extra, body = self.explain(error, call.id)
                headers = [
                    ("Content-Length", str(len(body))),
                    ("Content-Type", "application/json"),
                    *extra.items(),
                ]
                self.respond(call.connection, call.request, status, headers, body)
                self.log_call(call, status, time.monotonic())
            return
        if not call.claim():
            return
        call.streaming = True
        sock = call.connection.sock
        sock.settimeout(self.settings.timeout)
        response = Response(call.request, sock, self.cfg)
        if not self.alive:
            response.force_close()
        headers = list(context.response_headers.items())
        if mimetype is not None and "Content-Type" not in context.response_headers:
            headers.append(("Content-Type", mimetype))
        response.start_response(f"{context.status} {phrase(context.status)}", headers)
        if first is not None:
            response.write(first)
            try:
                for chunk in iterator:
                    call.deadline = time.monotonic() + self.settings.timeout
                    response.write(chunk)
            except OSError:
                raise
            except BaseException as error:
                # Too late for a status: the missing last chunk tells the client.
                self.explain(error, call.id)
                self.log_call(call, 500, time.monotonic())
                raise ConnectionAbortedError from error
        response.close()
        sock.setblocking(False)
        self.calls.discard(call)
        self.send(call.connection, b"", response.should_close())
        self.log_call(call, context.status, time.monotonic())

    def run_wsgi(self, connection: Connection, request: Request, app: Any, call: Call | None = None) -> None:
        """Answer with a WSGI application."""
        payload, request.body = request.body, request.body.file()
        sock = connection.sock
        sock.settimeout(self.settings.timeout)
        response, environ = wsgi_environ(request, sock, connection.peer, connection.server, self.cfg)
        environ["wsgi.multithread"] = True
        if not self.alive:
            response.force_close()
        try:
            parts = app(environ, response.start_response)
            try:
                for part in parts:
                    response.write(part)
                response.close()
            finally:
                if hasattr(parts, "close"):
                    parts.close()
        except OSError:
            raise
        except BaseException as error:
            id = call.id if call else self.new_id()
            status, extra, body = self.explain(error, id)
            if response.headers_sent:
                raise ConnectionAbortedError from error
            request.body = payload
            sock.setblocking(False)
            headers = [
                ("Content-Length", str(len(body))),
                ("Content-Type", "application/json"),
                *extra.items(),
            ]
            self.respond(connection, request, status, headers, body)
            return
        finally:
            request.body = payload
        sock.setblocking(False)
        if call:
            self.calls.discard(call)
            self.log_call(call, response.status_code, time.monotonic())
        self.send(connection, b"", response.should_close())

    def log_call(self, call: Call, status: int, ended: float) -> None:
        queued, model = call.started - call.received, ended - call.started
        total = time.monotonic() - call.received
        request = call.request
        self.access(request.method, request.path, status, total * 1e3, queued * 1e3, model * 1e3, call.id)

    def on_deadline(self, call: Call) -> None:
        """Answer 504 in place of the slot. A slot that is stuck ends the worker: threads cannot be stopped."""
        if call.streaming:
            self.calls.discard(call)
            self.retire(call)
            self.close(call.connection)
        elif call.claim():
            self.calls.discard(call)
            seconds = self.settings.timeout
            error = InferenceError(
                f"No answer within {seconds:g} s, the limit that SAGEMAKER_MODEL_SERVER_TIMEOUT sets.", 504
            )
            self.refuse(call.connection, call.request, error)
            if call.started:
                self.retire(call)

    def retire(self, call: Call) -> None:
        say(f"request {call.id} is over its time: worker {self.pid} finishes what it can and is replaced")
        self.table.set_state(self.row, RETIRING)
        self.slots -= 1
        if self.slots > 0:
            return
        # No slot is left to run what waits here: those clients may ask again, another worker answers.
        for waiting in list(self.calls):
            if waiting.claim():
                self.calls.discard(waiting)
                again = InferenceError("The worker is being replaced.", 503, {"Retry-After": "1"})
                self.refuse(waiting.connection, waiting.request, again)

    # Beside the slots

    def aside(self, action: Callable[[], None]) -> None:
        """Run the user's code that is no call, on a thread of its own: it takes no slot, and the loop no time."""
        if self.side is None:
            self.side = SimpleQueue()
            threading.Thread(target=self.work_aside, name="side", daemon=True).start()
        self.side.put(action)

    def work_aside(self) -> None:
        assert self.side is not None
        while True:
            try:
                self.side.get()()
            except Exception:
                traceback.print_exc()

    def user_ping(self, model: Model, connection: Connection, request: Request) -> None:
        try:
            status = 200 if model.ping() else 503
        except Exception:
            traceback.print_exc()
            status = 503
        self.respond(connection, request, status, [("Content-Length", "0")], b"")

    def execution_parameters(self, connection: Connection, request: Request) -> None:
        assert self.model is not None
        parameters = self.model.execution_parameters() or self.app.execution_parameters()
        body = json.dumps(parameters).encode()
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        self.respond(connection, request, 200, headers, body)


__all__ = ["DRAIN", "LOADING", "NO_RETRY", "Worker", "signal"]
