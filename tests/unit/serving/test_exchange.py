"""Hand-over of connections between the standby and the workers, and calls left in the kernel."""

from __future__ import annotations

import math
import os
import resource
import select
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from optml.serving.exchange import READING, UNREAD, UNTAKEN, Exchange
from optml.serving.http.arrival import Size, await_bytes, size_of_call
from optml.serving.http.connection import Connection
from optml.serving.scoreboard import READY, Scoreboard
from optml.serving.settings import Settings
from optml.serving.standby import Standby


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
    ends = [exchange.at_standby, exchange._to_standby, *exchange.at_workers, *exchange._to_workers]
    for end in ends:
        end.close()


def standby_of(exchange: Exchange) -> Standby:
    """The standby of two ready workers."""
    scoreboard = Scoreboard(2)
    for row in (0, 1):
        scoreboard.begin(row)
        scoreboard.set_state(row, READY)
    settings = Settings({"SAGEMAKER_MODEL_SERVER_ACCESS_LOG": "off"})
    app: Any = SimpleNamespace(scoreboard=scoreboard, exchange=exchange, settings=settings, planned_workers=2)
    return Standby(app, Mock(accept=Mock(side_effect=BlockingIOError)))  # nobody connects


def placed(exchange: Exchange, server: socket.socket) -> tuple[Standby, Connection]:
    """A standby that has handed a connection to worker 0."""
    standby = standby_of(exchange)
    connection = standby.loop.adopt(server.dup())
    assert connection is not None and standby.place(connection)
    return standby, connection


def kept(exchange: Exchange) -> tuple[socket.socket, int]:
    """The connection that worker 0 has taken, and its token."""
    taken, _ = exchange.take(0, 1) or (None, 0)
    assert taken is not None
    token = max(exchange.states(0))  # others are 0
    return taken, token


def test_a_connection_outlives_its_worker_and_so_does_how_far_it_was(
    exchange: Exchange, pair: tuple[socket.socket, socket.socket]
) -> None:
    client, server = pair
    assert exchange.hand_over(1, server, 5, 77, 0)
    taken, since = exchange.take(1, 5) or (None, None)
    assert taken is not None and since == 0
    assert exchange.states(1)[77] == UNREAD
    exchange.set_state(1, taken.fileno(), READING)
    taken.close()  # the worker dies
    assert exchange.states(1)[77] == READING
    assert 77 not in exchange.states(0)
    client.sendall(b"unread")
    assert server.recv(100) == b"unread"


def test_what_a_dead_worker_had_not_taken_is_not_for_the_next_one(
    exchange: Exchange, pair: tuple[socket.socket, socket.socket]
) -> None:
    assert exchange.hand_over(1, pair[1], 5, 77, 0)
    assert exchange.take(1, 6) is None
    assert exchange.states(1) == {}


def test_what_is_not_taken_can_be_had_back(
    exchange: Exchange, pair: tuple[socket.socket, socket.socket]
) -> None:
    assert exchange.waits_untaken(0) is None
    before = time.monotonic_ns()
    assert exchange.hand_over(0, pair[1], 1, 7, 0)
    assert exchange.hand_over(0, pair[1], 1, 8, 123)
    assert (exchange.waits_untaken(0) or 0) > 0
    clocks = exchange.take_back(0)
    assert [*clocks] == [7, 8]
    assert before <= clocks[7] <= time.monotonic_ns() and clocks[8] == 123
    assert exchange.take(0, 1) is None


def test_a_call_keeps_its_clock_when_it_changes_hands(
    exchange: Exchange, pair: tuple[socket.socket, socket.socket]
) -> None:
    assert exchange.hand_over(0, pair[1], 1, 7, 123_456_789_000)
    taken, since = exchange.take(0, 1) or (None, None)
    assert taken is not None and since == 123_456_789_000
    exchange.set_state(0, taken.fileno(), 456)
    assert exchange.give_back(0, taken.fileno())
    taken.close()
    assert exchange.receive() == (7, 456)
    exchange.report_death()
    assert exchange.receive() == (0, 0)
    assert exchange.receive() is None


@pytest.mark.parametrize("stops", [False, True])
def test_a_worker_keeps_what_no_standby_has_a_duplicate_of(
    exchange: Exchange, pair: tuple[socket.socket, socket.socket], stops: bool
) -> None:
    standby, connection = placed(exchange, pair[1])
    taken, token = kept(exchange)
    assert exchange.give_back(0, taken.fileno()) and exchange.receive() == (token, UNREAD)
    if stops:
        standby.hand_over_rest()
    else:
        standby_of(exchange)  # replaces one that died
    assert not exchange.give_back(0, taken.fileno())
    assert exchange.receive() is None
    taken.close()
    standby.loop.close(connection)


def test_what_was_given_back_before_the_stop_is_handed_over(
    exchange: Exchange, pair: tuple[socket.socket, socket.socket]
) -> None:
    standby, connection = placed(exchange, pair[1])
    taken, _ = kept(exchange)
    assert exchange.give_back(0, taken.fileno())
    taken.close()
    standby.hand_over_rest()
    again, _ = exchange.take(1, 1) or (None, None)
    assert again is not None
    again.close()
    standby.loop.close(connection)


def test_a_call_that_waits_as_the_server_stops_keeps_its_clock(
    exchange: Exchange, pair: tuple[socket.socket, socket.socket]
) -> None:
    standby = standby_of(exchange)
    connection = standby.loop.adopt(pair[1].dup())
    assert connection is not None
    for row in (0, 1):
        standby.blocked[row] = math.inf  # no worker takes anything
    assert standby.place(connection)
    came = time.monotonic_ns()
    standby.blocked.clear()
    standby.hand_over_rest()
    taken, since = exchange.take(0, 1) or (None, 0)
    assert taken is not None and 0 < since <= came
    taken.close()
    standby.loop.close(connection)


@pytest.mark.parametrize("dies", [False, True])
def test_a_call_keeps_its_clock_when_its_worker_is_silent_or_dies_before_it_takes_it(
    exchange: Exchange, pair: tuple[socket.socket, socket.socket], dies: bool
) -> None:
    standby, connection = placed(exchange, pair[1])
    came = time.monotonic_ns()
    time.sleep(0.11)  # longer than the standby waits for a worker
    if dies:
        standby.scoreboard.end(0)
        standby.look_at_workers()
        if connection in standby.waiting:
            standby.offer_again(connection)
    else:
        standby.look_at_untaken()
    taken, since = exchange.take(1, 1) or (None, 0)
    assert taken is not None and 0 < since <= came
    taken.close()
    standby.loop.close(connection)


@contextmanager
def no_more_files() -> Iterator[None]:
    """Leave this process no free file descriptor."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_what_a_worker_has_no_number_for_is_refused(
    exchange: Exchange, pair: tuple[socket.socket, socket.socket]
) -> None:
    client, server = pair
    standby, connection = placed(exchange, server)
    with no_more_files():
        assert exchange.take(0, 1) is None
    standby.on_message()
    standby.loop.turn(10)
    client.settimeout(10)
    assert client.recv(1000).startswith(b"HTTP/1.1 503 ")
    assert not standby.handed
    standby.loop.close(connection)


def test_what_a_worker_could_not_note_is_refused_as_well(
    exchange: Exchange, pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker's limit of open files may be higher than the exchange has room for."""
    monkeypatch.setattr("optml.serving.exchange.NUMBERS", 1)
    client, server = pair
    assert exchange.hand_over(0, server, 1, 7, 0)
    assert exchange.take(0, 1) is None
    assert exchange.receive() == (7, UNTAKEN)
    server.close()
    client.settimeout(10)
    assert client.recv(1) == b""  # no duplicate is open any more


def test_a_standby_without_a_number_has_all_back(
    exchange: Exchange, pair: tuple[socket.socket, socket.socket]
) -> None:
    assert exchange.hand_over(0, pair[1], 1, 7, 0) and exchange.hand_over(0, pair[1], 1, 8, 0)
    with no_more_files():
        assert [*exchange.take_back(0)] == [7, 8]


def test_too_many_on_their_way_are_refused_and_not_waited_for(
    exchange: Exchange, pair: tuple[socket.socket, socket.socket]
) -> None:
    sent = 0
    while exchange.hand_over(0, pair[1], 1, sent, 0):
        sent += 1
        assert sent < 100_000
    assert len(exchange.take_back(0)) == sent


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
