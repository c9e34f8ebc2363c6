"""A stream as stream_fn sees it, over a local socket."""

from __future__ import annotations

import math
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Close
from websockets.protocol import Protocol, Side
from websockets.sync.connection import Connection

from optml.serving.errors import InferenceError
from optml.serving.slots import Call
from optml.serving.websocket import Gone, Stream, accept

HANDSHAKE = [
    ("CONNECTION", "keep-alive, Upgrade"),
    ("UPGRADE", "websocket"),
    ("SEC-WEBSOCKET-KEY", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("SEC-WEBSOCKET-VERSION", "13"),
]


class Session:
    """Both ends of an open session."""

    def __init__(self, timeout: float = 60, early: bytes = b"") -> None:
        with closing(socket.create_server(("127.0.0.1", 0))) as listener:
            ours = socket.create_connection(listener.getsockname())
            theirs, _ = listener.accept()
        self.client = Connection(ours, Protocol(Side.CLIENT), ping_interval=None)
        nothing: Any = None
        connection: Any = SimpleNamespace(sock=theirs, take_input=lambda: early)
        self.call = Call(nothing, connection, "id", time.monotonic(), timeout)
        settings = SimpleNamespace(timeout=timeout, max_payload=1000)
        self.host: Any = SimpleNamespace(settings=settings, alive=True)
        with theirs:  # the stream has a duplicate
            self.stream = Stream(self.call, self.host)


@pytest.fixture
def session() -> Iterator[Session]:
    session = Session()
    yield session
    session.client.close_socket()
    session.stream.close(1000, "")


def test_the_answer_of_the_rfc() -> None:
    opening = accept("GET", HANDSHAKE, (1, 1))
    assert opening.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    assert b"\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in opening


@pytest.mark.parametrize(
    ("method", "headers", "status", "expected"),
    [
        ("POST", HANDSHAKE, 405, {"Allow": "GET"}),
        ("GET", [], 426, {"Upgrade": "websocket"}),
        ("GET", HANDSHAKE[1:], 426, {"Upgrade": "websocket"}),
        ("GET", HANDSHAKE[:2], 400, {}),
        ("GET", HANDSHAKE[:3], 400, {}),
        ("GET", HANDSHAKE + HANDSHAKE[2:3], 400, {}),
    ],
)
def test_what_is_no_handshake(
    method: str, headers: list[tuple[str, str]], status: int, expected: dict[str, str]
) -> None:
    with pytest.raises(InferenceError) as refused:
        accept(method, headers, (1, 1))
    assert (refused.value.status, refused.value.headers) == (status, expected)


def test_http_1_0_knows_no_upgrade() -> None:
    with pytest.raises(InferenceError, match="A WebSocket needs") as refused:
        accept("GET", HANDSHAKE, (1, 0))
    assert (refused.value.status, refused.value.headers) == (426, {"Upgrade": "websocket"})


WORD = st.text(st.sampled_from([chr(code) for code in (*range(32, 127), *range(128, 256))]), max_size=30)
HEADER = st.sampled_from(HANDSHAKE) | st.tuples(st.sampled_from([*dict(HANDSHAKE), "ORIGIN"]), WORD)


@given(st.lists(HEADER, max_size=8))
def test_any_headers_open_a_session_or_are_the_clients_fault(headers: list[tuple[str, str]]) -> None:
    try:
        assert accept("GET", headers, (1, 1))
    except InferenceError as error:
        assert error.status in (400, 426)


def test_what_came_with_the_handshake_is_received_first() -> None:
    text, ping = b"\x81\x83\0\0\0\0one", b"\x89\x80\0\0\0\0"
    for cut in range(len(text) + 1):  # the rest arrives as usual
        session = Session(early=(ping + text)[: len(ping) + cut])
        session.client.socket.sendall(text[cut:] + text.replace(b"one", b"two"))
        assert [session.stream.receive(10), session.stream.receive(10)] == ["one", "two"]
        session.client.close_socket()
        session.stream.close(1000, "")


def test_what_came_before_the_end_is_received(session: Session) -> None:
    for message in ("one", b"two"):
        session.client.send(message)
    threading.Thread(target=session.client.close).start()
    assert list(session.stream) == ["one", b"two"]
    assert session.stream.receive(timeout=0) is None
    with pytest.raises(Gone):
        session.stream.send("too late")


def test_a_message_is_waited_for_as_long_as_asked(session: Session) -> None:
    for timeout in (0, 0.1, 0.6):
        began = time.monotonic()
        with pytest.raises(TimeoutError, match=f"no message within {timeout:g} s"):
            session.stream.receive(timeout)
        assert timeout <= time.monotonic() - began < timeout + 5
    session.client.send("here")
    assert session.stream.receive(5) == "here"


def test_time_runs_for_the_users_code_alone(session: Session) -> None:
    assert 50 < session.call.limit - time.monotonic() <= 60
    waiting = threading.Thread(target=session.stream.receive)
    waiting.start()
    time.sleep(0.1)
    assert session.call.limit == math.inf
    session.stream.send("from another thread")
    time.sleep(0.5)
    assert session.call.limit == math.inf
    session.client.send("here")
    waiting.join(10)
    assert 50 < session.call.limit - time.monotonic() <= 60


def test_a_stop_ends_the_iteration_and_leaves_a_last_word(session: Session) -> None:
    threading.Timer(0.3, lambda: setattr(session.host, "alive", False)).start()
    assert list(session.stream) == []
    session.stream.send("goodbye")
    assert session.client.recv(timeout=10) == "goodbye"


def test_what_cannot_be_sent_is_said_and_harms_nothing(session: Session) -> None:
    for data in ({"a": 1}, ["text"], None, 1):
        with pytest.raises(TypeError, match=f"not a {type(data).__name__}"):
            session.stream.send(data)  # type: ignore[arg-type]
    with pytest.raises(UnicodeEncodeError):
        session.stream.send("\ud800")
    session.stream.send("fine")
    assert session.client.recv(timeout=10) == "fine"


@pytest.mark.parametrize(("reason", "sent"), [("ä" * 100, "ä" * 61), ("\ud800", "?"), ("", "")])
def test_a_reason_is_cut_to_what_a_frame_holds(session: Session, reason: str, sent: str) -> None:
    closing = threading.Thread(target=session.stream.close, args=(1011, reason))
    closing.start()
    assert session.client.wait_closed(10)
    assert session.client.protocol.close_rcvd == Close(1011, sent)
    closing.join(10)
