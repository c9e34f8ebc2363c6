"""What handlers set becomes HTTP, or an error before anything is sent, without a socket."""

from __future__ import annotations

import io
import re
from http.client import HTTPResponse
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optml.serving.errors import InferenceError
from optml.serving.http import response as responses
from optml.serving.http.request import Request
from optml.serving.http.response import Frames, InvalidResponse, Response, as_bytes, failure


def ask(method: str = "POST", version: tuple[int, int] = (1, 1), *headers: tuple[str, str]) -> Request:
    return Request(method, "/invocations", version, [("HOST", "x"), *headers])


POST, HEAD, OLD = ask(), ask("HEAD"), ask("POST", (1, 0))
CLOSING = ask("POST", (1, 1), ("CONNECTION", "close"))


class Wire(io.BytesIO):
    """A fake socket for http.client to read from."""

    def makefile(self, mode: str) -> Wire:
        return self

    def close(self) -> None:
        """There may be more to read."""


def received(data: bytes, method: str = "POST") -> tuple[int, list[tuple[str, str]], bytes, bytes]:
    """What an HTTP client makes of these bytes: status, headers, body, and what is left over."""
    wire = Wire(data)
    answer = HTTPResponse(wire, method=method)  # type: ignore[arg-type]
    answer.begin()
    return answer.status, answer.getheaders(), answer.read(), wire.read()


def sent(response: Response, request: Request = POST) -> tuple[int, list[tuple[str, str]], bytes, bytes]:
    return received(as_bytes(response, request, False)[0], request.method)


def test_a_whole_answer() -> None:
    data, closes = as_bytes(Response(200, b"[1]", {"X-A": "b"}, "application/json"), POST, False)
    date = re.search(rb"Date: (\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT)\r\n", data)
    assert date is not None and not closes
    assert data.replace(date[1], b"now") == (
        b"HTTP/1.1 200 OK\r\nDate: now\r\nConnection: keep-alive\r\nX-A: b\r\n"
        b"Content-Type: application/json\r\nContent-Length: 3\r\n\r\n[1]"
    )


def test_the_date_is_of_this_second(monkeypatch: pytest.MonkeyPatch) -> None:
    for second, shown in ((0, b"00:00:00"), (0, b"00:00:00"), (1, b"00:00:01")):
        monkeypatch.setattr(responses.time, "time", lambda now=second: now + 0.9)
        assert b"Date: Thu, 01 Jan 1970 %b GMT\r\n" % shown in as_bytes(Response(200), POST, False)[0]


@pytest.mark.parametrize("status", [200, 299, 404, 599, "201 Created", "404", "200 "])
def test_a_status_of_an_answer(status: Any) -> None:
    expected = int(str(status)[:3])
    response = Response(status)
    assert response.status == expected and type(response.status) is int
    assert sent(response)[0] == expected


@pytest.mark.parametrize(
    "status",
    [100, 101, 199, 600, 0, -200, 2000, True, "", "OK", "20", "2000", "٢٠٠", "200OK", None, [200], 200.0],
)
def test_a_status_that_is_none(status: Any) -> None:
    with pytest.raises(InvalidResponse, match="set a number from 200 to 599"):
        Response(status)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-A", "a\r\nX-B: c"),
        ("X-A", "a\n"),
        ("X-A", "\0"),
        ("X-A", "€"),
        ("X-A", 1),
        ("X-A", b"a"),
        ("X-A", None),
        ("X-A", ["a"]),
        ("X A", "a"),
        ("X-A:", "a"),
        ("X-A: b\r\nX-B", "a"),
        ("", "a"),
        ("X-Ä", "a"),
        (1, "a"),
        (None, ["a"]),
        ("Content-Type", "a\r\n"),
    ],
)
def test_a_header_that_http_cannot_carry(name: Any, value: Any) -> None:
    with pytest.raises(InvalidResponse, match="header"):
        Response(200, b"", {name: value})


@pytest.mark.parametrize(
    "name",
    ["Content-Length", "content-length", "TRANSFER-ENCODING", "connection", "Keep-Alive", "Trailer", "date"],
)
def test_framing_is_ours(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    responses._report_once.cache_clear()
    for _ in range(3):
        status, headers, body, rest = sent(Response(200, b"[1]", {name: "1", "X-A": "b"}))
        assert (status, body, rest) == (200, b"[1]", b"")
        names = [header.lower() for header, _ in headers]
        assert sorted(names) == ["connection", "content-length", "date", "x-a"]
    assert capfd.readouterr().err.count(f"header {name.lower()} is left out") == 1


def test_one_content_type_and_every_cookie() -> None:
    pairs = [("content-type", "a/b"), ("Set-Cookie", "a=1"), ("set-cookie", "b=2"), ("CONTENT-TYPE", "c/d")]
    _, headers, _, _ = sent(Response(200, b"", pairs, "application/json"))
    assert [value for name, value in headers if name.lower() == "content-type"] == ["c/d"]
    assert [value for name, value in headers if name.lower() == "set-cookie"] == ["a=1", "b=2"]


@pytest.mark.parametrize(
    ("request_", "status", "body", "length"),
    [
        (POST, 200, b"abc", "3"),
        (HEAD, 200, b"", "3"),
        (POST, 204, b"", None),
        (POST, 304, b"", None),
        (POST, 205, b"", "0"),
    ],
)
def test_where_there_is_no_body(request_: Request, status: int, body: bytes, length: str | None) -> None:
    """Whole or in parts of known length, the next response on the connection is read correctly."""
    response = Response(status, b"abc")
    frames = Frames(response, request_, False, 3)
    for data in (
        as_bytes(response, request_, False)[0],
        frames.head + frames.frame(b"a") + frames.frame(b"bc") + frames.end(),
    ):
        found, headers, answered, rest = received(data, request_.method)
        assert (found, answered, rest) == (status, body, b"")
        assert dict(headers).get("Content-Length") == length
    assert not frames.closes


@given(parts=st.lists(st.binary(max_size=20), max_size=5))
def test_parts_arrive_whole(parts: list[bytes]) -> None:
    for request in (POST, OLD, CLOSING):
        frames = Frames(Response(200), request, False)
        data = frames.head + b"".join(map(frames.frame, parts)) + frames.end()
        status, headers, body, rest = received(data)
        assert (status, body, rest) == (200, b"".join(parts), b"")
        assert frames.closes is (request is not POST)
        assert dict(headers)["Connection"] == ("close" if frames.closes else "keep-alive")


def test_a_length_is_kept_to() -> None:
    long = Frames(Response(200), POST, False, 3)
    assert long.frame(b"ab") + long.frame(b"cd") + long.end() == b"abc" and not long.closes
    short = Frames(Response(200), POST, False, 3)
    assert short.frame(b"ab") + short.end() == b"ab" and short.closes


@pytest.mark.parametrize(
    ("request_", "close", "closes"), [(POST, False, False), (POST, True, True), (CLOSING, False, True)]
)
def test_who_ends_the_connection(request_: Request, close: bool, closes: bool) -> None:
    data, ends = as_bytes(Response(200), request_, close)
    assert ends is closes
    assert dict(received(data)[1])["Connection"] == ("close" if closes else "keep-alive")


def test_a_failure_is_json_with_the_error_s_headers() -> None:
    status, headers, body, _ = sent(failure(InferenceError("Later.", 503, {"Retry-After": "1"}), "id"))
    assert (status, dict(headers)["Retry-After"], dict(headers)["Content-Type"]) == (
        503,
        "1",
        "application/json",
    )
    assert b'"Later."' in body and b'"id"' in body


def test_what_http_cannot_carry_is_one_line_of_the_log(capfd: pytest.CaptureFixture[str]) -> None:
    broken = InferenceError("x", 400, {"X-A": "secret\n"})
    for error in (InvalidResponse("status 100"), broken):
        assert failure(error, "id").status == 500
        lines = capfd.readouterr().err.splitlines()
        assert len(lines) == 1 and "request id failed" in lines[0] and "secret" not in lines[0]


def test_a_refusal_ends_the_connection() -> None:
    data, closes = as_bytes(failure(InferenceError("Bad request.", 400), "id"), None, False)
    status, headers, body, _ = received(data)
    assert closes and (status, dict(headers)["Connection"]) == (400, "close") and b"Bad request." in body
