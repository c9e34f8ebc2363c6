"""Which connections the loop may close."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import Any
from unittest.mock import Mock

import pytest

from optml.serving.http.loop import Loop
from optml.serving.http.payload import Bodies

GET = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"


@pytest.fixture
def loop() -> Iterator[Loop]:
    owner: Any = Mock()  # reads everything and answers nothing
    loop = Loop(owner, Bodies(1000, 1 << 20), Mock())
    yield loop
    for connection in list(loop.connections.values()):
        loop.close(connection)
    loop._poller.close()
    os.close(loop._wake)


@pytest.mark.parametrize("pieces", [[ANSWER], [ANSWER[:20], ANSWER[20:]]])
def test_a_connection_is_not_idle_before_its_answer_has_left(loop: Loop, pieces: list[bytes]) -> None:
    client, server = socket.socketpair()
    connection = loop.adopt(server)
    assert connection is not None
    with client:
        client.settimeout(10)
        client.sendall(GET)
        loop.turn(10)
        loop.now += 1000  # seconds into its response, and it is no call on a slot
        for piece in pieces[:-1]:
            server.send(piece)  # slots send the parts of a stream themselves
        loop.close_idle(set())
        loop.close_silent(set())
        assert loop.holds(connection)
        loop.send(connection, pieces[-1], False)
        loop.close_idle(set())
        assert not loop.holds(connection)
        assert client.recv(1000) == ANSWER and client.recv(1000) == b""


def test_the_next_request_is_told_from_the_one_that_is_answered(loop: Loop) -> None:
    client, server = socket.socketpair()
    connection = loop.adopt(server)
    assert connection is not None
    with client:
        client.sendall(2 * GET)
        loop.turn(10)
        loop.send(connection, ANSWER, False)
        loop.turn(10)
        loop.close_idle(set())
        assert loop.holds(connection) and connection.answering
        loop.send(connection, ANSWER, True)
        assert not connection.answering
