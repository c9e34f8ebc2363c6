"""Requests are the same however the network cuts them up."""

from __future__ import annotations

import socket

import pytest
from gunicorn.config import Config
from hypothesis import given
from hypothesis import strategies as st

from optml.serving.errors import InferenceError
from optml.serving.http.connection import Connection

CONFIG = Config()
LIMIT = 1000

SIZED = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"POST /invocations HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3;name=value\r\nhel\r\n2\r\nlo\r\n0\r\nTrailer-Field: 1\r\n\r\n"
)
EMPTY = b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n"


class Pipe:
    """Stands for a socket: the connection under test only asks for its number."""

    def fileno(self) -> int:
        return -1


def requests(pieces: list[bytes]) -> list[tuple[str, bytes]]:
    """Path and body of every request in these pieces, as the loop of a worker would see them."""
    connection = Connection(Pipe(), ("1.2.3.4", 5), ("0.0.0.0", 8080), LIMIT, 0.0)  # type: ignore[arg-type]
    found = []
    for piece in pieces:
        request = connection.receive(piece, CONFIG)
        while request is not None:
            found.append((request.path, request.body.read()))
            request = connection.receive(b"", CONFIG) if connection.has_input else None
    return found


@given(
    st.lists(st.sampled_from([SIZED, CHUNKED, EMPTY]), min_size=1, max_size=4),
    st.lists(st.integers(1, 60), max_size=12),
)
def test_any_cut_gives_the_same_requests(sent: list[bytes], lengths: list[int]) -> None:
    data = b"".join(sent)
    pieces, start = [], 0
    for length in lengths:
        pieces.append(data[start : start + length])
        start += length
    pieces = [piece for piece in [*pieces, data[start:]] if piece]
    expected = [("/ping", b"") if one is EMPTY else ("/invocations", b"hello") for one in sent]
    assert requests(pieces) == expected


def test_byte_by_byte() -> None:
    data = CHUNKED + SIZED
    assert requests([data[i : i + 1] for i in range(len(data))]) == [("/invocations", b"hello")] * 2


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"NONSENSE\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: magic\r\n\r\n", 501),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nA: " + b"a" * 9000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"a" * 70_000, 431),
        (b"POST / HTTP/1.1\r\nContent-Length: 1001\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3E9\r\n" + b"a" * 1001, 413),
    ],
)
def test_what_is_refused(data: bytes, status: int) -> None:
    with pytest.raises(InferenceError) as refused:
        requests([data])
    assert refused.value.status == status


@given(st.binary(max_size=300))
def test_no_bytes_break_the_parser(data: bytes) -> None:
    """Garbage is waited on, or refused with a status of its own."""
    for prefix in (b"", b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"):
        try:
            requests([prefix + data])
        except InferenceError as refused:
            assert 400 <= refused.status < 600 and refused.status != 500


def test_the_version_of_an_answer_is_ours_at_most() -> None:
    connection = Connection(Pipe(), ("1.2.3.4", 5), ("0.0.0.0", 8080), LIMIT, 0.0)  # type: ignore[arg-type]
    request = connection.receive(EMPTY.replace(b"1.1", b"1.2"), CONFIG)
    assert request is not None and request.version == (1, 1)


def test_idle_is_what_has_nothing_on_its_way() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        connection = Connection(ours, None, None, LIMIT, 0.0)
        assert connection.is_idle()
        theirs.send(b"G")
        assert not connection.is_idle()
