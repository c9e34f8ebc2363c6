"""What is kept of each request: one line in the access log and one count, whatever became of it.

The log has no line for /ping, and of what the user sent only method and path. A thread writes lines together:
a write for each would cost more than reading the request, and whoever reads the log slowly would hold up the
slots and /ping. Under load it writes often and little: what reads the log, as the Docker Engine does, takes a
core for each burst of thousands of lines, and calls would wait for it.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from itertools import count

from .call import Call
from .http.request import Request
from .scoreboard import Scoreboard

CLIENT_GONE = 499  # by the convention of nginx: the client took no more of its answer
_IDLE = 0.25  # seconds until a first line is written
_BUSY = 0.03  # seconds between two writes, while there are lines
_KEPT = 100_000  # lines that wait for a reader who is slow; older ones are lost
_PIECE = 4096  # bytes that a pipe takes whole, so that lines of several processes do not mix


class Journal:
    """Of one process, in one kind of line: `text`, `json`, or none for `off`. From any thread."""

    def __init__(self, scoreboard: Scoreboard, row: int, access_log: str) -> None:
        self._scoreboard = scoreboard
        self._row = row
        self._prefix = f"{os.getpid():x}-{time.time_ns() & 0xFFFFFFFF:08x}"
        self._ids = count(1)
        self._kind = access_log
        self._lines: deque[str] = deque(maxlen=_KEPT)
        self._flushing = threading.Lock()
        if access_log != "off":
            threading.Thread(target=self._keep_flushing, name="access-log", daemon=True).start()

    def new_id(self) -> str:
        """Names a request, in its answer and in the log."""
        return f"{self._prefix}-{next(self._ids)}"

    def note_call(self, call: Call, status: int) -> None:
        """Note a call that has run, with its answer complete or broken; the second time is no news."""
        if not call.end():
            return
        queue, model = call.started - call.received, (call.answered or time.monotonic()) - call.started
        if call.counted:
            self._scoreboard.count_call(self._row, queue, model)
        self.note(call.request, status, call.id, time.monotonic() - call.received, queue, model)

    def note(
        self,
        request: Request | None,
        status: int,
        id: str,
        total: float = 0.0,
        queue: float = 0.0,
        model: float = 0.0,
    ) -> None:
        """Note a request that is answered, and its seconds; it is None where it could not be read."""
        self._scoreboard.count_status(self._row, status)
        method, path = (request.method, request.path) if request else ("-", "-")
        if self._kind == "text":
            times = f"{total * 1e3:.1f} ms (queue {queue * 1e3:.1f}, model {model * 1e3:.1f})"
            shown = path if path.isprintable() else ascii(path)
            self._lines.append(f"optml: {method} {shown} {status} {times} {id}\n")
        elif self._kind == "json":
            record = {
                "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "method": method,
                "path": path,
                "status": status,
                "ms": round(total * 1e3, 1),
                "queue_ms": round(queue * 1e3, 1),
                "model_ms": round(model * 1e3, 1),
                "request_id": id,
            }
            self._lines.append(f"{json.dumps(record)}\n")

    def flush(self) -> None:
        with self._flushing:
            lines = [self._lines.popleft() for _ in range(len(self._lines))]
            for piece in pieces("".join(lines).encode("utf-8", "replace")):
                with suppress(OSError):  # a closed stderr is no reason to fail a request
                    os.write(2, piece)

    def _keep_flushing(self) -> None:
        while True:
            if self._lines:
                self.flush()
                time.sleep(_BUSY)
            else:
                time.sleep(_IDLE)


def pieces(data: bytes) -> Iterator[bytes]:
    """Cut lines, each with its end, into pieces that a pipe takes whole; a longer line is a piece alone."""
    start = 0
    while start < len(data):
        end = data.rfind(b"\n", start, start + _PIECE) + 1 or data.index(b"\n", start) + 1
        yield data[start:end]
        start = end
