"""The access log: one line a request, none for /ping, and of what the user sent only method and path.

A thread writes lines together. A write for each would cost more than reading the request, and whoever reads
the log slowly would hold up the slots and /ping. Under load it writes often and little: what reads the log,
as the Docker Engine does, takes a core for each burst of thousands of lines, and calls would wait for it.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import deque
from collections.abc import Iterator

_IDLE = 0.25  # seconds until a first line is written
_BUSY = 0.03  # seconds between two writes, while there are lines
_KEPT = 100_000  # lines that wait for a reader who is slow; older ones are lost
_PIECE = 4096  # bytes that a pipe takes whole, so that lines of several processes do not mix


class AccessLog:
    """Formats one kind of line: `text`, `json`, or none for `off`."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._lines: deque[str] = deque(maxlen=_KEPT)
        self._flushing = threading.Lock()
        if kind != "off":
            threading.Thread(target=self._keep_flushing, name="access-log", daemon=True).start()

    def add(
        self,
        method: str,
        path: str,
        status: int,
        id: str,
        total: float = 0.0,
        queue: float = 0.0,
        model: float = 0.0,
    ) -> None:
        """Note a request and its seconds: in all, in the queue, in the model. From any thread."""
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
        """Write what was noted."""
        with self._flushing:
            lines = [self._lines.popleft() for _ in range(len(self._lines))]
            for piece in pieces("".join(lines).encode("utf-8", "replace")):
                _write(piece)

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


def _write(data: bytes) -> None:
    try:
        os.write(2, data)
    except OSError:
        pass  # a closed stderr is no reason to fail a request
