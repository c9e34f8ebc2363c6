"""Bidirectional streaming: a WebSocket between a client and the user's stream_fn.

`websockets` implements the protocol; it is imported only if there is a stream_fn. A thread of the library
reads, so that pings are answered while user code runs; a client that sends faster than that code receives is
held back by its socket.
"""

from __future__ import annotations

import logging
import math
import socket
import time
from collections.abc import Iterator

from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request
from websockets.protocol import OPEN
from websockets.server import ServerProtocol
from websockets.sync.connection import Connection

from .call import Call
from .errors import InferenceError
from .host import Host

_PING_INTERVAL = 25.0  # seconds between pings
_USER_TIMEOUT = 25_000  # milliseconds after which a client's host that acknowledges nothing is gone
_TICK = 0.25  # seconds between checks whether the server stops
_CLOSE_TIMEOUT = 2.0  # seconds for the client to answer our close
_REASON_LIMIT = 123  # most bytes of a close reason

_LOG = logging.getLogger("optml.websocket")
_LOG.setLevel(logging.WARNING)  # else websockets logs each session


class Gone(ConnectionError):
    """The client has closed the session, or has vanished."""


def accept(method: str, headers: list[tuple[str, str]], version: tuple[int, int]) -> bytes:
    """The response that opens a WebSocket. Raises InferenceError for an invalid handshake."""
    if method != "GET":
        raise InferenceError("Use GET.", 405, {"Allow": "GET"})
    if version < (1, 1):  # which has no upgrade
        raise InferenceError("A WebSocket needs HTTP/1.1.", 426, {"Upgrade": "websocket"})
    answer = ServerProtocol(logger=_LOG).accept(Request("", Headers(headers)))
    if answer.status_code != 101:
        extra = {"Upgrade": "websocket"} if answer.status_code == 426 else {}
        raise InferenceError(bytes(answer.body).decode().splitlines()[0], answer.status_code, extra)
    return answer.serialize()


class Stream:
    """A session, as the user's stream_fn sees it.

    Iterate over it, or call `receive`, to get the client's messages, as `str` or `bytes`. Call `send` at any
    time, from any thread. Messages end when the client has closed or vanished, or when the server stops;
    stream_fn may then send a last message, and ends the session by returning.
    """

    def __init__(self, call: Call, host: Host) -> None:
        sock = call.connection.sock.dup()  # the library closes this one, and the loop its own
        sock.settimeout(host.settings.timeout)  # for sending
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _USER_TIMEOUT)
        protocol = ServerProtocol(state=OPEN, max_size=host.settings.max_payload, logger=_LOG)
        # Input that arrived with the handshake, before the library's thread reads more.
        protocol.receive_data(call.connection.take_input())
        # No ping timeout: a pong waits behind messages not yet received. The kernel detects a vanished host.
        self._websocket = Connection(
            sock, protocol, ping_interval=_PING_INTERVAL, ping_timeout=None, close_timeout=_CLOSE_TIMEOUT
        )
        self._take_events()
        self._websocket.start_keepalive()
        self._call = call
        self._host = host
        self._call.renew()

    def __iter__(self) -> Iterator[str | bytes]:
        while (message := self.receive()) is not None:
            yield message

    def receive(self, timeout: float | None = None) -> str | bytes | None:
        """The next message, or None after the last. Raises TimeoutError after `timeout` seconds."""
        end = math.inf if timeout is None else time.monotonic() + timeout
        try:
            while self._host.alive:
                self._call.pause()  # the client may take its time
                left = end - time.monotonic()
                try:
                    return self._websocket.recv(min(left, _TICK))
                except TimeoutError:
                    if self._websocket.state is not OPEN:
                        break  # all messages before the close have been received
                    if left <= _TICK:
                        raise TimeoutError(f"no message within {timeout:g} s") from None
        except ConnectionClosed:
            pass
        finally:
            self._call.renew()
        return None

    def send(self, data: str | bytes) -> None:
        """Send a text or a binary message. Raises Gone, a ConnectionError, if the client is gone."""
        if not isinstance(data, (str, bytes, bytearray, memoryview)):
            raise TypeError(f"send takes str or bytes, not a {type(data).__name__}")
        content = data.encode() if isinstance(data, str) else data
        self._call.pause()  # the socket has its own timeout
        try:
            self._websocket.send(content, text=isinstance(data, str))
        except ConnectionClosed:
            raise Gone("the client has closed the session or vanished") from None
        finally:
            self._call.renew()

    def close(self, code: int, reason: str) -> None:
        """End the session; a reason that is too long is cut off."""
        self._websocket.close(code, reason.encode(errors="replace")[:_REASON_LIMIT].decode(errors="ignore"))

    def _take_events(self) -> None:
        """Process input that the protocol has received, as the library's thread does after reading."""
        with self._websocket.protocol_mutex:
            events = self._websocket.protocol.events_received()
            self._websocket.send_data()
        for event in events:
            self._websocket.process_event(event)
