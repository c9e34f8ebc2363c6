"""The record of each request: one line in the access log and one count, whatever the outcome.

/ping is not logged, and of what clients send only method and path are. A thread writes lines in batches: one
write each would cost more than reading the request, and a slow reader of the log would delay slots and /ping.
Under load it writes often and little: for each burst of thousands of lines, the log's reader, such as the
Docker Engine, takes a core, and calls would wait for it.
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

CLIENT_GONE = 499  # as in nginx: the client stopped reading the response
_IDLE = 0.25  # seconds between checks for a first line
_BUSY = 0.03  # seconds between writes, while there are lines
_KEPT = 100_000  # lines kept for a slow reader; older ones are lost
_PIECE = 4096  # bytes that a pipe takes atomically, so that lines of several processes do not mix


class Journal:
    """The journal of a process, with lines as `text`, `json` or none (`off`). May be used from any thread."""

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
        """A new id for a request, for its response and the log."""
        return f"{self._prefix}-{next(self._ids)}"

    def note_call(self, call: Call, status: int) -> None:
        """Record a call whose response is complete or broken off; only the first time counts."""
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
        """Record an answered request, None if it could not be read, and its times in seconds."""
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
                with suppress(OSError):  # a closed stderr must not fail a request
                    os.write(2, piece)

    def _keep_flushing(self) -> None:
        while True:
            if self._lines:
                self.flush()
                time.sleep(_BUSY)
            else:
                time.sleep(_IDLE)


def pieces(data: bytes) -> Iterator[bytes]:
    """Cut whole lines into pieces that a pipe takes atomically; a longer line is a piece of its own."""
    start = 0
    while start < len(data):
        end = data.rfind(b"\n", start, start + _PIECE) + 1 or data.index(b"\n", start) + 1
        yield data[start:end]
        start = end
