"""The bodies of requests: in memory while they are small and few, else in files under /tmp.

Bodies that arrive in pieces share a fixed amount of memory in each worker, however many clients send at the
same time, and however slowly.
"""

from __future__ import annotations

import io
import math
import os
import threading
from typing import IO

from ... import machine
from ..errors import InferenceError
from ..settings import MB

SPOOL_SIZE = 2 << 20  # bytes of a body kept in memory: enough for an array of 1 MiB with its header
_MOST_MEMORY = 256 << 20  # bytes, for all bodies of all workers, unless files are in memory, too


class Bodies:
    """Limits of one worker's bodies, in bytes: `limit` for each, `memory` for all that arrive in pieces.

    `files_are_memory`: spooled bodies are in memory as well (a tmpfs), and count.
    """

    def __init__(self, limit: float, memory: float, files_are_memory: bool = False) -> None:
        self.limit = limit
        self.files_are_memory = files_are_memory
        self._free = memory
        self._lock = threading.Lock()

    def reserve(self, size: int) -> bool:
        """Reserve memory for so many bytes; false if there is no room."""
        with self._lock:
            if size > self._free:
                return False
            self._free -= size
            return True

    def release(self, size: int) -> None:
        with self._lock:
            self._free += size

    def check_length(self, size: int) -> None:
        if size > self.limit:
            raise InferenceError(
                f"The body is larger than {int(self.limit) // MB} MB, "
                "the limit that SAGEMAKER_MAX_PAYLOAD_IN_MB sets.",
                413,
            )


UNLIMITED = Bodies(math.inf, math.inf)


def bodies_of_worker(limit: int, workers: int) -> Bodies:
    """The share of one worker; all together may use a quarter of the memory."""
    memory = (machine.memory_limit() or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")) // 4
    files_are_memory = _is_tmpfs(os.environ.get("TMPDIR") or "/tmp")
    if not files_are_memory:
        memory = min(memory, _MOST_MEMORY)
    return Bodies(limit, memory // workers, files_are_memory)


class Payload:
    """A body: written as it arrives, then read as bytes or as a file."""

    __slots__ = ("_bodies", "_data", "_file", "_reserved", "_spooled", "size")

    def __init__(self, bodies: Bodies = UNLIMITED) -> None:
        self._bodies = bodies
        self._data = b""
        self._file: IO[bytes] | None = None
        self._spooled = False
        self._reserved = 0
        self.size = 0

    def fill(self, data: bytes) -> None:
        """Take a body that is complete at once, as most are. It waits for no client, so it needs no room."""
        self._data, self.size = data, len(data)

    def write(self, data: bytes) -> None:
        """Add bytes. Raises InferenceError if they are too many (413) or there is no room for them (503)."""
        if not data:
            return
        self._bodies.check_length(self.size + len(data))
        self.size += len(data)
        if not self._spooled and self.size <= SPOOL_SIZE and self._reserve(len(data)):
            self._file = self._file or io.BytesIO()
            self._file.write(data)
        else:
            self._write_to_disk(data)

    def read(self) -> bytes:
        """The whole body, read from disk each time if it is there."""
        if self._file is None:
            return self._data
        self._file.seek(0)
        return self._file.read()

    def file(self) -> IO[bytes]:
        """The body as an open file, at its start."""
        if self._file is None:
            return io.BytesIO(self._data)
        self._file.seek(0)
        return self._file

    def close(self) -> None:
        """Release memory and file. May be called more than once."""
        self._release()
        if self._file is not None:
            self._file.close()

    __del__ = close

    def _reserve(self, size: int) -> bool:
        if not self._bodies.reserve(size):
            return False
        self._reserved += size
        return True

    def _release(self) -> None:
        reserved, self._reserved = self._reserved, 0
        if reserved:
            self._bodies.release(reserved)

    def _write_to_disk(self, data: bytes) -> None:
        if self._bodies.files_are_memory and not self._reserve(len(data)):
            raise _no_room("the bodies of other requests take it")
        try:
            if not self._spooled:
                self._spool()
            assert self._file is not None
            self._file.write(data)
            self._file.flush()
        except OSError as error:
            raise _no_room(error.strerror or str(error)) from error

    def _spool(self) -> None:
        """Move what is in memory into a file."""
        import tempfile  # only large bodies need it

        file = tempfile.TemporaryFile(prefix="optml-body-")  # noqa: SIM115
        file.write(self.read())
        self._file, self._data, self._spooled = file, b"", True
        if not self._bodies.files_are_memory:
            self._release()


def _no_room(reason: str) -> InferenceError:
    return InferenceError(f"There is no room for the body now: {reason}.", 503, {"Retry-After": "1"})


def _is_tmpfs(directory: str) -> bool:
    try:
        device = os.stat(directory).st_dev
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as mounts:
            for mount in mounts:
                if mount.split()[2] == f"{os.major(device)}:{os.minor(device)}":
                    return mount.partition(" - ")[2].startswith(("tmpfs", "ramfs"))
    except OSError:
        pass  # then the first large body will show
    return False
