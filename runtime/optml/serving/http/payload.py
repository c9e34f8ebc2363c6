"""The body of a request: in memory while it is small, in a file under /tmp when it is not."""

from __future__ import annotations

import io

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO

SPOOL_SIZE = 2 << 20  # bytes kept in memory: an array of 1 MiB with its header, and some


class Payload:
    """Bytes as they arrive, then bytes or a file for whoever reads them."""

    __slots__ = ("_data", "_file", "size")

    def __init__(self) -> None:
        self._data = b""
        self._file: IO[bytes] | None = None
        self.size = 0

    def write(self, data: bytes) -> None:
        if not data:
            return
        self.size += len(data)
        if self._file is None:
            if not self._data and self.size <= SPOOL_SIZE:
                self._data = data  # the whole body in one piece, as most are
                return
            self._file = io.BytesIO() if self.size <= SPOOL_SIZE else _temporary_file()
            self._file.write(self._data)
            self._data = b""
        elif self.size > SPOOL_SIZE and isinstance(self._file, io.BytesIO):
            spooled = _temporary_file()
            spooled.write(self._file.getbuffer())
            self._file = spooled
        self._file.write(data)

    def read(self) -> bytes:
        """The whole body; read from disk once, when it lies there."""
        if self._file is None:
            return self._data
        self._file.seek(0)
        return self._file.read()

    def text(self) -> str:
        """The body as UTF-8 text. Raises UnicodeDecodeError, a ValueError."""
        return self.read().decode()

    def file(self) -> IO[bytes]:
        """The body as an open file, at its start."""
        if self._file is None:
            return io.BytesIO(self._data)
        self._file.seek(0)
        return self._file

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _temporary_file() -> IO[bytes]:
    import tempfile  # only large bodies need it

    return tempfile.TemporaryFile(prefix="optml-body-")
