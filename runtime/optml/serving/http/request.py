"""A request, and what its head says about the body and the connection.

The rules are those of RFC 9110 and RFC 9112, applied strictly: whatever a proxy could interpret differently
is refused, because it could hide a second request.
"""

from __future__ import annotations

import re
from typing import Any

from ..errors import InferenceError

LINE_LIMIT = 8190  # bytes of a request line or of a header
HEADERS_LIMIT = 100

NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_REQUEST_LINE = re.compile(r"([!$%&'*+.^_`|~0-9A-Z-]{3,20}) ([!-~]+) HTTP/(\d)\.(\d)", re.ASCII)
_NOT_IN_VALUE = re.compile(r"[^\t -~\x80-\xff]")
_READ_HERE = frozenset(
    ("ACCEPT", "CONNECTION", "CONTENT-LENGTH", "CONTENT-TYPE", "EXPECT", "HOST", "TRANSFER-ENCODING")
)
_LISTS = ("ACCEPT", "CONNECTION")  # may be repeated, which is the same as one with commas
_NOT_A_LAST_CODING = ("", "compress", "deflate", "gzip", "identity")


class Request:
    """Method, path, query, version, headers and body; names of headers are in upper case.

    `path` is as the client sent it, without the query; `length` is the body's in bytes, None if chunked;
    `body` is the Payload; `closes` is whether the client wants the connection to close after the response.
    Raises InferenceError for a head that breaks a rule.
    """

    __slots__ = (
        "accept", "body", "closes", "content_type", "expects_continue", "headers", "length", "method",
        "path", "peer", "query", "target", "version",
    )  # fmt: skip

    def __init__(
        self, method: str, target: str, version: tuple[int, int], headers: list[tuple[str, str]]
    ) -> None:
        if version[0] != 1:
            raise InferenceError("This server speaks HTTP/1.1.", 505)
        self.method = method
        self.target = target
        self.path, self.query = _split(method, target)
        self.version = min(version, (1, 1))  # a response has at most the server's
        self.headers, known = _checked(headers)
        if "HOST" not in known and self.version == (1, 1):
            raise malformed("no Host header")
        self.length = _length(known.get("TRANSFER-ENCODING"), known.get("CONTENT-LENGTH"), self.version)
        self.closes = _closes(known.get("CONNECTION", ""), method, self.version)
        self.expects_continue = _expects_continue(known.get("EXPECT"), self.version)
        self.content_type, self.accept = known.get("CONTENT-TYPE", ""), known.get("ACCEPT", "")
        self.peer: Any = None
        self.body: Any = None

    def again(self) -> Request:
        """Another request with the same head, without its body."""
        other: Request = Request.__new__(Request)
        other.method, other.target, other.path, other.query = self.method, self.target, self.path, self.query
        other.version, other.headers, other.length = self.version, self.headers, self.length
        other.closes, other.expects_continue = self.closes, self.expects_continue
        other.content_type, other.accept = self.content_type, self.accept
        return other


def parse_head(head: bytes) -> tuple[str, str, tuple[int, int], list[tuple[str, str]]]:
    """Method, target, version and headers, from a head up to and including its empty line.

    Raises InferenceError for a malformed one.
    """
    if head.find(b"\r\n") > LINE_LIMIT:
        raise InferenceError(f"The request line is longer than {LINE_LIMIT} bytes.", 414)
    line, *lines = head[:-4].decode("latin-1").split("\r\n")
    found = _REQUEST_LINE.fullmatch(line)
    if found is None:
        raise malformed("the first line is not METHOD, TARGET and HTTP/1.1")
    method, target, major, minor = found.groups()
    return method, target, (int(major), int(minor)), parse_fields(lines)


def parse_fields(lines: list[str]) -> list[tuple[str, str]]:
    """Headers or trailers, one per line; a line that continues another is refused."""
    fields = []
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not NAME.fullmatch(name):
            raise malformed("a header line does not begin with a name and a colon")
        if _NOT_IN_VALUE.search(value):
            raise malformed(f"a control character in the header {name}")
        fields.append((name.upper(), value.strip(" \t")))
    return fields


def malformed(what: str) -> InferenceError:
    return InferenceError(f"Bad request: {what}.", 400)


def _checked(headers: list[tuple[str, str]]) -> tuple[list[tuple[str, str]], dict[str, str]]:
    """The headers without those that are ambiguous in WSGI, and the ones that this module interprets."""
    if len(headers) > HEADERS_LIMIT:
        raise InferenceError(f"More than {HEADERS_LIMIT} headers.", 431)
    kept: list[tuple[str, str]] = []
    known: dict[str, str] = {}
    for header in headers:
        name, value = header
        if len(name) + len(value) > LINE_LIMIT:
            raise InferenceError(f"A header is longer than {LINE_LIMIT} bytes.", 431)
        if name in _READ_HERE:
            if name in known and name not in _LISTS:
                raise malformed(f"more than one {name.title()} header")
            known[name] = f"{known[name]},{value}" if name in known else value
        if "_" not in name:  # X_A and X-A are the same variable of WSGI
            kept.append(header)
    return kept, known


def _split(method: str, target: str) -> tuple[str, str]:
    """Path and query of a request target, in each of the four forms of RFC 9112, 3.2."""
    if target[0] != "/" and target != "*" and method != "CONNECT":
        scheme, mark, rest = target.partition("://")
        if not scheme or not mark:
            raise malformed("the target is not a path")
        authority, mark, query = rest.partition("?")
        target = f"/{authority.partition('/')[2]}{mark}{query}"
    elif target == "*" and method != "OPTIONS":
        raise malformed("the target * is only for OPTIONS")
    path, _, query = target.partition("#")[0].partition("?")
    return path, query


def _length(coding: str | None, length: str | None, version: tuple[int, int]) -> int | None:
    """Bytes of the body, None if it is chunked. Refuses a head that specifies its end in two ways."""
    if coding is None:
        if length is None:
            return 0
        if not (length.isascii() and length.isdigit()):
            raise malformed("Content-Length is not a number")
        return int(length) if len(length) < 20 else 1 << 63  # int() takes no more than 4,300 digits
    if length is not None or version < (1, 1):
        raise malformed("Transfer-Encoding together with Content-Length, or in HTTP/1.0")
    codings = [name.strip(" \t") for name in coding.lower().split(",")]
    if codings == ["chunked"]:
        return None
    if "chunked" in codings[:-1] or codings[-1] in _NOT_A_LAST_CODING:
        raise malformed("the last Transfer-Encoding, and no other, must be chunked")
    raise InferenceError("The only supported Transfer-Encoding is chunked.", 501)


def _closes(connection: str, method: str, version: tuple[int, int]) -> bool:
    if method == "CONNECT":  # what follows is not HTTP, whatever the response
        return True
    if not connection:
        return version < (1, 1)
    options = [option.strip(" \t") for option in connection.lower().split(",")]
    return "close" in options or (version < (1, 1) and "keep-alive" not in options)


def _expects_continue(expect: str | None, version: tuple[int, int]) -> bool:
    if expect is None:
        return False
    if expect.lower() != "100-continue":
        raise InferenceError("The only supported expectation is 100-continue.", 417)
    return version == (1, 1)  # in HTTP/1.0 it has no meaning
