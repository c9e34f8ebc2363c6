"""Admission: how many calls of a worker run at the same time and how many wait; the rest is refused at once.

A call runs on a slot, that is, on one thread. The worker's loop admits calls and checks both clocks.

Handing a call to another thread costs more than most other work for it. So if calls are usually quick, the
loop's thread runs them itself, between two events. If one takes longer after all, the main thread, which only
watches, passes the loop to another thread.
"""

from __future__ import annotations

import math
import os
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import TYPE_CHECKING

from .call import Call

if TYPE_CHECKING:  # websockets takes 50 ms to import
    from .websocket import Stream

_RECENT = 8  # latest runs, from which the duration of the next is estimated
_QUICK = 0.001  # seconds below which a run is quick, if there is one slot
_PATIENCE = 0.005  # seconds until the first check whether a call delays the loop
_CALM = 0.02  # at most, while calls are quick: checks take the interpreter lock from them, a tenth at 5 ms


class Slots:
    """The threads that run calls and the loop, and the queue of completely read calls.

    `run` runs a call on its slot; `refuse` is called instead for one that could not finish in time.
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
        self._queue: SimpleQueue[Call | None] = SimpleQueue()  # None: run the loop
        self._took: deque[float] = deque([0.0], maxlen=_RECENT)
        self._quick = _QUICK / max(1, count)  # less with more slots: other threads could run calls meanwhile
        self._usual = self._quick  # seconds of recent runs, as a moving average
        self._unfinished: set[Call] = set()  # also released ones that are still sending
        self._own: Call | None = None  # the call that the loop's thread will run itself
        self._lead = threading.Lock()  # held by the loop's thread, except while it runs a call
        self._begun = 0  # calls that the loop's thread has started
        self._alarm = threading.Event()  # set when it starts calls after a pause
        self._loop: Callable[[], None] | None = None
        for _ in range(count):
            self._start_thread()

    @property
    def calls(self) -> list[Call]:
        """Calls that run or wait."""
        return list(self._calls)  # atomic: slots may remove calls meanwhile

    @property
    def load(self) -> int:
        return len(self._calls)

    @property
    def busy(self) -> bool:
        return len(self._calls) >= self.count

    @property
    def held(self) -> bool:
        """Whether sessions hold all slots, so that it is unknown when one becomes free."""
        return 0 < self.count <= len(self._sessions)

    def full(self, outside: int = 0) -> bool:
        """Whether there is no room for another call; `outside`: calls that wait unread."""
        return len(self._calls) + outside >= self.limit or self.count <= 0

    def admit(self, call: Call, outside: int = 0) -> bool:
        """Run the call as soon as a slot is free; false if the queue is full."""
        if self.full(outside):
            return False
        free = self._own is None and len(self._unfinished) < self.count
        self._calls.add(call)
        self._unfinished.add(call)
        if free and self._usual < self._quick and not call.opening:
            self._own = call
        else:
            self._queue.put(call)
        return True

    def release(self, call: Call) -> None:
        """Free the slot, or the place in the queue, of a call that is over."""
        self._calls.discard(call)
        self._sessions.discard(call)

    def hold(self, call: Call, session: Stream) -> None:
        """Make the call a session, which keeps its slot for as long as it lasts."""
        self._sessions.add(call)
        call.begin(session)

    def late(self, now: float) -> list[Call]:
        """Claim the calls that are past their deadline, for the caller to answer.

        Running ones keep their slots, which do not count as stuck for that.
        """
        late = [c for c in self.calls if now > c.deadline and c.session is None and c.claim()]
        for call in late:
            if not call.started:
                self.release(call)
        return late

    def stuck(self, now: float) -> list[Call]:
        """Calls whose run exceeds its limit; their slots are lost."""
        stuck = [call for call in self.calls if now > call.limit]
        for call in stuck:
            self.count -= 1
            self.release(call)
        return stuck

    def give_up(self, before: float = math.inf) -> list[Call]:
        """Claim the calls that have waited since before this moment, for the caller to answer."""
        waiting = [c for c in self.calls if not c.started and c.received < before and c.claim()]
        for call in waiting:
            self.release(call)
        return waiting

    # The loop

    def watch(self, loop: Callable[[], None]) -> None:
        """Keep the loop running on a free thread. Never returns."""
        self._loop = loop
        self._lead.acquire()
        self._start_thread()
        self._queue.put(None)
        while True:
            self._alarm.wait()
            seen, patience = 0, _PATIENCE
            while seen != self._begun:
                seen = self._begun
                time.sleep(patience)
                patience = min(2 * patience, _CALM)
            self._alarm.clear()
            if self._lead.acquire(blocking=False):  # in one call since the last check
                self._queue.put(None)

    def run_own(self) -> bool:
        """Run the call reserved for the loop's thread; false if another has taken over the loop meanwhile."""
        call, self._own = self._own, None
        if call is None:
            return True
        self._begun += 1
        self._lead.release()
        if not self._alarm.is_set():  # checked after the release, so that every call is watched
            self._alarm.set()
        self._perform(call)
        return self._lead.acquire(blocking=False)

    def run_no_own(self) -> None:
        """From now on, run all calls on other threads."""
        self._usual = math.inf

    # The threads

    def _start_thread(self) -> None:
        threading.Thread(target=self._work, name="slot", daemon=True).start()

    def _work(self) -> None:
        while True:
            call = self._queue.get()
            if call is not None:
                self._perform(call)
                continue
            assert self._loop is not None
            try:
                self._loop()
            except BaseException:
                traceback.print_exc()
                os._exit(1)  # a worker without its loop is useless

    def _perform(self, call: Call) -> None:
        if call in self._calls:  # else it was given up before it started
            self._run_in_time(call)
        self._unfinished.discard(call)

    def _run_in_time(self, call: Call) -> None:
        # Refuse a call with less time left than the quickest recent run took. Otherwise each call of a long
        # queue would start just before its deadline, in vain.
        call.start()
        if call.deadline - call.started < min(self._took):
            self.release(call)
            if call.claim():
                self._refuse(call)
            return
        self._run(call)
        self.release(call)
        if call.session is None:
            ended = time.monotonic()
            # Outliers are capped: the machine may have been busy with other work.
            self._usual += (min(ended - call.started, 2 * self._quick) - self._usual) / _RECENT
            took = (call.answered or ended) - call.started
            self._took.append(min(took, 0.9 * call.timeout))  # a call that finds a free slot is never refused
