"""The stderr of the program: copied byte for byte in large pieces, its end kept for the reason of a failure.

If our stderr is not read, the program blocks, as it would without us; PID 1 does not, since a stop may come.
"""

from __future__ import annotations

import os
import select

# No pipe holds more than this by default, so one read empties it.
_PIECE = 1 << 20
_KEPT = 32 << 10
_TRACE_BEGINS = b"Traceback (most recent call last):"


class Tail:
    """Copies the pipe to our own stderr, and keeps the end and the last traceback."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._end = b""
        self._trace = b""
        self._unwritten = memoryview(b"")
        self._room = select.poll()
        self._room.register(2, select.POLLOUT)

    def read(self) -> bool:
        """Read what is there; False if the program has closed the pipe."""
        piece = os.read(self._fd, _PIECE)
        self._unwritten = memoryview(b"".join((self._unwritten, piece)))
        self._keep(piece)
        return bool(piece)

    def read_rest(self) -> None:
        """Read what the program has left. A child of it that holds the pipe open is not waited for."""
        os.set_blocking(self._fd, False)
        try:
            self.read()
        except BlockingIOError:
            pass

    def write(self) -> bool:
        """Write as much as our stderr takes without blocking; whether something is left."""
        while self._unwritten and self._room.poll(0):
            try:
                self._unwritten = self._unwritten[os.write(2, self._unwritten[: select.PIPE_BUF]) :]
            except BlockingIOError:
                break
            except OSError:
                self._unwritten = memoryview(b"")  # its reader is gone: no reason to stop the program
        return bool(self._unwritten)

    def copy(self) -> bool:
        """Copy what is there, however long that takes; False if the program has closed the pipe."""
        more = self.read()
        while self.write():
            self._room.poll()
        return more

    @property
    def text(self) -> str:
        """The end, preceded by the last traceback if that lies further back."""
        further_back = self._trace and _TRACE_BEGINS not in self._end
        return (self._trace + b"\n" + self._end if further_back else self._end).decode("utf-8", "replace")

    def _keep(self, piece: bytes) -> None:
        # From a little further back, as the header may arrive in two pieces.
        recent = self._end[-len(_TRACE_BEGINS) :] + piece
        found = recent.rfind(_TRACE_BEGINS)
        if found >= 0:
            self._trace = recent[found : found + _KEPT]
        elif self._trace:
            self._trace += piece[: _KEPT - len(self._trace)]
        self._end = (self._end + piece[-_KEPT:])[-_KEPT:]
