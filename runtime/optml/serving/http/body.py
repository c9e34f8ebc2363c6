"""The body of a request, as its bytes arrive: of known length, or chunked.

`write` takes bytes and returns whether the body is complete; `rest` is then what came after it.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator

from ..errors import InferenceError
from .payload import Payload
from .request import LINE_LIMIT, NAME, malformed, parse_fields

_TRAILERS_LIMIT = 64 << 10
_NAME = NAME.pattern.encode()
_QUOTED = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'
_EXTENSION = rb"[ \t]*;[ \t]*%b(?:[ \t]*=[ \t]*(?:%b|%b))?" % (_NAME, _NAME, _QUOTED)
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:%b)*" % _EXTENSION)
_BARE_LF = re.compile(rb"(?<!\r)\n")
# Trailers that would change how the request is read (RFC 9110, 6.5.1).
_NOT_IN_TRAILERS = frozenset(
    ("HOST", "CONTENT-LENGTH", "TRANSFER-ENCODING", "TRAILER", "AUTHORIZATION", "TE")
)


class Sized:
    """A body of known length."""

    def __init__(self, length: int, payload: Payload) -> None:
        self.rest = b""
        self._missing = length
        self._payload = payload

    def write(self, data: bytes) -> bool:
        if len(data) > self._missing:
            data, self.rest = data[: self._missing], data[self._missing :]
        if self._payload.size or len(data) < self._missing:
            self._payload.write(data)
        else:
            self._payload.fill(data)
        self._missing -= len(data)
        return not self._missing


class Chunked:
    """A chunked body. Extensions and trailers are parsed strictly, then discarded."""

    def __init__(self, payload: Payload) -> None:
        self.rest = b""
        self._payload = payload
        self._pending = bytearray()
        self._reading = self._read()

    def write(self, data: bytes) -> bool:
        self._pending += data
        return next(self._reading)

    def _read(self) -> Iterator[bool]:
        """Parse what has arrived; yields False if more has to arrive first, and True at the end."""
        while missing := _size((yield from self._line(LINE_LIMIT))):
            while missing:
                part = self._cut(missing)
                self._payload.write(part)
                missing -= len(part)
                if missing:
                    yield False
            while len(self._pending) < 2:
                yield False
            if self._cut(2) != b"\r\n":
                raise malformed("a chunk is longer than its size")
        room = _TRAILERS_LIMIT
        while line := (yield from self._line(room)):
            room -= len(line) + 2
            for name, _ in parse_fields([line.decode("latin-1")]):
                if name in _NOT_IN_TRAILERS:
                    raise malformed(f"{name.title()} is not allowed in trailers")
        self.rest = bytes(self._pending)
        yield True

    def _line(self, limit: int) -> Generator[bool, None, bytes]:
        """The next line, without its end."""
        while (end := self._pending.find(b"\r\n")) < 0:
            check_unfinished(self._pending, limit)
            yield False
        return self._cut(end + 2)[:-2]

    def _cut(self, count: int) -> bytes:
        """Remove the next bytes, so many at most."""
        data = bytes(self._pending[:count])
        del self._pending[:count]
        return data


def _size(line: bytes) -> int:
    found = _SIZE_LINE.fullmatch(line)
    if found is None:
        raise malformed("the size of a chunk is not a hexadecimal number")
    return int(found[1], 16)


def check_unfinished(data: bytearray, limit: int, start: int = 0) -> None:
    """Refuse an incomplete line that is too long, or has ended with a bare LF."""
    if len(data) > limit:
        raise InferenceError(f"Headers, trailers or a line of more than {limit} bytes.", 431)
    if _BARE_LF.search(data, start):
        raise malformed("a line ends without CR")
