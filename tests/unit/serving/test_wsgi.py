"""WSGI as PEP 3333 specifies it, without a socket."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from typing import Any
from wsgiref.validate import validator

import pytest

from optml.serving.http.payload import Payload
from optml.serving.http.request import Request
from optml.serving.http.response import InvalidResponse
from optml.serving.http.wsgi import WSGIAnswer, environ, run

from .test_response import received

Pieces = list[bytes]


def request(method: str = "GET", *headers: tuple[str, str], body: bytes = b"") -> Request:
    found = Request(method, "/a%20b?c=d", (1, 1), [("HOST", "x:1"), *headers])
    found.peer, found.body = ("1.2.3.4", 5), Payload()
    found.body.write(body)
    return found


def answer(app: Any, asked: Request | None = None) -> tuple[WSGIAnswer, Pieces]:
    """The application's response, and the pieces in which it is sent."""
    asked, pieces = asked or request(), []
    response = WSGIAnswer(asked, pieces.append, False)
    run(app, environ(asked, ("0.0.0.0", 8080), True), response)
    return response, pieces


def test_an_application_by_the_book(recwarn: pytest.WarningsRecorder) -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response(
            "201 Created", [("Content-Type", "text/plain"), ("Set-Cookie", "a"), ("Set-Cookie", "b")]
        )
        yield environ["wsgi.input"].read(10)

    response, pieces = answer(validator(app), request("POST", ("CONTENT-LENGTH", "3"), body=b"abc"))
    status, headers, body, rest = received(b"".join(pieces))
    assert (status, body, rest) == (201, b"abc", b"")
    assert [value for name, value in headers if name == "Set-Cookie"] == ["a", "b"]
    assert not response.closes


def test_the_environ() -> None:
    asked = request("POST", ("CONTENT-TYPE", "a/b"), ("X-A", "1"), ("X-A", "2"), body=b"abc")
    variables = environ(asked, ("0.0.0.0", 8080), True)
    assert isinstance(variables.pop("wsgi.input"), io.BytesIO)
    assert variables == {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/a b",
        "QUERY_STRING": "c=d",
        "RAW_URI": "/a%20b?c=d",
        "SERVER_NAME": "0.0.0.0",
        "SERVER_PORT": "8080",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "1.2.3.4",
        "CONTENT_TYPE": "a/b",
        "HTTP_HOST": "x:1",
        "HTTP_X_A": "1,2",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    asked.peer = ""  # of a Unix socket
    assert environ(asked, "", False)["SERVER_NAME"] == "localhost"


@pytest.mark.parametrize("length", [None, "5"])
def test_parts_leave_as_they_come(length: str | None) -> None:
    sent_before: list[int] = []

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Length", length)] if length else [])
        for part in (b"", b"he", b"", b"llo"):
            sent_before.append(len(pieces))
            yield part

    asked, pieces = request(), []
    response = WSGIAnswer(asked, pieces.append, False)
    run(app, environ(asked, ("0.0.0.0", 8080), True), response)
    assert sent_before == [0, 0, 1, 1]
    assert received(b"".join(pieces))[2] == b"hello" and not response.closes


def test_write() -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])(b"he")
        return [b"llo"]

    pieces = answer(app)[1]
    assert received(b"".join(pieces))[2] == b"hello" and len(pieces) == 3


def test_an_empty_answer_is_one_piece() -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("404 Not Found", [])
        return []

    (piece,) = answer(app)[1]
    status, headers, body, rest = received(piece)
    assert (status, dict(headers)["Content-Length"], body, rest) == (404, "0", b"", b"")


def test_a_head_has_no_body() -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Length", "5")])
        return [b"hello"]

    (piece,) = answer(app, request("HEAD"))[1]
    status, headers, body, rest = received(piece, "HEAD")
    assert (status, dict(headers)["Content-Length"], body, rest) == (200, "5", b"", b"")


class Parts:
    """An iterable that may fail, and counts how often it is closed."""

    closed = 0

    def __init__(self, *parts: Any) -> None:
        self.parts = iter(parts)

    def __iter__(self) -> Parts:
        return self

    def __next__(self) -> Any:
        part = next(self.parts)
        if isinstance(part, Exception):
            raise part
        return part

    def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize("parts", [(), (b"a",), (OSError(),), (b"a", TimeoutError()), ("text",), (None,)])
def test_what_it_gives_is_closed_however_it_ends(parts: tuple[Any, ...]) -> None:
    iterable = Parts(*parts)

    def app(environ: Any, start_response: Any) -> Parts:
        start_response("200 OK", [])
        return iterable

    fails = bool(parts) and not isinstance(parts[-1], bytes)
    try:
        answer(app)
    except (OSError, TypeError):
        assert fails
    else:
        assert not fails
    assert iterable.closed == 1


def test_what_is_sent_fails_and_it_is_closed() -> None:
    iterable, asked = Parts(b"a"), request()

    def app(environ: Any, start_response: Any) -> Parts:
        start_response("200 OK", [])
        return iterable

    def send(data: bytes) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        run(app, environ(asked, "", False), WSGIAnswer(asked, send, False))
    assert iterable.closed == 1


def test_an_error_replaces_what_has_not_been_sent() -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Length", "100")])
        try:
            raise ValueError
        except ValueError:
            start_response("500 Oh", [], sys.exc_info())
        return [b"sorry"]

    status, _, body, rest = received(b"".join(answer(app)[1]))
    assert (status, body, rest) == (500, b"sorry", b"")


def test_an_error_after_the_first_part_is_the_server_s() -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"a"
        try:
            raise ValueError("late")
        except ValueError:
            start_response("500 Oh", [], sys.exc_info())

    with pytest.raises(ValueError, match="late"):
        answer(app)


@pytest.mark.parametrize(
    ("status", "headers"),
    [("100 Continue", []), ("OK", []), ("200 OK", [("A", "b\n")]), ("200 OK", [("Content-Length", "x")])],
)
def test_what_http_cannot_carry(status: str, headers: list[tuple[str, str]]) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response(status, headers)
        return [b"a"]

    pieces: Pieces = []
    with pytest.raises(InvalidResponse):
        run(app, {}, WSGIAnswer(request(), pieces.append, False))
    assert not pieces


def test_start_response_is_called_once() -> None:
    def twice(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        start_response("200 OK", [])
        return []

    for app, message in ((twice, "twice"), (lambda environ, start: [b"a"], "before it called")):
        with pytest.raises(AssertionError, match=message):
            answer(app)
