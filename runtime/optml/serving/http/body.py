"""The body of a request, as its bytes arrive: of known length, or in chunks.

`write` takes bytes and is true once the body is complete; what came after it is then in `rest`.
"""

from __future__ import annotations

import re

from ..errors import InferenceError
from .parser import parse_fields
from .payload import Payload
from .request import LINE_LIMIT, malformed

_TRAILERS_LIMIT = 64 << 10
_NAME = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
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
    """A body in chunks. Extensions and trailers are read strictly, and then forgotten."""

    def __init__(self, payload: Payload) -> None:
        self.rest = b""
        self._payload = payload
        self._pending = bytearray()
        self._left = 0  # bytes of the current chunk that are missing, its final CRLF included
        self._step = self._read_size

    def write(self, data: bytes) -> bool:
        self._pending += data
        while self._pending and self._step():
            pass
        if self._step != self._finish:
            return False
        self.rest = bytes(self._pending)
        return True

    # Each step is true when the next one can be tried.

    def _read_size(self) -> bool:
        line = self._line()
        if line is None:
            return False
        found = _SIZE_LINE.fullmatch(line)
        if found is None:
            raise malformed("the size of a chunk is no hexadecimal number")
        size = int(found[1], 16)
        self._left = size + 2
        self._step = self._read_data if size else self._read_trailers
        return True

    def _read_data(self) -> bool:
        here = min(len(self._pending), max(0, self._left - 2))
        self._payload.write(bytes(self._pending[:here]))
        del self._pending[:here]
        self._left -= here
        if self._left > 2 or len(self._pending) < 2:
            return False
        if self._pending[:2] != b"\r\n":
            raise malformed("a chunk is longer than its size")
        del self._pending[:2]
        self._step = self._read_size
        return True

    def _read_trailers(self) -> bool:
        if self._pending[:2] == b"\r\n":
            del self._pending[:2]
            self._step = self._finish
            return True
        end = self._pending.find(b"\r\n\r\n")
        if end < 0:
            check_unfinished(self._pending, _TRAILERS_LIMIT)
            return False
        for name, _ in parse_fields(bytes(self._pending[:end]).decode("latin-1").split("\r\n")):
            if name in _NOT_IN_TRAILERS:
                raise malformed(f"{name.title()} among the trailers")
        del self._pending[: end + 4]
        self._step = self._finish
        return True

    def _finish(self) -> bool:
        return False

    def _line(self) -> bytes | None:
        end = self._pending.find(b"\r\n")
        if end < 0:
            check_unfinished(self._pending, LINE_LIMIT)
            return None
        line = bytes(self._pending[:end])
        del self._pending[: end + 2]
        return line


def check_unfinished(data: bytearray, limit: int, start: int = 0) -> None:
    """Refuse lines that will never end as they should: too long, or by a mere LF."""
    if len(data) > limit:
        raise InferenceError(f"Headers, trailers or a line of more than {limit} bytes.", 431)
    if _BARE_LF.search(data, start):
        raise malformed("a line ends without CR")
