"""What is kept of each request: one line in the access log and one count, whatever became of it."""

from __future__ import annotations

import os
import time
from itertools import count

from .call import Call
from .http.accesslog import AccessLog
from .http.request import Request
from .scoreboard import Scoreboard

CLIENT_GONE = 499  # by the convention of nginx: the client took no more of its answer


class Journal:
    """Of one process. From any thread."""

    def __init__(self, scoreboard: Scoreboard, row: int, access_log: str) -> None:
        self._scoreboard = scoreboard
        self._row = row
        self._lines = AccessLog(access_log)
        self.flush = self._lines.flush
        self._prefix = f"{os.getpid():x}-{time.time_ns() & 0xFFFFFFFF:08x}"
        self._ids = count(1)

    def new_id(self) -> str:
        """Names a request, in its answer and in the log."""
        return f"{self._prefix}-{next(self._ids)}"

    def note(self, request: Request | None, status: int, id: str, *seconds: float) -> None:
        """Note a request that is answered; one that could not be read has neither method nor path."""
        method, path = (request.method, request.path) if request else ("-", "-")
        self._scoreboard.count_status(self._row, status)
        self._lines.add(method, path, status, id, *seconds)

    def note_call(self, call: Call, status: int) -> None:
        """Note a call that has run, with its answer complete or broken; the second time is no news."""
        if not call.end():
            return
        queue, model = call.started - call.received, (call.answered or time.monotonic()) - call.started
        if call.counted:
            self._scoreboard.count_call(self._row, queue, model)
        self.note(call.request, status, call.id, time.monotonic() - call.received, queue, model)
