"""The head of a request: bytes to method, target, version and headers."""

from __future__ import annotations

import re

from ..errors import InferenceError
from .request import LINE_LIMIT, malformed

Head = tuple[str, str, tuple[int, int], list[tuple[str, str]]]

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_NAME = re.compile(_TOKEN)
_REQUEST_LINE = re.compile(r"([!$%&'*+.^_`|~0-9A-Z-]{3,20}) ([!-~]+) HTTP/(\d)\.(\d)", re.ASCII)
_NOT_IN_VALUE = re.compile(r"[^\t -~\x80-\xff]")


def parse_head(head: bytes) -> Head:
    """Read a head up to and including its empty line. Raises InferenceError for a malformed one."""
    if head.find(b"\r\n") > LINE_LIMIT:
        raise InferenceError(f"The request line is longer than {LINE_LIMIT} bytes.", 414)
    line, *lines = head[:-4].decode("latin-1").split("\r\n")
    found = _REQUEST_LINE.fullmatch(line)
    if found is None:
        raise malformed("the first line is not METHOD, TARGET and HTTP/1.1")
    method, target, major, minor = found.groups()
    return method, target, (int(major), int(minor)), parse_fields(lines)


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
