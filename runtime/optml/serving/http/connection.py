"""One client connection: bytes in, complete requests out, without ever waiting for the client.

The worker's loop reads piece by piece, so a slow client costs a socket and a few bytes, but neither a thread
nor a slot.

    request = connection.receive(data)         # a Request, or None while some of it is missing
    request = connection.receive(b"")          # the next one, if connection.has_input
    early = connection.take_input()            # what came after a request that ends HTTP here
"""

from __future__ import annotations

import socket
from functools import lru_cache
from typing import Any

from ..errors import InferenceError
from .body import Chunked, Sized, check_unfinished
from .payload import Bodies, Payload
from .request import Request, parse_head

_HEAD_LIMIT = 64 << 10
_USUAL_HEAD = 2 << 10


class Connection:
    """A socket and what has arrived on it.

    `request` is the request whose body is being read, `answering` whether a complete one awaits the end of
    its response, `closing` whether the connection only waits for its client to hang up, `outgoing` the rest
    of a response that the socket did not take at once, `rest` whether a full queue has just refused the
    client, `in_parts` whether its requests may arrive in parts.
    """

    __slots__ = (
        "_bodies", "_body", "_inbox", "_searched", "answering", "closing", "fd", "in_parts", "outgoing",
        "peer", "request", "rest", "seen", "server", "sock", "then_close",
    )  # fmt: skip

    def __init__(self, sock: socket.socket, peer: Any, server: Any, bodies: Bodies, now: float) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.peer = peer
        self.server = server
        self.seen = now
        self.request: Request | None = None
        self.answering = False
        self.closing = False
        self.outgoing = memoryview(b"")
        self.then_close = False
        self.rest = False
        self.in_parts = True
        self._bodies = bodies
        self._inbox = bytearray()
        self._searched = 0  # bytes of the inbox that contain no end of a head
        self._body: Sized | Chunked | None = None

    @property
    def has_input(self) -> bool:
        """Whether bytes of a further request have been read."""
        return bool(self._inbox)

    @property
    def is_fresh(self) -> bool:
        """Whether no part of a request has been read, and one may come."""
        return self.request is None and not self._inbox and not self.closing

    def wants_to_continue(self) -> bool:
        """Whether the client waits for a 100 before it sends the body; true only once."""
        if self.request is None or not self.request.expects_continue:
            return False
        self.request.expects_continue = False
        return True

    def is_idle(self) -> bool:
        """Whether nothing is in progress; also peeks at the socket."""
        on_its_way = self.answering or self.outgoing or self.request is not None or self._inbox
        if on_its_way or self.closing:
            return False
        try:
            return not self.sock.recv(1, socket.MSG_PEEK)
        except OSError:  # nothing there, or the client is gone
            return True

    def receive(self, data: bytes) -> Request | None:
        """Take bytes from the client. Returns the request, with its payload in `body`, once it is complete.

        Raises InferenceError for a malformed request, or one for which there is no room.
        """
        if self._body is None:
            head, data = self._cut_head(data)
            if not head:
                return None
            self._begin(head)
        assert self._body is not None
        if not self._body.write(data):
            return None
        self._inbox += self._body.rest
        request, self.request, self._body = self.request, None, None
        return request

    def take_input(self) -> bytes:
        """Remove and return what has been read after the last request."""
        data = bytes(self._inbox)
        self._inbox.clear()
        return data

    def drop(self) -> None:
        """Discard what the client, now gone or refused, was sending."""
        if self.request is not None:
            self.request.body.close()
        self.request = self._body = None
        self._inbox.clear()

    def _cut_head(self, data: bytes) -> tuple[bytes, bytes]:
        """A head up to and including its empty line, and what follows; both empty while it is incomplete."""
        if self._inbox:
            self._inbox += data
            end = self._inbox.find(b"\r\n\r\n", self._searched)
            data = self.take_input() if end >= 0 else b""
        else:
            end = data.find(b"\r\n\r\n")
        if end < 0:
            self._inbox += data
            check_unfinished(self._inbox, _HEAD_LIMIT, self._searched)
            self._searched = max(0, len(self._inbox) - 3)
            return b"", b""
        self._searched = 0
        return data[: end + 4], data[end + 4 :]

    def _begin(self, head: bytes) -> None:
        """Parse a head, and start to read the body of its request."""
        if len(head) > _HEAD_LIMIT:
            raise InferenceError(f"Headers of more than {_HEAD_LIMIT} bytes.", 431)
        request = _read_head(head).again() if len(head) <= _USUAL_HEAD else _read(head)
        request.peer = self.peer
        self.request = request
        request.body = Payload(self._bodies)
        if request.length is None:
            self._body = Chunked(request.body)
        else:
            self._bodies.check_length(request.length)
            self._body = Sized(request.length, request.body)


def _read(head: bytes) -> Request:
    return Request(*parse_head(head.removeprefix(b"\r\n")))  # an empty line before it is allowed


# Most clients repeat the same head: recognizing it is 10 times as fast as parsing it.
_read_head = lru_cache(64)(_read)
