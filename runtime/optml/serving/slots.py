"""Admission: so many calls run at once in a worker, so many wait, the rest is refused at once.

A slot is a thread that does nothing but run the model. The worker's loop admits calls and keeps both clocks.
"""

from __future__ import annotations

import math
import threading
import time
import traceback
from collections import deque
from queue import SimpleQueue

from .call import Call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .websocket import Stream

_RECENT = 8  # runs from which we know how long one takes at least


class Slots:
    """The threads that run calls, and the calls that have been read completely and wait for one.

    `run` runs a call on its slot; `refuse` answers one that could not end in time, in its place.
    """

    def __init__(
        self, count: int, queue: int, run: Callable[[Call], None], refuse: Callable[[Call], None]
    ) -> None:
        self.count = count
        self.limit = count + queue
        self._run = run
        self._refuse = refuse
        self._calls: set[Call] = set()
        self._sessions: set[Call] = set()
        self._queue: SimpleQueue[Call] = SimpleQueue()
        self._took: deque[float] = deque([0.0], maxlen=_RECENT)
        for _ in range(count):
            threading.Thread(target=self._work, name="slot", daemon=True).start()

    @property
    def calls(self) -> list[Call]:
        """Calls that run or wait."""
        return list(self._calls)  # one step of the interpreter: slots may remove theirs meanwhile

    @property
    def busy(self) -> bool:
        return len(self._calls) >= self.count

    @property
    def held(self) -> bool:
        """Whether every slot has a session, so that nobody knows when one will be free."""
        return 0 < self.count <= len(self._sessions)

    def full(self, outside: int = 0) -> bool:
        """Whether one more, besides those that wait outside, is too many."""
        return len(self._calls) + outside >= self.limit or self.count <= 0

    def admit(self, call: Call, outside: int = 0) -> bool:
        """Run the call as soon as a slot is free; false when too many are waiting."""
        if self.full(outside):
            return False
        self._calls.add(call)
        self._queue.put(call)
        return True

    def release(self, call: Call) -> None:
        """The call is over."""
        self._calls.discard(call)
        self._sessions.discard(call)

    def hold(self, call: Call, session: Stream) -> None:
        """The call has become a session, which keeps its slot for as long as it lasts."""
        self._sessions.add(call)
        call.begin(session)

    def late(self, now: float) -> list[Call]:
        """Calls that nobody has answered in time; they are the caller's to answer now.

        One that runs keeps its slot, which is not stuck for that.
        """
        late = [c for c in self.calls if now > c.deadline and c.session is None and c.claim()]
        for call in late:
            if not call.started:
                self.release(call)
        return late

    def stuck(self, now: float) -> list[Call]:
        """Calls whose own run takes longer than any may; each takes its slot with it."""
        stuck = [call for call in self.calls if now > call.limit]
        for call in stuck:
            self.count -= 1
            self.release(call)
        return stuck

    def give_up(self, before: float = math.inf) -> list[Call]:
        """Calls that have waited since before this moment; they are the caller's to answer now."""
        waiting = [c for c in self.calls if not c.started and c.received < before and c.claim()]
        for call in waiting:
            self.release(call)
        return waiting

    def _work(self) -> None:
        while True:
            call = self._queue.get()
            if call not in self._calls:
                continue  # its time was over before it began
            # As many calls as come in their last moment are started in vain, if each begins that can: what
            # even the quickest of the last could not do in the time that is left is refused.
            if call.deadline - time.monotonic() < min(self._took):
                self.release(call)
                if call.claim():
                    self._refuse(call)
                continue
            call.start()
            self._run(call)
            if call.session is None:
                took = (call.answered or time.monotonic()) - call.started
                self._took.append(min(took, 0.9 * call.timeout))  # who comes to a free slot is never refused
            self.release(call)


class Executor:
    """One thread beside the loop, started when it is first needed, that does one thing after the other."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._actions: SimpleQueue[Callable[[], None]] | None = None

    def do(self, action: Callable[[], None]) -> None:
        if self._actions is None:
            self._actions = SimpleQueue()
            threading.Thread(target=self._work, args=(self._actions,), name=self._name, daemon=True).start()
        self._actions.put(action)

    def _work(self, actions: SimpleQueue[Callable[[], None]]) -> None:
        while True:
            try:
                actions.get()()
            except Exception:
                traceback.print_exc()
