"""One client connection: bytes in, complete requests out, without ever waiting for the client.

HTTP itself is gunicorn's: its parser reads heads and chunk sizes here, its Response writes answers. What
is ours is that reading happens piece by piece in the worker's loop, so that a slow client costs a socket
and a few bytes, and neither a thread nor a slot.
"""

from __future__ import annotations

import socket

from gunicorn.http.body import ChunkedReader
from gunicorn.http.errors import (
    ChunkMissingTerminator,
    InvalidChunkSize,
    LimitRequestHeaders,
    LimitRequestLine,
    NoMoreData,
    UnsupportedTransferCoding,
)
from gunicorn.http.message import Request
from gunicorn.http.unreader import Unreader

from ..errors import InferenceError
from ..settings import MB
from .payload import Payload

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_HEAD_LIMIT = 64 << 10  # gunicorn's own limits for a line and a header are smaller
_CHUNK_LINE_LIMIT = 8 << 10

# gunicorn's parse errors that are not a plain 400.
_STATUS = {LimitRequestLine: 414, LimitRequestHeaders: 431, UnsupportedTransferCoding: 501}


class Received(Unreader):  # type: ignore[misc]
    """What gunicorn's parser reads from: bytes that have arrived already."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.buf.write(data)

    def chunk(self, size_hint: int | None = None) -> bytes:
        return b""


class Connection:
    """A socket and what has arrived on it.

    `request` is the request whose body is being read, `closing` an answered connection that only waits for
    its client to hang up, `outgoing` the rest of an answer that the socket would not take at once, `rest`
    whether the client has just been told to come again later.
    """

    __slots__ = (
        "_body", "_inbox", "_searched", "closing", "fd", "max_payload", "outgoing", "peer", "request", "rest",
        "seen", "server", "sock", "then_close",
    )  # fmt: skip

    def __init__(self, sock: socket.socket, peer: Any, server: Any, max_payload: int, now: float) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.peer = peer
        self.server = server
        self.max_payload = max_payload
        self.seen = now
        self.request: Request | None = None
        self.closing = False
        self.outgoing = memoryview(b"")
        self.then_close = False
        self.rest = False
        self._inbox = bytearray()
        self._searched = 0
        self._body: _Body | None = None

    @property
    def has_input(self) -> bool:
        """Whether bytes of a further request have arrived already."""
        return bool(self._inbox)

    def wants_to_continue(self) -> bool:
        """Whether the client waits for a 100 before it sends the body; true once."""
        if self.request is None or not self.request._expected_100_continue:
            return False
        self.request._expected_100_continue = False
        return True

    def is_idle(self) -> bool:
        """Whether nothing is on its way, after a last look at the socket."""
        if self.outgoing or self.closing or self.request is not None or self._inbox:
            return False
        try:
            return not self.sock.recv(1, socket.MSG_PEEK)
        except OSError:  # nothing there, or the client gone
            return True

    def receive(self, data: bytes, config: Any) -> Request | None:
        """Take bytes from the client; the request, with its payload in `body`, once it is complete.

        Raises InferenceError for a request that is not well formed, or too large.
        """
        try:
            if self.request is None:
                if not self._begin(data, config):
                    return None
                data = self._taken() if self._body is not None else b""
            if self._body is not None:
                if not self._body.write(data):
                    return None
                self._inbox += self._body.rest
        except InferenceError:
            raise
        except Exception as error:  # the parser's errors have no common base below Exception
            if isinstance(error, OSError) and error.errno:
                raise InferenceError(
                    f"No room for the body of the request: {error.strerror}.", 507
                ) from error
            raise InferenceError(f"Bad request: {error}", _STATUS.get(type(error), 400)) from error
        request, self.request, self._body = self.request, None, None
        return request

    def drop(self) -> None:
        """The client is gone or refused: give up what it was sending."""
        if self.request is not None:
            self.request.body.close()
        self.request = self._body = None
        self._inbox.clear()

    def _taken(self) -> bytes:
        data = bytes(self._inbox)
        self._inbox.clear()
        return data

    def _begin(self, data: bytes, config: Any) -> bool:
        """Read the head of a request once all of it is here. True when there is something to go on with."""
        if self._inbox:
            self._inbox += data
            if self._inbox.find(b"\r\n\r\n", self._searched) < 0:
                return self._wait_for_head()
            data = self._taken()
        elif b"\r\n\r\n" not in data:
            self._inbox += data
            return self._wait_for_head()
        self._searched = 0
        source = Received(data)
        request = Request(config, source, self.peer)
        request.version = min(request.version, (1, 1))  # an answer never has a higher one than the server
        self.request = request
        reader = request.body.reader
        request.body = Payload()
        rest = source.take_buffered()
        if isinstance(reader, ChunkedReader):
            self._body = _Chunked(reader, request.body, self.max_payload)
            self._inbox += rest
            return bool(rest)
        length = reader.length
        if length > self.max_payload:
            raise too_large(self.max_payload)
        request.body.write(rest[:length])
        self._inbox += rest[length:]
        if request.body.size == length:
            return True
        self._body = _Sized(length, request.body)
        return False

    def _wait_for_head(self) -> bool:
        if len(self._inbox) > _HEAD_LIMIT:
            raise LimitRequestHeaders("the head of the request is too large")
        self._searched = max(0, len(self._inbox) - 3)
        return False


class _Sized:
    """A body of known length."""

    def __init__(self, length: int, payload: Payload) -> None:
        self.length = length
        self.payload = payload
        self.rest = b""

    def write(self, data: bytes) -> bool:
        missing = self.length - self.payload.size
        self.payload.write(data[:missing])
        self.rest = data[missing:]
        return self.payload.size == self.length


class _Chunked:
    """A body in chunks. Sizes and trailers are read by gunicorn, which is strict about them."""

    def __init__(self, reader: ChunkedReader, payload: Payload, limit: int) -> None:
        self.reader = reader
        self.payload = payload
        self.limit = limit
        self.rest = b""
        self._pending = bytearray()
        self._left = 0  # bytes of the current chunk that are missing, its final CRLF included

    def write(self, data: bytes) -> bool:
        pending = self._pending
        pending += data
        while pending:
            if self._left:
                if not self._copy():
                    return False
            elif self._next_size():
                return True
            elif not self._left:
                return False
        return False

    def _copy(self) -> bool:
        """Move what is here of the chunk into the payload; True when the chunk is complete."""
        here = min(len(self._pending), max(0, self._left - 2))
        if self.payload.size + here > self.limit:
            raise too_large(self.limit)
        self.payload.write(bytes(self._pending[:here]))
        del self._pending[:here]
        self._left -= here
        if self._left > 2 or len(self._pending) < 2:
            return False
        if self._pending[:2] != b"\r\n":
            raise ChunkMissingTerminator(bytes(self._pending[:2]))
        del self._pending[:2]
        self._left = 0
        return True

    def _next_size(self) -> bool:
        """Read the next size line; True when it was the last one and the trailers are complete."""
        end = self._pending.find(b"\r\n")
        if end < 0:
            if len(self._pending) > _CHUNK_LINE_LIMIT:
                raise InvalidChunkSize(b"a line without end")
            return False
        try:
            size, _ = self.reader.parse_chunk_size(Received(bytes(self._pending[: end + 2])))
        except (NoMoreData, ChunkMissingTerminator):  # the last chunk: trailers follow
            return self._trailers()
        del self._pending[: end + 2]
        self._left = size + 2
        return False

    def _trailers(self) -> bool:
        source = Received(bytes(self._pending))
        try:
            self.reader.parse_chunk_size(source)
        except (NoMoreData, ChunkMissingTerminator):
            if len(self._pending) > _HEAD_LIMIT:
                raise LimitRequestHeaders("the trailers are too large") from None
            return False
        self.rest = source.take_buffered()
        self._pending.clear()
        return True


_Body = _Sized | _Chunked


def too_large(limit: int) -> InferenceError:
    return InferenceError(
        f"The body is larger than {limit // MB} MB, the limit that SAGEMAKER_MAX_PAYLOAD_IN_MB sets.", 413
    )
