"""Requests are the same however the network splits them, and as another parser reads them."""

from __future__ import annotations

import socket

import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optml.serving.errors import InferenceError
from optml.serving.http.connection import Connection
from optml.serving.http.payload import Bodies
from optml.serving.http.request import Request, parse_head

LIMIT = 1000
HOST = b"Host: x\r\n"
POST = b"POST / HTTP/1.1\r\n" + HOST
CODED = POST + b"Transfer-Encoding: chunked\r\n\r\n"

SIZED = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"POST /invocations HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3;name=value\r\nhel\r\n2\r\nlo\r\n0\r\nTrailer-Field: 1\r\n\r\n"
)
EMPTY = b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n"


class Pipe:
    """A fake socket: the connection under test only asks for its file descriptor."""

    def fileno(self) -> int:
        return -1


def connect() -> Connection:
    bodies = Bodies(LIMIT, 1 << 20)
    return Connection(Pipe(), ("1.2.3.4", 5), ("0.0.0.0", 8080), bodies, 0.0)  # type: ignore[arg-type]


def read(pieces: list[bytes]) -> list[Request]:
    """Every request in these pieces, as a worker's loop would see them."""
    connection, found = connect(), []
    for piece in pieces:
        request = connection.receive(piece)
        while request is not None:
            found.append(request)
            request = connection.receive(b"") if connection.has_input else None
    return found


def requests(pieces: list[bytes]) -> list[tuple[str, bytes]]:
    """Path and body of every request in these pieces."""
    return [(request.path, request.body.read()) for request in read(pieces)]


def outcome(pieces: list[bytes]) -> object:
    """All attributes of the requests, or the status of the refusal."""
    try:
        return [(r.method, r.target, r.version, r.headers, r.closes, r.body.read()) for r in read(pieces)]
    except InferenceError as refused:
        return refused.status


@given(
    sent=st.lists(st.sampled_from([SIZED, CHUNKED, EMPTY]), min_size=1, max_size=4),
    lengths=st.lists(st.integers(1, 60), max_size=12),
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


ACCEPTED = {
    "an empty line before it": (b"\r\n" + EMPTY, "/ping"),
    "a method that only users know": (b"BREW /pot HTTP/1.1\r\nHost: x\r\n\r\n", "/pot"),
    "absolute form": (b"GET http://x:8080/ping?a=b HTTP/1.1\r\nHost: x\r\n\r\n", "/ping"),
    "absolute form without path": (b"GET http://x?a HTTP/1.1\r\nHost: x\r\n\r\n", "/"),
    "two slashes": (b"GET //a/b HTTP/1.1\r\nHost: x\r\n\r\n", "//a/b"),
    "a fragment": (b"GET /a?b#c HTTP/1.1\r\nHost: x\r\n\r\n", "/a"),
    "asterisk form": (b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", "*"),
    "authority form": (b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n", "x:1"),
    "HTTP/1.2": (b"GET /a HTTP/1.2\r\nHost: x\r\n\r\n", "/a"),
    "HTTP/1.0 without Host": (b"GET /a HTTP/1.0\r\n\r\n", "/a"),
    "upgrade": (b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n", "/a"),
    "an empty value": (b"GET /a HTTP/1.1\r\nHost:\r\n\r\n", "/a"),
    "chunks in capitals": (
        POST + b"Transfer-Encoding: Chunked\r\n\r\nA\r\n" + b"a" * 10 + b"\r\n00\r\n\r\n",
        "/",
    ),
    "an extension in quotes": (CODED + b'1 ; a = "\\";" ;b\r\nx\r\n0\r\n\r\n', "/"),
    "zeros before the length": (POST + b"Content-Length: 0001\r\n\r\nx", "/"),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_what_is_accepted(case: str) -> None:
    data, path = ACCEPTED[case]
    whole = outcome([data])
    assert isinstance(whole, list) and [request.path for request in read([data])] == [path]
    for cut in range(1, len(data)):
        assert outcome([data[:cut], data[cut:]]) == whole, data[:cut]


REFUSED = {
    "nonsense": (b"NONSENSE\r\n\r\n", 400),
    "nothing": (b"\r\n\r\n\r\n\r\n", 400),
    "a method in small letters": (b"get / HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "two spaces": (b"GET  / HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "a space at the end": (b"GET / HTTP/1.1 \r\n" + HOST + b"\r\n", 400),
    "no version": (b"GET /\r\n" + HOST + b"\r\n", 400),
    "HTTP/0.9": (b"GET / HTTP/0.9\r\n" + HOST + b"\r\n", 505),
    "HTTP/2.0": (b"PRI * HTTP/2.0\r\n\r\n", 505),
    "RTSP": (b"GET / RTSP/1.0\r\n" + HOST + b"\r\n", 400),
    "no path": (b"GET x HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "asterisk for GET": (b"GET * HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "a byte beyond ASCII in the target": (b"GET /\xe9 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "no Host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two Hosts": (b"GET / HTTP/1.1\r\n" + HOST * 2 + b"\r\n", 400),
    "two types": (POST + b"Content-Type: a/b\r\nContent-Type: a/b\r\n\r\n", 400),
    "a bare LF after the first line": (b"GET / HTTP/1.1\nHost: x\r\n\r\n", 400),
    "a bare LF after a header": (b"GET / HTTP/1.1\r\nHost: x\nA: b\r\n\r\n", 400),
    "bare LFs alone": (b"GET / HTTP/1.1\nHost: x\n\n", 400),
    "a bare CR": (POST + b"A: b\rc\r\n\r\n", 400),
    "a folded header": (POST + b"A: b\r\n c\r\n\r\n", 400),
    "a folded first header": (b"GET / HTTP/1.1\r\n Host: x\r\n\r\n", 400),
    "a space before the colon": (POST + b"Content-Length : 5\r\n\r\n", 400),
    "no colon": (POST + b"A\r\n\r\n", 400),
    "no name": (POST + b": a\r\n\r\n", 400),
    "NUL": (POST + b"A: \0\r\n\r\n", 400),
    "DEL": (POST + b"A: \x7f\r\n\r\n", 400),
    "length and chunks": (POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    "chunks and length": (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", 400),
    "two lengths": (POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 400),
    "two lengths in one": (POST + b"Content-Length: 5, 5\r\n\r\nhello", 400),
    "a length below zero": (POST + b"Content-Length: -5\r\n\r\n", 400),
    "a length with a sign": (POST + b"Content-Length: +5\r\n\r\nhello", 400),
    "a length in digits of others": (POST + b"Content-Length: \xb2\r\n\r\n", 400),
    "no length": (POST + b"Content-Length:\r\n\r\n", 400),
    "a length of thousands of digits": (POST + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n", 413),
    "chunks in HTTP/1.0": (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "chunks twice": (POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n", 400),
    "chunks not last": (POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n", 400),
    "two codings": (POST + b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    "no chunks": (POST + b"Transfer-Encoding: identity\r\nContent-Length: 5\r\n\r\n", 400),
    "an empty coding": (POST + b"Transfer-Encoding:\r\n\r\n", 400),
    "gzip in chunks": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    "an unknown coding": (POST + b"Transfer-Encoding: magic\r\n\r\n", 501),
    "another expectation": (POST + b"Expect: cake\r\n\r\n", 417),
    "a size that is none": (CODED + b"xyz\r\n", 400),
    "a size with a sign": (CODED + b"+1\r\na\r\n0\r\n\r\n", 400),
    "a size with 0x": (CODED + b"0x1\r\na\r\n0\r\n\r\n", 400),
    "a size with an underscore": (CODED + b"1_0\r\n", 400),
    "a size with a space": (CODED + b"1 \r\na\r\n0\r\n\r\n", 400),
    "an empty size": (CODED + b"\r\n", 400),
    "a size of many digits": (CODED + b"f" * 17 + b"\r\n", 400),
    "a size that ends in LF": (CODED + b"1\na\r\n0\r\n\r\n", 400),
    "an extension with CR": (CODED + b"1;a\rb\r\na\r\n0\r\n\r\n", 400),
    "an extension without name": (CODED + b"1;;\r\na\r\n0\r\n\r\n", 400),
    "more than a chunk's size": (CODED + b"1\r\nabc", 400),
    "a chunk that ends in LF": (CODED + b"1\r\na\n0\r\n\r\n", 400),
    "a length among the trailers": (CODED + b"0\r\nContent-Length: 5\r\n\r\n", 400),
    "trailers that end in LF": (CODED + b"0\r\nA: b\n\n", 400),
    "a trailer that is none": (CODED + b"0\r\nA\r\n\r\n", 400),
    "a long first line": (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414),
    "a long header": (POST + b"A: " + b"a" * 9000 + b"\r\n\r\n", 431),
    "many headers": (POST + b"A: b\r\n" * 100 + b"\r\n", 431),
    "many bytes of headers": (POST + (b"A: " + b"a" * 8000 + b"\r\n") * 9 + b"\r\n", 431),
    "headers without end": (b"GET / HTTP/1.1\r\n" + b"a" * 70_000, 431),
    "trailers without end": (CODED + b"0\r\n" + (b"A: " + b"b" * 65 + b"\r\n") * 1000, 431),
    "too many trailers": (CODED + b"0\r\n" + b"A:\r\n" * 20_000, 431),
    "a size line without end": (CODED + b"1;" + b"a" * 9000, 431),
    "a large body": (POST + b"Content-Length: 1001\r\n\r\n", 413),
    "large chunks": (CODED + b"3E9\r\n" + b"a" * 1001, 413),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case: str) -> None:
    data, status = REFUSED[case]
    assert outcome([data]) == status
    cuts = 200 if len(data) < 10_000 else 20
    for cut in range(1, len(data), max(1, len(data) // cuts)):
        assert outcome([data[:cut], data[cut:]]) == status, data[:cut]


MUTATED = [*(data for data, _ in ACCEPTED.values()), *(data for data, _ in REFUSED.values()), SIZED, CHUNKED]


class Seen:
    """Callbacks for llhttp, which record what it finds."""

    def __init__(self) -> None:
        self.target = b""
        self.headers: list[tuple[str, str]] = []

    def on_url(self, target: bytes) -> None:
        self.target += target

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.decode().upper(), value.decode("latin-1").strip(" \t")))


@settings(max_examples=1500)
@given(
    whole=st.sampled_from([data for data in MUTATED if len(data) < 300]),
    edits=st.lists(
        st.tuples(
            st.integers(0, 300), st.integers(0, 3), st.binary(max_size=3) | st.sampled_from([b" ", b"\r\n"])
        ),
        max_size=3,
    ),
)
def test_what_is_taken_means_the_same_to_llhttp(whole: bytes, edits: list[tuple[int, int, bytes]]) -> None:
    """The parser of Node.js may refuse it, but does not read it differently."""
    for at, length, new in edits:
        whole = whole[:at] + new + whole[at + length :]
    head = whole.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    seen = Seen()
    llhttp = httptools.HttpRequestParser(seen)
    try:
        method, target, version, headers = parse_head(head)
        llhttp.feed_data(head)
    except httptools.HttpParserUpgrade:
        pass
    except (InferenceError, httptools.HttpParserError):
        return
    assert (method, target, headers) == (llhttp.get_method().decode(), seen.target.decode(), seen.headers)
    assert llhttp.get_http_version() == f"{version[0]}.{version[1]}"


def test_equal_heads_have_their_own_bodies() -> None:
    one, two = read([SIZED + SIZED.replace(b"hello", b"world")])
    assert one is not two and one.headers == two.headers
    assert (one.body.read(), two.body.read()) == (b"hello", b"world")
    waiting = POST + b"Expect: 100-continue\r\nContent-Length: 1\r\n\r\n"
    for _ in range(2):
        connection = connect()
        assert connection.receive(waiting) is None and connection.wants_to_continue()


@given(data=st.binary(max_size=300))
def test_no_bytes_break_the_parser(data: bytes) -> None:
    """Garbage is incomplete, or refused with a status other than 500."""
    for prefix in (b"", CODED):
        status = outcome([prefix + data])
        assert isinstance(status, list) or (400 <= status < 600 and status != 500)  # type: ignore[operator]


def test_the_head_in_full() -> None:
    (request,) = read(
        [
            b"POST /a%20b?c=d&e HTTP/1.1\r\nHost: x\r\nX-Two: \t one \xe9 \r\nx-two: two\r\nX_Two: three\r\n"
            b"Content-Length: 2\r\n\r\n[]"
        ]
    )
    assert (request.method, request.path, request.query) == ("POST", "/a%20b", "c=d&e")
    assert request.headers == [
        ("HOST", "x"),
        ("X-TWO", "one \xe9"),
        ("X-TWO", "two"),  # X_TWO is removed: WSGI could not tell them apart
        ("CONTENT-LENGTH", "2"),
    ]
    assert (request.version, request.peer, request.body.read()) == ((1, 1), ("1.2.3.4", 5), b"[]")


@pytest.mark.parametrize(
    ("version", "connection", "closes"),
    [
        ("1.1", None, False),
        ("1.1", "Close", True),
        ("1.1", "upgrade, close", True),
        ("1.1", "keep-alive", False),
        ("1.0", None, True),
        ("1.0", "Keep-Alive", False),
        ("1.0", "upgrade", True),
    ],
)
def test_whether_the_connection_ends(version: str, connection: str | None, closes: bool) -> None:
    line = f"Connection: {connection}\r\n" if connection else ""
    (request,) = read([f"GET / HTTP/{version}\r\nHost: x\r\n{line}\r\n".encode()])
    assert request.closes is closes


@pytest.mark.parametrize(("version", "waits"), [("1.1", True), ("1.0", False)])
def test_a_client_waits_for_100_once(version: str, waits: bool) -> None:
    connection = connect()
    head = f"POST / HTTP/{version}\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n"
    assert connection.receive(head.encode()) is None
    assert connection.wants_to_continue() is waits
    assert not connection.wants_to_continue()
    request = connection.receive(b"x")
    assert request is not None and request.body.read() == b"x"


def test_the_version_of_a_request_is_ours_at_most() -> None:
    (request,) = read([EMPTY.replace(b"1.1", b"1.2")])
    assert request.version == (1, 1)


def test_what_comes_after_a_request_is_kept() -> None:
    connection = connect()
    assert connection.receive(EMPTY + b"\x81\x00") is not None
    assert connection.has_input
    assert connection.take_input() == b"\x81\x00"
    assert not connection.has_input


def test_idle_is_what_has_nothing_on_its_way() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        connection = Connection(ours, None, None, Bodies(LIMIT, LIMIT), 0.0)
        assert connection.is_idle()
        theirs.send(b"G")
        assert not connection.is_idle()
