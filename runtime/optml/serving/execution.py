"""One call on its slot: a complete response, a stream, a session, or a WSGI application's response.

Failures of the client and of handlers are told apart at their source: only `send_part` turns an OSError into
ClientGone, so an OSError raised by a handler is a fault like any other.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from .call import Call
from .cuda_errors import is_fatal
from .errors import InferenceError, as_inference_error
from .host import Host
from .http.response import Frames, Response, as_bytes, failure, fault
from .http.wsgi import WSGIAnswer, close, environ
from .http.wsgi import run as run_app
from .journal import CLIENT_GONE
from .model.handlers import Context

if TYPE_CHECKING:  # websockets takes 50 ms to import
    from .websocket import Stream

_NORMAL, _GOING_AWAY, _INTERNAL_ERROR = 1000, 1001, 1011  # RFC 6455, 7.4.1


class ClientGone(Exception):
    """The client has stopped reading its response."""


class TooLate(Exception):
    """The call was answered at its deadline."""


class Execution:
    """Runs the calls of a worker. Nothing that a handler raises ends the thread."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def run(self, call: Call) -> None:
        """Run one call and record its outcome, unless it was answered at its deadline."""
        try:
            if call.opening:
                status = self._talk(call)
            elif self._host.wsgi is not None:
                status = self.run_app(call, self._host.wsgi)
            else:
                status = self._invoke(call)
        except BaseException as error:
            status = self.break_off(call, error)
        if status is not None:
            self._host.journal.note_call(call, status)
        call.request.body.close()

    def break_off(self, call: Call, error: BaseException) -> int | None:
        """Break off a response: only a closed connection tells the client. Returns the status to record."""
        if isinstance(error, TooLate):
            return None
        self._check_cuda(error)
        self._cut(call)
        if isinstance(error, ClientGone):
            return CLIENT_GONE
        return (as_inference_error(error) or fault(error, call.id)).status

    def _check_cuda(self, error: BaseException) -> None:
        """Replace a worker whose CUDA is broken: it would answer only 500 from now on."""
        if self._host.gpu is not None and is_fatal(error):
            self._host.loop.post(self._host.replace)

    def _cut(self, call: Call) -> None:
        self._host.loop.post(lambda: self._host.loop.close(call.connection))

    def send_part(self, call: Call, data: bytes) -> None:
        """Send a part of a response, within the time of a call. The first part claims the call.

        Raises ClientGone and TooLate.
        """
        if not call.streaming and not call.claim():
            raise TooLate
        call.streaming = True
        call.pause()  # a client that does not read is not a stuck model
        sock = call.connection.sock
        try:
            # Fails if the loop has closed it, because the call took too long.
            sock.settimeout(self._host.settings.timeout)
            sock.sendall(data)
        except OSError as error:
            raise ClientGone from error
        finally:
            call.renew()

    def _invoke(self, call: Call) -> int | None:
        """Run the handlers and respond, unless the call was answered at its deadline."""
        host = self._host
        assert host.model is not None
        request = call.request
        context = Context(request.headers, call.id, host.gpu)
        chunks: Iterator[bytes] | None = None
        try:
            body, mimetype = host.model.answer(request.body, request.content_type, request.accept, context)
            if not isinstance(body, bytes):
                chunks, body = body, next(body, b"")  # an error before the first chunk gets a response
            response = Response(context.status, body, context.response_headers, mimetype)
            whole = as_bytes(response, request, host.closes)  # also checks the headers
        except BaseException as error:
            close(chunks)
            self._check_cuda(error)
            response, chunks = failure(error, call.id), None
            whole = as_bytes(response, request, host.closes)
        if chunks is not None:
            return self._stream(call, response, chunks)
        if not call.claim():
            return None
        # Free the slot before sending: the client may send its next call at once.
        host.slots.release(call)
        host.loop.send(call.connection, *whole)
        return response.status

    def _stream(self, call: Call, answer: Response, chunks: Iterator[bytes]) -> int:
        """Send chunks as they are produced. Each has the time of a whole call."""
        frames = Frames(answer, call.request, self._host.closes)
        try:
            self.send_part(call, frames.head + frames.frame(answer.body))
            for chunk in chunks:
                self.send_part(call, frames.frame(chunk))
        finally:
            close(chunks)
        self.send_part(call, frames.end())
        self._continue(call, frames.closes)
        return answer.status

    def _continue(self, call: Call, then_close: bool) -> None:
        """Give the connection back to the loop after a complete response."""
        call.connection.sock.setblocking(False)
        self._host.slots.release(call)
        self._host.loop.send(call.connection, b"", then_close)

    def _talk(self, call: Call) -> int | None:
        """Open a WebSocket and run the user's stream_fn on it."""
        host = self._host
        assert host.model is not None
        self.send_part(call, call.opening)
        stream = host.websocket.Stream(call, host)
        host.slots.hold(call, stream)
        code, reason = 0, ""
        try:
            path, query = call.request.path, call.request.query
            host.model.talk(stream, Context(call.request.headers, call.id, host.gpu, path, query))
        except host.websocket.Gone:
            pass
        except BaseException as error:
            self._check_cuda(error)
            known = as_inference_error(error)
            code, reason = _INTERNAL_ERROR, str(known or f"{fault(error, call.id)} ({call.id})")
        if call.claim():
            self._end_session(call, stream, code or (_NORMAL if host.alive else _GOING_AWAY), reason)
        return None  # _end_session records it

    def _end_session(self, call: Call, stream: Stream, code: int, reason: str) -> None:
        """Close a WebSocket on both sides; on the slot or, if that is stuck, in its place."""
        stream.close(code, reason)
        self._host.slots.release(call)
        self._host.journal.note_call(call, 101)
        self._cut(call)

    def run_app(self, call: Call, app: Any) -> int | None:
        """Run a WSGI application, the user's or the control plane."""
        host, request = self._host, call.request
        answer = WSGIAnswer(request, partial(self.send_part, call), host.closes)
        variables = environ(request, call.connection.server, host.app.planned_workers > 1)
        variables["optml.request_id"] = call.id
        try:
            run_app(app, variables, answer)
        except BaseException as error:
            if call.streaming or isinstance(error, TooLate):
                raise
            self._check_cuda(error)
            response = failure(error, call.id)
            if not call.claim():
                return None
            host.loop.send(call.connection, *as_bytes(response, request, host.closes))
            return response.status
        assert answer.response is not None
        self._continue(call, answer.closes)
        return answer.response.status

    def give_up(self, call: Call) -> None:
        """End a call whose slot is stuck in user code. For the loop's thread."""
        late = over_time(self._host.settings.timeout)
        if call.session is not None and call.claim():
            connection = call.connection  # its client has a moment to answer the close
            connection.answering, connection.closing, connection.seen = False, True, time.monotonic()
            closing = (call, call.session, _INTERNAL_ERROR, str(late))
            threading.Thread(target=self._end_session, args=closing, daemon=True).start()
        elif call.streaming:
            self._host.loop.close(call.connection)
            self._host.journal.note_call(call, late.status)


def over_time(timeout: float) -> InferenceError:
    limit = f"{timeout:g} s, the limit that SAGEMAKER_MODEL_SERVER_TIMEOUT sets"
    return InferenceError(f"No answer within {limit}.", 504)
