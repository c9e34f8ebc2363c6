"""Connections between the standby and the workers, and what the kernel has of a call."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator

import pytest

from optml.serving.exchange import DEATH, KEEP, READING, RETURN, Exchange
from optml.serving.http.arrival import Size, await_bytes, size_of_call


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A client, and the server's side of its connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    with client, server:
        yield client, server


@pytest.fixture
def exchange() -> Iterator[Exchange]:
    exchange = Exchange(2)
    yield exchange
    for each in vars(exchange).values():
        if isinstance(each, socket.socket):
            each.close()


def test_a_duplicate_outlives_its_worker(
    exchange: Exchange, pair: tuple[socket.socket, socket.socket]
) -> None:
    client, server = pair
    exchange.keep(1, server)
    number = server.fileno()
    exchange.set_state(1, number, READING)
    exchange.report_death(1)
    server.close()
    message, row, kept, duplicate = exchange.receive() or (0, 0, 0, None)
    assert (message, row, kept) == (KEEP, 1, number) and duplicate is not None
    assert exchange.receive() == (DEATH, 1, 0, None)
    assert exchange.receive() is None
    assert (exchange.state(1, number), exchange.state(0, number)) == (READING, 0)
    client.sendall(b"unread")
    assert os.read(duplicate, 100) == b"unread"
    os.close(duplicate)


def test_a_call_keeps_its_clock_when_it_changes_hands(
    exchange: Exchange, pair: tuple[socket.socket, socket.socket]
) -> None:
    client, server = pair
    assert exchange.take() is None
    assert exchange.give_back(0, 7)
    assert exchange.receive() == (RETURN, 0, 7, None)
    assert exchange.give(server, 123_456_789_000)
    sock, since = exchange.take() or (None, 0)
    assert sock is not None and since == 123_456_789_000
    client.sendall(b"x")
    assert sock.recv(1) == b"x"
    sock.close()


def test_too_many_on_their_way_are_refused_and_not_waited_for(
    exchange: Exchange,
    pair: tuple[socket.socket, socket.socket],
) -> None:
    given = 0
    while exchange.give(pair[1], 0):
        given += 1
        assert given < 100_000
    while taken := exchange.take():
        taken[0].close()
        given -= 1
    assert given == 0


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (b"POST /invocations HTTP/1.1\r\nContent-Length: 3\r\n\r\n[1]", Size(52, 0)),
        (b"POST /invocations HTTP/1.1\r\ncontent-length:3\r\n\r\n[", Size(51, 2)),
        (b"POST /invocations HTTP/1.1\r\nHost: x\r\n\r\n", Size(39, 0)),
        (b"POST /invocations HTTP/1.1\r\nContent-Length: 3\r\n", None),  # the head is not complete
        (b"POST /invocations HTTP/1.1\r\nContent-Length: 99999\r\n\r\n[", None),  # too large
        (b"POST /invocations HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", None),
        (b"POST /invocations HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n", None),
        (b"GET /ping HTTP/1.1\r\n\r\n", None),
        (b"GET /metrics HTTP/1.1\r\n\r\n", None),
    ],
)
def test_the_size_of_a_call_is_told_without_taking_it(
    pair: tuple[socket.socket, socket.socket], data: bytes, size: Size | None
) -> None:
    client, server = pair
    client.sendall(data)
    assert select.select([server], [], [], 10)[0]
    assert size_of_call(server, "/invocations") == size
    assert server.recv(1 << 16) == data


def test_the_kernel_tells_when_the_rest_is_here(pair: tuple[socket.socket, socket.socket]) -> None:
    client, server = pair
    await_bytes(server, 10)
    client.sendall(b"12345")
    assert not select.select([server], [], [], 0.2)[0]
    client.sendall(b"67890")
    assert select.select([server], [], [], 10)[0]
