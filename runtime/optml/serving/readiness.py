"""A small table in shared memory: the state of every worker, which all processes read without asking.

/ping is answered from it alone, so an answer needs no model, no lock and no other process.
"""

from __future__ import annotations

import mmap
import time

LOADING, READY, RETIRING = 1, 2, 3

# Columns of a row. Each is one aligned 64-bit number, which the machine writes whole.
_STATE, _HEARTBEAT, _SERVED, _CONNECTIONS = range(4)
_COLUMNS = 4


class Table:
    """One row for each worker. Made before the fork, and written by the worker that owns the row."""

    def __init__(self, rows: int) -> None:
        self.rows = range(rows)
        self._cells = memoryview(mmap.mmap(-1, rows * _COLUMNS * 8)).cast("q")

    def begin(self, row: int) -> None:
        """A new worker takes the row: it is loading and has served nothing."""
        for column in range(_COLUMNS):
            self._cells[row * _COLUMNS + column] = 0
        self.set_state(row, LOADING)

    def set_state(self, row: int, state: int) -> None:
        self.beat(row)
        self._cells[row * _COLUMNS + _STATE] = state

    def end(self, row: int) -> None:
        """The worker of the row is gone."""
        self._cells[row * _COLUMNS + _STATE] = 0

    def state(self, row: int) -> int:
        return self._cells[row * _COLUMNS + _STATE]

    def any_ready(self) -> bool:
        """Whether at least one worker can answer a call: what /ping tells."""
        cells = self._cells
        return any(cells[row * _COLUMNS] == READY for row in self.rows)

    def beat(self, row: int) -> None:
        """The loop of this worker is alive."""
        self._cells[row * _COLUMNS + _HEARTBEAT] = time.monotonic_ns()

    def silence(self, row: int) -> float:
        """Seconds since the loop of this worker was last seen alive."""
        return (time.monotonic_ns() - self._cells[row * _COLUMNS + _HEARTBEAT]) / 1e9

    def count_served(self, row: int) -> None:
        self._cells[row * _COLUMNS + _SERVED] += 1

    def served(self, row: int) -> int:
        """Calls answered since this worker began."""
        return self._cells[row * _COLUMNS + _SERVED]

    def set_connections(self, row: int, count: int) -> None:
        self._cells[row * _COLUMNS + _CONNECTIONS] = count

    def has_most_connections(self, row: int) -> bool:
        """Whether another ready worker holds fewer connections than this one."""
        mine = self._cells[row * _COLUMNS + _CONNECTIONS]
        return any(
            self.state(other) == READY and self._cells[other * _COLUMNS + _CONNECTIONS] < mine
            for other in self.rows
        )
