"""A small scoreboard in shared memory: the state of every worker, which all processes read without asking.

/ping is answered from it alone, so an answer needs no model, no lock and no other process. What was counted
is in it, too, so that any worker can tell it for all.
"""

from __future__ import annotations

import mmap
import threading
import time

LOADING, READY, RETIRING = 1, 2, 3

# Columns of a row. Each is one aligned 64-bit number, which the machine writes whole.
_STATE, _HEARTBEAT, _SERVED, _ASKED, _CALLS = range(5)  # of the worker that has the row
_RESTARTS, _DONE, _QUEUED, _MODELED = range(5, 9)  # of all that had it; the last two in nanoseconds
_GENERATION = 9
_STATUS = 10  # one column for each status from 100 to 599
_RECENT = _STATUS + 500  # a ring of the last latencies in nanoseconds
_KEPT = 32
_COLUMNS = _RECENT + _KEPT


class Scoreboard:
    """One row for each worker. Made before the fork, and written by the worker that owns the row.

    Behind these there is row -1, the standby's, of which only the statuses are asked for.
    """

    def __init__(self, rows: int) -> None:
        self.rows = range(rows)
        self._cells = memoryview(mmap.mmap(-1, (rows + 1) * _COLUMNS * 8)).cast("q")
        self._counting = threading.Lock()  # for the threads of one worker

    def begin(self, row: int, again: bool = False) -> None:
        """A new worker takes the row, perhaps in place of another: it is loading and has served nothing."""
        for column in range(_RESTARTS):
            self._cells[row * _COLUMNS + column] = 0
        self._cells[row * _COLUMNS + _RESTARTS] += again
        self._cells[row * _COLUMNS + _GENERATION] += 1
        self.set_state(row, LOADING)

    def set_state(self, row: int, state: int) -> None:
        self.beat(row)
        self._cells[row * _COLUMNS + _STATE] = state

    def end(self, row: int) -> None:
        """The worker of the row is gone."""
        self._cells[row * _COLUMNS + _STATE] = 0
        self._cells[row * _COLUMNS + _GENERATION] += 1
        self.set_calls(row, 0)

    def generation(self, row: int) -> int:
        """Another number for each worker that has the row, and while none has it."""
        return self._cells[row * _COLUMNS + _GENERATION]

    def state(self, row: int) -> int:
        return self._cells[row * _COLUMNS + _STATE]

    def any_ready(self) -> bool:
        """Whether at least one worker can answer a call: what /ping tells."""
        cells = self._cells
        return any(cells[row * _COLUMNS] == READY for row in self.rows)

    def ready(self) -> int:
        """How many workers can answer a call."""
        return sum(self.state(row) == READY for row in self.rows)

    def beat(self, row: int) -> None:
        """The loop of this worker is alive."""
        self._cells[row * _COLUMNS + _HEARTBEAT] = time.monotonic_ns()

    def seen(self, row: int) -> float:
        """When the loop of this worker was last alive, by the monotonic clock."""
        return self._cells[row * _COLUMNS + _HEARTBEAT] / 1e9

    def count_served(self, row: int) -> None:
        self._cells[row * _COLUMNS + _SERVED] += 1

    def served(self, row: int) -> int:
        """Calls answered since this worker began."""
        return self._cells[row * _COLUMNS + _SERVED]

    def set_asked(self, row: int) -> None:
        """The user's code in this worker is to be asked for its health."""
        self._cells[row * _COLUMNS + _ASKED] = 1

    def any_asked(self) -> bool:
        return any(self._cells[row * _COLUMNS + _ASKED] for row in self.rows)

    def fewest_calls(self) -> int:
        """Of the ready workers, the calls of the one that has the fewest; 0 where none is ready."""
        return min((self.calls(row) for row in self.rows if self.state(row) == READY), default=0)

    # What is counted

    def set_calls(self, row: int, count: int) -> None:
        """So many calls run or wait in this worker."""
        self._cells[row * _COLUMNS + _CALLS] = count

    def calls(self, row: int) -> int:
        return self._cells[row * _COLUMNS + _CALLS]

    def count_status(self, row: int, status: int) -> None:
        """A request was answered."""
        with self._counting:
            self._cells[row * _COLUMNS + _STATUS + status - 100] += 1

    def count_call(self, row: int, queue: float, model: float) -> None:
        """A call was answered that took these seconds."""
        cells, start = self._cells, row * _COLUMNS
        queued, modeled = int(queue * 1e9), int(model * 1e9)
        with self._counting:
            done = cells[start + _DONE]
            cells[start + _QUEUED] += queued
            cells[start + _MODELED] += modeled
            cells[start + _RECENT + done % _KEPT] = queued + modeled
            cells[start + _DONE] = done + 1

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

    def _total(self, column: int) -> int:
        return sum(self._cells[column::_COLUMNS])

    def recent(self) -> list[float]:
        """Seconds that the last calls of each worker took, in no order."""
        starts = [row * _COLUMNS + _RECENT for row in self.rows]
        return [cell / 1e9 for start in starts for cell in self._cells[start : start + _KEPT] if cell]
