"""The head of a request: bytes to method, target, version and headers.

The grammar below is the law. llhttp, the compiled parser of Node.js that httptools wraps, reads what it knows
in three quarters of the time. What it does not take (a method that it does not know, HTTP/1.2, nonsense) is
the grammar's to judge, and what it reads more freely than the grammar is not left to it. So both give the
same request or the same error, and a Python for which httptools has no build serves as strictly.
"""

from __future__ import annotations

import re

from ..errors import InferenceError
from .request import LINE_LIMIT, malformed

try:
    import httptools
except ImportError:
    httptools = None  # type: ignore[assignment]

Head = tuple[str, str, tuple[int, int], list[tuple[str, str]]]

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_NAME = re.compile(_TOKEN)
_REQUEST_LINE = re.compile(r"([!$%&'*+.^_`|~0-9A-Z-]{3,20}) ([!-~]+) HTTP/(\d)\.(\d)", re.ASCII)
_NOT_IN_VALUE = re.compile(r"[^\t -~\x80-\xff]")


def parse_head(head: bytes) -> Head:
    """Read a head up to and including its empty line. Raises InferenceError for a malformed one."""
    if head.find(b"\r\n") > LINE_LIMIT:
        raise InferenceError(f"The request line is longer than {LINE_LIMIT} bytes.", 414)
    return (_by_llhttp(head) if httptools else None) or _by_grammar(head)


def parse_fields(lines: list[str]) -> list[tuple[str, str]]:
    """Headers or trailers, a line each; a line that continues another is refused."""
    fields = []
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not _NAME.fullmatch(name):
            raise malformed("a line of the headers does not begin with a name and a colon")
        if _NOT_IN_VALUE.search(value):
            raise malformed(f"a control character in the header {name}")
        fields.append((name.upper(), value.strip(" \t")))
    return fields


def _by_grammar(head: bytes) -> Head:
    line, *lines = head[:-4].decode("latin-1").split("\r\n")
    found = _REQUEST_LINE.fullmatch(line)
    if found is None:
        raise malformed("the first line is not METHOD, TARGET and HTTP/1.1")
    method, target, major, minor = found.groups()
    return method, target, (int(major), int(minor)), parse_fields(lines)


def _by_llhttp(head: bytes) -> Head | None:
    """The same by llhttp, or None for what the grammar shall judge."""
    seen = _Seen()
    parser = httptools.HttpRequestParser(seen)
    try:
        parser.feed_data(head)
    except httptools.HttpParserUpgrade:
        pass  # what comes after the head is not its business
    except httptools.HttpParserError:
        return None
    method = parser.get_method()
    # It takes several spaces, empty lines before the first, no version, and other protocols.
    if not head.startswith(b"%b %b HTTP/1." % (method, seen.target)):
        return None
    version = (1, 1) if parser.get_http_version() == "1.1" else (1, 0)
    return method.decode(), seen.target.decode(), version, seen.headers


class _Seen:
    """What llhttp calls with what it finds."""

    __slots__ = ("headers", "target")

    def __init__(self) -> None:
        self.headers: list[tuple[str, str]] = []
        self.target = b""

    def on_url(self, target: bytes) -> None:
        self.target = target

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.decode().upper(), value.decode("latin-1").rstrip(" \t")))
