"""A small scoreboard in shared memory: the state of every worker, which all processes read without asking.

/ping is answered from it alone, so an answer needs no model, no lock and no other process. What was counted
is in it, too, so that any worker can tell it for all.
"""

from __future__ import annotations

import mmap
import threading
import time

LOADING, READY, RETIRING = 1, 2, 3

# Columns of the worker that has the row. SERVED: calls that it has answered. ASKED: whether the user's code
# is to be asked for its health. CALLS: those that run or wait.
STATE, _HEARTBEAT, SERVED, ASKED, CALLS = range(5)
# Columns of all that had it; the last two in nanoseconds.
_RESTARTS, _DONE, _QUEUED, _MODELED = range(5, 9)
GENERATION = 9  # another number for each worker that has the row, and while none has it
_STATUS = 10  # one column for each status from 100 to 599
_RECENT = _STATUS + 500  # a ring of the last latencies in nanoseconds
_KEPT = 32
_COLUMNS = _RECENT + _KEPT


class Scoreboard:
    """One row for each worker, and row -1 for the standby, of which only the statuses are asked for.

    Made before the fork. Each of the `cells` (row, column) is one aligned 64-bit number, which the machine
    writes whole; those of a row are written by the worker that has it.
    """

    def __init__(self, rows: int) -> None:
        self.rows = range(rows)
        shape = [rows + 1, _COLUMNS]
        self.cells = memoryview(mmap.mmap(-1, (rows + 1) * _COLUMNS * 8)).cast("q", shape)
        self._counting = threading.Lock()  # for the threads of one worker

    def begin(self, row: int, again: bool = False) -> None:
        """A new worker takes the row, perhaps in place of another: it is loading and has served nothing."""
        for column in (SERVED, ASKED, CALLS):
            self.cells[row, column] = 0
        self.cells[row, _RESTARTS] += again
        self.cells[row, GENERATION] += 1
        self.set_state(row, LOADING)

    def set_state(self, row: int, state: int) -> None:
        self.beat(row)
        self.cells[row, STATE] = state

    def end(self, row: int) -> None:
        """The worker of the row is gone."""
        self.cells[row, STATE] = 0
        self.cells[row, GENERATION] += 1
        self.cells[row, CALLS] = 0

    def any_ready(self) -> bool:
        """Whether at least one worker can answer a call: what /ping tells."""
        return any(self.cells[row, STATE] == READY for row in self.rows)

    def ready(self) -> int:
        """How many workers can answer a call."""
        return sum(self.cells[row, STATE] == READY for row in self.rows)

    def beat(self, row: int) -> None:
        """The loop of this worker is alive."""
        self.cells[row, _HEARTBEAT] = time.monotonic_ns()

    def seen(self, row: int) -> float:
        """When the loop of this worker was last alive, by the monotonic clock."""
        return self.cells[row, _HEARTBEAT] / 1e9

    def any_asked(self) -> bool:
        return any(self.cells[row, ASKED] for row in self.rows)

    def fewest_calls(self) -> int:
        """Of the ready workers, the calls of the one that has the fewest; 0 where none is ready."""
        ready = (row for row in self.rows if self.cells[row, STATE] == READY)
        return min((self.cells[row, CALLS] for row in ready), default=0)

    # What is counted

    def count_status(self, row: int, status: int) -> None:
        """A request was answered."""
        with self._counting:
            self.cells[row, _STATUS + status - 100] += 1

    def count_call(self, row: int, queue: float, model: float) -> None:
        """A call was answered that took these seconds."""
        queued, modeled = int(queue * 1e9), int(model * 1e9)
        with self._counting:
            done = self.cells[row, _DONE]
            self.cells[row, _QUEUED] += queued
            self.cells[row, _MODELED] += modeled
            self.cells[row, _RECENT + done % _KEPT] = queued + modeled
            self.cells[row, _DONE] = done + 1

    def restarts(self) -> int:
        """Workers that took the place of another."""
        return self._total(_RESTARTS)

    def done(self) -> tuple[int, float, float]:
        """Calls answered, and their seconds in the queue and in the model."""
        return self._total(_DONE), self._total(_QUEUED) / 1e9, self._total(_MODELED) / 1e9

    def statuses(self) -> dict[int, int]:
        """How many requests were answered with each status."""
        counts = {status: self._total(_STATUS + status - 100) for status in range(100, 600)}
        return {status: count for status, count in counts.items() if count}

    def recent(self) -> list[float]:
        """Seconds that the last calls of each worker took, in no order."""
        latencies = (self.cells[row, _RECENT + number] for row in self.rows for number in range(_KEPT))
        return [latency / 1e9 for latency in latencies if latency]

    def _total(self, column: int) -> int:
        return sum(self.cells[row, column] for row in (*self.rows, -1))
