"""Whether a whole request has arrived, without taking it from the kernel.

A hint, not a parser: what it does not recognize is read as usual, by the strict parser.
"""

from __future__ import annotations

import re
import socket
from typing import NamedTuple

_PEEK_SIZE = 64 << 10  # most bytes of a request that is left in the kernel
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,9})[ \t]*\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\n(transfer-encoding|expect):", re.IGNORECASE)
_PING = b"GET /ping"


class Size(NamedTuple):
    whole: int
    missing: int


def size_of_call(sock: socket.socket, path: str) -> Size | None:
    """Bytes of the arriving call, if its path has this prefix; None if it is not a small call."""
    try:
        data = sock.recv(_PEEK_SIZE, socket.MSG_PEEK)
    except OSError:
        return None
    head, end, body = data.partition(b"\r\n\r\n")
    _, _, target = head.partition(b" ")
    if not end or not target.startswith(path.encode()) or data.startswith(_PING) or _CHUNKED.search(head):
        return None
    length = _LENGTH.search(head + b"\r\n")
    size = int(length[1]) if length else 0
    whole = len(head) + len(end) + size
    return Size(whole, max(0, size - len(body))) if whole <= _PEEK_SIZE else None


def await_bytes(sock: socket.socket, count: int) -> None:
    """Make the socket readable only when so many bytes have arrived, or the client has hung up."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)
