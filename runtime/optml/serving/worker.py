"""One worker process: a loop that talks to the clients, and slots that run the model.

The loop reads whole requests, answers /ping and refusals itself, and hands calls to the slots. It never
waits for a client or a slot, so /ping and the 504 of a call that takes too long work while all are busy.

The standby is a worker without a model. It answers 503 until another has loaded its own. Then it takes only
connections that no worker wants for a while, because their models hold the interpreter: it answers /ping and
gives what is no /ping to the first worker that looks up.
"""

from __future__ import annotations

import math
import os
import select
import socket
import sys
import threading
import time
import traceback
from collections import deque
from functools import cached_property
from queue import SimpleQueue

from gunicorn.http.wsgi import Response as ResponseWriter
from gunicorn.http.wsgi import create as wsgi_environ
from gunicorn.workers.base import Worker as BaseWorker

from ..report import UserError, log, log_error
from .errors import InferenceError, as_inference_error, phrase
from .http.accesslog import AccessLog
from .http.connection import Connection
from .http.response import Response, as_bytes, failure, fault, malformed
from .model.handlers import Context, Model
from .scoreboard import READY, RETIRING
from .slots import Call, Executor, Slots

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from gunicorn.http.message import Request

    from .websocket import Stream

NO_RETRY = os.EX_CONFIG  # exit code of a worker that would fail in the same way again
DRAIN = 25.0  # seconds for running calls after SIGTERM; the platform kills after 30
_TICK = 0.25  # seconds between two looks at deadlines and silent clients
_SILENCE = 75.0  # seconds a client may send nothing; load balancers keep connections for 60
_LINGER = 3.0  # seconds a refused client may go on sending, so that it can read the refusal
_READ_SIZE = 256 << 10
_YIELD = 0.001  # seconds a busy worker leaves a new connection to the others
_PATIENCE = 0.1  # seconds that the standby, or a worker full of sessions, leaves it to them
_REST = 0.1  # seconds for which a client that was told to come again later is not listened to
_STANDSTILL = 1.0  # seconds for which a call waits where sessions hold all slots
_ROUTED = 128  # calls that a router has on their way to models
_LISTENING = select.EPOLLIN | select.EPOLLONESHOT
_WAITING = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLONESHOT
_SENDING = select.EPOLLOUT | select.EPOLLONESHOT
_PING = b"GET /ping"
_STREAM = "/invocations-bidirectional-stream"
_NORMAL, _GOING_AWAY, _INTERNAL_ERROR = 1000, 1001, 1011  # RFC 6455, 7.4.1
_LOADING = InferenceError("The model is loading.", 503, {"Retry-After": "1"})
_FULL = InferenceError("All slots are busy and the queue is full.", 503, {"Retry-After": "1"})
_HELD = InferenceError("All slots have a stream each.", 503, {"Retry-After": "1"})
_REPLACED = InferenceError("The worker is being replaced.", 503, {"Retry-After": "1"})


class Worker(BaseWorker):  # type: ignore[misc]
    """The gunicorn worker of the application `Server`."""

    row = -1  # its row in the scoreboard: the standby's, unless another is assigned
    model: Model | None = None
    wsgi: Any = None  # the user's own application, where there is one
    websocket: Any = None  # the module of that name, where the user has a stream_fn

    def init_process(self) -> None:
        self.settings = self.app.settings
        self.scoreboard = self.app.scoreboard
        self.connections: dict[int, Connection] = {}
        self._posted: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self.health, self.control = Executor("health"), Executor("control")
        self._id_prefix = f"{self.pid:x}-{time.time_ns() & 0xFFFFFFFF:08x}-"
        self._ids = 0
        self.app.drop_privileges()
        super().init_process()

    def load_wsgi(self) -> None:
        """Load the model: gunicorn's moment for what is done once in every worker."""
        if self.row < 0:
            return
        try:
            self.app.load(self)
        except UserError as problem:
            log_error(str(problem))
            os._exit(NO_RETRY)
        except BaseException as error:  # the SystemExit of a user's module is a failure as well
            if self.app.first_traceback():
                traceback.print_exc()
            log_error(f"the model does not load: {type(error).__name__} in worker {self.pid}")
            sys.stdout.flush()
            os._exit(1)

    def handle_exit(self, sig: int, frame: Any) -> None:
        if not self.booted:
            os._exit(0)  # the model is loading: there is nothing to finish
        self.alive = False
        self.post(lambda: None)  # wake up the loop

    def handle_quit(self, sig: int, frame: Any) -> None:
        os._exit(0)

    # The loop

    def run(self) -> None:
        # Slots share the interpreter with the loop: let the loop in after 1 ms instead of 5.
        sys.setswitchinterval(0.001)
        settings = self.settings
        self.access_log = AccessLog(settings.access_log)
        count = _ROUTED if settings.multi_model else settings.threads
        share = -(-settings.queue // self.app.planned_workers)
        self.slots = Slots(count, share, self.run_call) if self.row >= 0 else Slots(0, 0, self.run_call)
        self.poller = select.epoll()
        self.poller.register(self.PIPE[0], select.EPOLLIN)
        if self.row >= 0:
            self.poller.register(self.app.handed, select.EPOLLIN)
        self.listeners = {listener.fileno(): listener.sock for listener in self.sockets}
        for fd in self.listeners:
            self.poller.register(fd, _LISTENING)
        self.resting: deque[Connection] = deque()
        self.yielded = 0.0  # when this worker began to leave new connections to the others
        if self.row >= 0:
            self.scoreboard.set_state(self.row, READY)
        self.now = self.looked = time.monotonic()
        while self.alive:
            self.turn()
        self.drain()

    def turn(self) -> None:
        """Handle what has happened, or wait for it until it is time to look at the clock again."""
        events = self.poller.poll(self.patience if self.yielded else _REST / 5 if self.resting else _TICK)
        self.now = time.monotonic()
        for fd, _ in events:
            if fd in self.listeners:
                self.on_listener(fd)
            elif fd == self.PIPE[0]:
                self.run_posted()
            elif fd == self.app.handed.fileno():
                self.take_handed()
            elif fd in self.connections:
                self.on_event(self.connections[fd])
        if self.yielded and self.now - self.yielded >= self.patience:
            for fd in self.listeners:
                self.on_listener(fd)
        if self.resting:
            self.wake_resting()
        if self.now - self.looked >= _TICK:
            self.looked = self.now
            self.look_at_clock()

    def look_at_clock(self) -> None:
        self.scoreboard.beat(self.row)
        late = self.slots.expired(self.now)
        if any(call.started for call in late):
            self.retire()  # before the answers: who reads one and calls again shall meet another worker
        for call in late:
            self.on_deadline(call)
        if self.slots.held:
            for call in self.slots.give_up(self.now - _STANDSTILL):
                self.refuse(call.connection, call.request, _HELD)
        busy = {call.connection for call in self.slots.calls}
        for connection in list(self.connections.values()):
            allowed = _LINGER if connection.closing else _SILENCE
            if self.now - connection.seen > allowed and connection not in busy:
                self.close(connection)
        if self.ppid != os.getppid():
            self.alive = False

    def drain(self) -> None:
        """Finish what runs, and leave."""
        limit = time.monotonic() + DRAIN
        self.stop_listening()
        while time.monotonic() < limit:
            busy = {call.connection for call in self.slots.calls}
            for connection in list(self.connections.values()):
                if connection not in busy and connection.is_idle():
                    self.close(connection)
            if not busy and not self.connections:
                break
            self.turn()
        self.access_log.flush()
        sys.stdout.flush()
        os._exit(0)  # not sys.exit: a slot that is stuck in the model must not keep the process

    def stop_listening(self) -> None:
        """Leave whoever comes now to others."""
        for fd, listener in self.listeners.items():
            while self.row >= 0 and self.scoreboard.state(self.row) == READY and self.accept(listener):
                pass  # the server stops, and these have connected already
            self.poller.unregister(fd)
            listener.close()
        if self.listeners and self.row >= 0:
            self.poller.unregister(self.app.handed)
        self.listeners = {}
        self.yielded = 0.0

    def retire(self) -> None:
        """Have this worker replaced: a slot is stuck in the model, and a thread cannot be stopped."""
        self.scoreboard.set_state(self.row, RETIRING)
        self.alive = False
        self.stop_listening()

    def post(self, action: Callable[[], None]) -> None:
        """Have the loop do something; from any thread."""
        self._posted.put(action)
        try:
            os.write(self.PIPE[1], b"\0")
        except BlockingIOError:
            pass  # so many wake-ups are on their way that one more changes nothing

    def run_posted(self) -> None:
        os.read(self.PIPE[0], 4096)
        while not self._posted.empty():
            self._posted.get()()

    # Connections: from the loop alone, but for `respond` and `send`

    def on_listener(self, fd: int) -> None:
        """Someone connects. A free worker shall have it, so others wait a moment before they try."""
        if not self.yielded and self.has_betters():
            self.yielded = self.now
            return
        self.yielded = 0.0
        self.accept(self.listeners[fd])
        self.poller.modify(fd, _LISTENING)

    @property
    def patience(self) -> float:
        """For how long this worker leaves a new connection to the others."""
        return _PATIENCE if self.row < 0 or self.slots.held else _YIELD

    def has_betters(self) -> bool:
        """Whether another should have the next connection."""
        if self.row < 0:
            return bool(self.scoreboard.any_ready())
        return bool(self.slots.busy or self.scoreboard.has_most_connections(self.row))

    def wake_resting(self) -> None:
        """Listen again to clients that were refused: one as soon as there is room, all in their time."""
        room = not self.slots.full
        while self.resting and (room or self.now - self.resting[0].seen >= _REST):
            room = False
            connection = self.resting.popleft()
            if self.connections.get(connection.fd) is connection:
                self.poller.modify(connection.fd, _WAITING)

    def accept(self, listener: socket.socket) -> bool:
        """Take one new connection; false when there is none."""
        try:
            sock, peer = listener.accept()
        except OSError:
            return False  # another worker was faster, or the client is gone
        self.adopt(sock, peer)
        return True

    def adopt(self, sock: socket.socket, peer: Any) -> None:
        sock.setblocking(False)
        connection = Connection(sock, peer, sock.getsockname(), self.settings.max_payload, self.now)
        self.connections[connection.fd] = connection
        self.poller.register(connection.fd, _WAITING)
        self.scoreboard.set_connections(self.row, len(self.connections))

    def hand_over(self, connection: Connection) -> bool:
        """Give away a connection on which anything but /ping arrives; false when it stays."""
        try:
            if connection.sock.recv(len(_PING), socket.MSG_PEEK) in (_PING, b""):
                return False
            socket.send_fds(self.app.handing, [b"\0"], [connection.fd])
        except OSError:  # so many wait already that this one is refused, or the client is gone
            return False
        self.close(connection)
        return True

    def take_handed(self) -> None:
        try:
            _, fds, _, _ = socket.recv_fds(self.app.handed, 1, 1)
        except BlockingIOError:
            return  # another worker was faster
        for fd in fds:
            sock = socket.socket(fileno=fd)
            try:
                self.adopt(sock, sock.getpeername())
            except OSError:
                sock.close()  # the client is gone

    def close(self, connection: Connection) -> None:
        if self.connections.get(connection.fd) is not connection:
            return  # closed already, and the number may belong to another by now
        del self.connections[connection.fd]
        self.poller.unregister(connection.fd)
        connection.drop()
        connection.sock.close()
        self.scoreboard.set_connections(self.row, len(self.connections))

    def on_event(self, connection: Connection) -> None:
        """The client has sent something, or can take more of its answer."""
        connection.seen = self.now
        if connection.outgoing:
            self.flush(connection)
            return
        if self.row < 0 and self.scoreboard.any_ready() and self.hand_over(connection):
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
            if request is not None:
                self.dispatch(connection, request)
                return
            if connection.wants_to_continue():
                connection.sock.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.poller.modify(connection.fd, _WAITING)
        except InferenceError as error:
            self.reject(connection, error)
        except OSError:
            self.close(connection)

    def dispatch(self, connection: Connection, request: Request) -> None:
        """Route a complete request."""
        if request.path == "/ping":
            self.ping(connection, request)
        elif self.row < 0:
            self.refuse(connection, request, _FULL if self.scoreboard.any_ready() else _LOADING)
        elif self.wsgi is not None:
            self.call(connection, request)
        elif request.path == "/invocations":
            if request.method == "POST":
                self.call(connection, request)
            else:
                self.refuse(connection, request, InferenceError("Use POST.", 405, {"Allow": "POST"}))
        elif request.path == _STREAM and self.websocket:
            self.upgrade(connection, request)
        else:
            self.beside(self.control, self.ask_admin, connection, request)

    def upgrade(self, connection: Connection, request: Request) -> None:
        """A call that becomes a session; what is not a proper handshake is refused before it takes a slot."""
        try:
            self.websocket.accept(request.method, request.headers)
        except InferenceError as error:
            self.refuse(connection, request, error)
        else:
            self.call(connection, request)

    def ping(self, connection: Connection, request: Request) -> None:
        """200 where any worker is ready. The user's own word on it, if any, is asked beside the loop."""
        if not self.scoreboard.any_ready():
            self.respond(connection, request, Response(503, headers={"Retry-After": "1"}))
        elif self.settings.app:
            self.beside(self.health, self.ask_app, connection, request)
        elif self.model is not None and self.model.has_ping:
            self.beside(self.health, self.ask_user, connection, request)
        else:
            self.respond(connection, request, Response(200))

    def call(self, connection: Connection, request: Request) -> None:
        """Give the request to a slot, now or in its turn, or refuse it at once."""
        # A router keeps no time: the process of the model does.
        timeout = math.inf if self.settings.multi_model else self.settings.timeout
        call = Call(request, connection, self.new_id(), self.now, timeout)
        if self.slots.admit(call):
            self.scoreboard.set_calls(self.row, len(self.slots.calls))
        else:
            connection.rest = True
            self.refuse(connection, request, _FULL)

    def new_id(self) -> str:
        self._ids += 1
        return f"{self._id_prefix}{self._ids}"

    def refuse(self, connection: Connection, request: Request, error: InferenceError) -> None:
        """Response with an error from the loop."""
        id = self.new_id()
        request.body.close()
        self.respond(connection, request, failure(error, id))
        self.note(request, error.status, id)

    def reject(self, connection: Connection, error: InferenceError) -> None:
        """Response a request that is malformed or too large, and read no more."""
        id = self.new_id()
        request = connection.request
        method, path = (request.method, request.path) if request else ("-", "-")
        connection.drop()
        self.send(connection, malformed(error, id), True)
        self.access_log.add(method, path, error.status, id)
        self.scoreboard.count_status(self.row, error.status)

    def respond(self, connection: Connection, request: Request, answer: Response) -> None:
        """Send a whole answer; from any thread."""
        self.send(connection, *self.written(request, answer))

    def written(self, request: Request, answer: Response) -> tuple[bytes, bool]:
        """A whole answer as bytes, and whether to close then: who calls again shall find one to take it."""
        close = self.row < 0 or not self.alive or self.slots.held
        return as_bytes(answer, request, self.cfg, close)

    def send(self, connection: Connection, data: bytes, then_close: bool) -> None:
        """Send what the socket takes, the loop sends the rest; then await the next request, or close."""
        try:
            sent = connection.sock.send(data) if data else 0
        except BlockingIOError:
            sent = 0
        except OSError:
            self.post(lambda: self.close(connection))
            return
        if sent < len(data) or then_close or connection.has_input:
            connection.outgoing = memoryview(data)[sent:]
            connection.then_close = then_close
            self.post(lambda: self.flush(connection))
        elif connection.rest:
            connection.rest = False
            self.resting.append(connection)
        else:
            self.poller.modify(connection.fd, _WAITING)

    def flush(self, connection: Connection) -> None:
        """Send more of an answer, and go on with the connection when all is sent."""
        if self.connections.get(connection.fd) is not connection:
            return
        try:
            while connection.outgoing:
                connection.outgoing = connection.outgoing[connection.sock.send(connection.outgoing) :]
            if connection.then_close:
                self.hang_up(connection)
            elif connection.has_input:
                self.take(connection, b"")
            else:
                self.poller.modify(connection.fd, _WAITING)
        except BlockingIOError:
            self.poller.modify(connection.fd, _SENDING)
        except OSError:
            self.close(connection)

    def hang_up(self, connection: Connection) -> None:
        """Say that no more will come and let the client close: cutting it off could lose the answer."""
        connection.closing = True
        connection.seen = self.now
        connection.sock.shutdown(socket.SHUT_WR)
        self.poller.modify(connection.fd, _WAITING)

    def on_deadline(self, call: Call) -> None:
        """Response 504 in place of the slot."""
        limit = f"{self.settings.timeout:g} s, the limit that SAGEMAKER_MODEL_SERVER_TIMEOUT sets"
        late = InferenceError(f"No answer within {limit}.", 504)
        if call.streaming:
            self.close(call.connection)
        elif call.session is not None:
            call.connection.closing, call.connection.seen = True, self.now  # the process waits for that
            closing = (call, call.session, _INTERNAL_ERROR, str(late))
            threading.Thread(target=self.end_session, args=closing, daemon=True).start()
        else:
            self.refuse(call.connection, call.request, late)
        if not call.started:
            return
        log(f"request {call.id} is over its time: worker {self.pid} finishes what it can and is replaced")
        for stranded in self.slots.lose_one():
            self.refuse(stranded.connection, stranded.request, _REPLACED)

    # Slots

    def run_call(self, call: Call) -> None:
        """Run one call on the thread of a slot. Nothing that a handler raises ends the thread."""
        try:
            if call.request.path == _STREAM and self.websocket:
                self.talk(call)
            elif self.wsgi is None:
                self.invoke(call)
            else:
                status = self.run_wsgi(call, self.wsgi)
                if status is not None:
                    self.log_call(call, status, time.monotonic())
        except BaseException as error:
            if not isinstance(error, OSError):  # those are clients that hung up
                traceback.print_exc()
            self.post(lambda: self.close(call.connection))
        call.request.body.close()
        self.scoreboard.count_served(self.row)

    def invoke(self, call: Call) -> None:
        """Run the handlers and answer, unless the deadline has."""
        assert self.model is not None
        request = call.request
        content_type = accept = ""
        for name, value in request.headers:
            if name == "CONTENT-TYPE":
                content_type = value
            elif name == "ACCEPT":
                accept = value
        context = Context(request.headers, call.id, self.app.gpu_of(self.row))
        chunks: Iterator[bytes] | None = None
        try:
            body, mimetype = self.model.answer(request.body, content_type, accept, context)
            if mimetype is not None:
                context.response_headers.setdefault("Content-Type", mimetype)
            if not isinstance(body, bytes):
                chunks, body = body, next(body, b"")  # what fails before the first chunk fails as any call
            answer = Response(context.status, body, context.response_headers)
            whole = self.written(request, answer)  # also a header that HTTP cannot carry fails here
        except BaseException as error:
            answer, chunks = failure(error, call.id), None
            whole = self.written(request, answer)
        ended = time.monotonic()
        if not call.claim():
            return
        if chunks is not None:
            self.stream(call, answer, chunks)
        else:
            # Free before the answer leaves: the client may send its next call at once.
            self.slots.release(call)
            self.send(call.connection, *whole)
        self.log_call(call, answer.status, ended)

    def stream(self, call: Call, answer: Response, chunks: Iterator[bytes]) -> None:
        """Send chunks as they come. Each has the time of a whole call, to be made and to be taken."""
        sock = call.connection.sock
        sock.settimeout(self.settings.timeout)
        call.deadline = time.monotonic() + self.settings.timeout
        call.streaming = True
        response = ResponseWriter(call.request, sock, self.cfg)
        if not self.alive:
            response.force_close()
        response.start_response(f"{answer.status} {phrase(answer.status)}", list(answer.headers.items()))
        response.write(answer.body)
        try:
            for chunk in chunks:
                call.deadline = time.monotonic() + self.settings.timeout
                response.write(chunk)
        except OSError:
            raise
        except BaseException as error:
            failure(error, call.id)  # too late for a status: the missing last chunk tells the client
            raise ConnectionAbortedError from error
        finally:
            if hasattr(chunks, "close"):
                chunks.close()
        response.close()
        sock.setblocking(False)
        self.slots.release(call)
        self.send(call.connection, b"", response.should_close())

    def talk(self, call: Call) -> None:
        """Open a WebSocket, and have the user's stream_fn talk through it."""
        assert self.model is not None
        if not call.claim():
            return
        request, sock, settings = call.request, call.connection.sock, self.settings
        sock.sendall(self.websocket.accept(request.method, request.headers))
        # The library closes what it gets, and the loop what it has.
        stream = self.websocket.Stream(
            sock.dup(), call, settings.timeout, settings.max_payload, lambda: not self.alive
        )
        self.slots.hold(call, stream)
        code, reason = 0, ""
        try:
            gpu = self.app.gpu_of(self.row)
            self.model.talk(stream, Context(request.headers, call.id, gpu, request.path, request.query))
        except self.websocket.Gone:
            pass
        except BaseException as error:
            known = as_inference_error(error)
            code, reason = _INTERNAL_ERROR, str(known or f"{fault(error, call.id)} ({call.id})")
        if call.claim():
            self.end_session(call, stream, code or (_NORMAL if self.alive else _GOING_AWAY), reason)

    def end_session(self, call: Call, stream: Stream, code: int, reason: str) -> None:
        """Close a WebSocket on both sides; from the slot, or in its place when it is over its time."""
        ended = time.monotonic()
        stream.close(code, reason)
        self.slots.release(call)
        self.log_call(call, 101, ended)
        self.post(lambda: self.close(call.connection))

    def run_wsgi(self, call: Call, app: Any) -> int | None:
        """Have a WSGI application answer, the user's own or the control plane. Gives its status, if any."""
        connection, request = call.connection, call.request
        payload, request.body = request.body, request.body.file()
        sock = connection.sock
        sock.settimeout(self.settings.timeout)
        response, environ = wsgi_environ(request, sock, connection.peer, connection.server, self.cfg)
        environ["wsgi.multithread"] = True
        environ["optml.request_id"] = call.id
        if not self.alive:
            response.force_close()
        try:
            parts = app(environ, response.start_response)
            chunks = iter(parts)
            first = next(chunks, b"")
            if not call.claim():
                return None  # the deadline has answered
            call.streaming = True
            response.write(first)
            for chunk in chunks:
                if call.deadline < math.inf:
                    call.deadline = time.monotonic() + self.settings.timeout
                response.write(chunk)
            response.close()
            if hasattr(parts, "close"):
                parts.close()
            sock.setblocking(False)
            status = response.status_code
            self.send(connection, b"", response.should_close())
        except OSError:
            raise
        except BaseException as error:
            answer = failure(error, call.id)
            if response.headers_sent:
                raise ConnectionAbortedError from error
            if not call.streaming and not call.claim():
                return None
            sock.setblocking(False)
            status = answer.status
            self.respond(connection, request, answer)
        finally:
            request.body = payload
        return int(status)

    def log_call(self, call: Call, status: int, ended: float) -> None:
        queue, model = call.started - call.received, ended - call.started
        self.scoreboard.count_call(self.row, queue, model)
        self.note(call.request, status, call.id, time.monotonic() - call.received, queue, model)

    def note(self, request: Request, status: int, id: str, *seconds: float) -> None:
        """Count a request and write its line."""
        self.scoreboard.count_status(self.row, status)
        self.scoreboard.set_calls(self.row, len(self.slots.calls))
        self.access_log.add(request.method, request.path, status, id, *seconds)

    # Beside the loop: it takes no slot, and the loop no time

    def ask_app(self, call: Call) -> None:
        """/ping of the user's own application."""
        self.run_wsgi(call, self.wsgi)

    def ask_user(self, call: Call) -> None:
        """The user's word on health."""
        assert self.model is not None
        try:
            healthy = self.model.ping()
        except Exception:
            traceback.print_exc()
            healthy = False
        self.respond(call.connection, call.request, Response(200 if healthy else 503))

    def ask_admin(self, call: Call) -> None:
        status = self.run_wsgi(call, self.admin_app)
        self.note(call.request, status or 500, call.id)
        call.request.body.close()

    @cached_property
    def admin_app(self) -> Any:
        from .admin import create_app  # flask takes 190 ms to import

        return create_app(self)

    def beside(
        self, side: Executor, action: Callable[[Call], None], connection: Connection, request: Request
    ) -> None:
        call = Call(request, connection, self.new_id(), self.now, self.settings.timeout)

        def act() -> None:
            try:
                action(call)
            except BaseException as error:
                if not isinstance(error, OSError):  # those are clients that hung up
                    traceback.print_exc()
                self.post(lambda: self.close(connection))

        side.do(act)
