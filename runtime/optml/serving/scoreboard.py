"""The scoreboard: the state of every worker, in shared memory that all processes read.

/ping is answered from it alone, so that needs no model, no lock and no other process. The counters are in it,
too, so that any worker can report those of all.
"""

from __future__ import annotations

import mmap
import threading
import time

LOADING, READY, RETIRING = 1, 2, 3

# Columns of the row's present worker. SERVED: calls that it has answered. ASKED: whether user code has a say
# in /ping. CALLS: those that run or wait.
STATE, _HEARTBEAT, SERVED, ASKED, CALLS = range(5)
# Totals of all workers of the row; the last two in nanoseconds.
_RESTARTS, _DONE, _QUEUED, _MODELED = range(5, 9)
GENERATION = 9  # changes when a worker gets the row and when it leaves
_STATUS = 10  # one column for each status from 100 to 599
_RECENT = _STATUS + 500  # a ring buffer of the last latencies in nanoseconds
_KEPT = 32
_COLUMNS = _RECENT + _KEPT


class Scoreboard:
    """One row for each worker, and row -1 for the standby, of which only the statuses are used.

    Created before the fork. Each of the `cells` (row, column) is an aligned 64-bit number, which the machine
    writes atomically. A row is written by its worker and, before and after, by the supervisor.
    """

    def __init__(self, rows: int) -> None:
        self.rows = range(rows)
        shape = [rows + 1, _COLUMNS]
        self.cells = memoryview(mmap.mmap(-1, (rows + 1) * _COLUMNS * 8)).cast("q", shape)
        self._counting = threading.Lock()  # for the threads of one worker

    def begin(self, row: int, again: bool = False) -> None:
        """Give the row to a new worker, which is loading. `again`: it replaces another one."""
        for column in (SERVED, ASKED, CALLS):
            self.cells[row, column] = 0
        self.cells[row, _RESTARTS] += again
        self.cells[row, GENERATION] += 1
        self.set_state(row, LOADING)

    def set_state(self, row: int, state: int) -> None:
        self.beat(row)
        self.cells[row, STATE] = state

    def end(self, row: int) -> None:
        """Free the row of a dead worker."""
        self.cells[row, STATE] = 0
        self.cells[row, GENERATION] += 1
        self.cells[row, CALLS] = 0

    def any_ready(self) -> bool:
        """Whether any worker can answer a call, as /ping reports."""
        return any(self.cells[row, STATE] == READY for row in self.rows)

    def ready(self) -> int:
        """How many workers can answer a call."""
        return sum(self.cells[row, STATE] == READY for row in self.rows)

    def beat(self, row: int) -> None:
        """Record that the loop of this worker is alive."""
        self.cells[row, _HEARTBEAT] = time.monotonic_ns()

    def seen(self, row: int) -> float:
        """When the loop of this worker was last alive, in seconds of the monotonic clock."""
        return self.cells[row, _HEARTBEAT] / 1e9

    def any_asked(self) -> bool:
        return any(self.cells[row, ASKED] for row in self.rows)

    def fewest_calls(self) -> int:
        """The fewest calls that a ready worker has; 0 if none is ready."""
        ready = (row for row in self.rows if self.cells[row, STATE] == READY)
        return min((self.cells[row, CALLS] for row in ready), default=0)

    # Counters

    def count_status(self, row: int, status: int) -> None:
        """Count an answered request."""
        with self._counting:
            self.cells[row, _STATUS + status - 100] += 1

    def count_call(self, row: int, queue: float, model: float) -> None:
        """Count an answered call and its seconds in the queue and in the model."""
        queued, modeled = int(queue * 1e9), int(model * 1e9)
        with self._counting:
            done = self.cells[row, _DONE]
            self.cells[row, _QUEUED] += queued
            self.cells[row, _MODELED] += modeled
            self.cells[row, _RECENT + done % _KEPT] = queued + modeled
            self.cells[row, _DONE] = done + 1

    def restarts(self) -> int:
        """Workers that replaced another."""
        return self._total(_RESTARTS)

    def done(self) -> tuple[int, float, float]:
        """Calls answered, and their seconds in the queue and in the model."""
        return self._total(_DONE), self._total(_QUEUED) / 1e9, self._total(_MODELED) / 1e9

    def statuses(self) -> dict[int, int]:
        """How many requests were answered with each status."""
        counts = {status: self._total(_STATUS + status - 100) for status in range(100, 600)}
        return {status: count for status, count in counts.items() if count}

    def recent(self) -> list[float]:
        """Seconds that the last calls of each worker took, in no particular order."""
        latencies = (self.cells[row, _RECENT + number] for row in self.rows for number in range(_KEPT))
        return [latency / 1e9 for latency in latencies if latency]

    def _total(self, column: int) -> int:
        return sum(self.cells[row, column] for row in (*self.rows, -1))
