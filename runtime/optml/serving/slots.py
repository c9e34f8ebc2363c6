"""Admission: so many calls run at once in a worker, so many wait, the rest is refused at once.

A call runs on a slot: a thread's time. The worker's loop admits calls and keeps both clocks.

Handing a call to another thread costs more than most of what else is done for it. So where calls usually end
in no time, the thread that has the loop runs them itself, between two events. Should one take its time after
all, the main thread, which does nothing but watch, has another thread go on with the loop.
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

_RECENT = 8  # runs from which we know how long one takes
_QUICK = 0.001  # seconds of a run that is quick where a worker runs one call at a time
_PATIENCE = 0.005  # seconds for which a call may keep the loop waiting
_CALM = 0.02  # and while others have been quick: every look takes the interpreter from them, a tenth at 5 ms


class Slots:
    """The threads that run calls and the loop, and the calls that have been read completely and wait.

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
        self._queue: SimpleQueue[Call | None] = SimpleQueue()  # None stands for the loop
        self._took: deque[float] = deque([0.0], maxlen=_RECENT)
        self._quick = _QUICK / max(1, count)  # calls that another thread could run at the same time lose most
        self._usual = self._quick  # seconds of a run, of late
        self._unfinished: set[Call] = set()  # also those that are over but for the end of their answers
        self._own: Call | None = None  # the call that the loop's thread is to run itself
        self._lead = threading.Lock()  # held by the thread that has the loop, but while it runs a call
        self._begun = 0  # calls that it has begun
        self._alarm = threading.Event()  # set when calls begin after a pause
        self._loop: Callable[[], None] | None = None
        for _ in range(count):
            self._start_thread()

    @property
    def calls(self) -> list[Call]:
        """Calls that run or wait."""
        return list(self._calls)  # one step of the interpreter: slots may remove theirs meanwhile

    @property
    def load(self) -> int:
        return len(self._calls)

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
        free = self._own is None and len(self._unfinished) < self.count
        self._calls.add(call)
        self._unfinished.add(call)
        if free and self._usual < self._quick and not call.opening:
            self._own = call
        else:
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

    # The loop

    def watch(self, loop: Callable[[], None]) -> None:
        """Run the loop on a thread that is free, always. Never returns."""
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
            if self._lead.acquire(blocking=False):  # it is in a call, and not for a moment
                self._queue.put(None)

    def run_own(self) -> bool:
        """Run the call that was left to the loop's own thread; false when another has the loop afterwards."""
        call, self._own = self._own, None
        if call is None:
            return True
        self._begun += 1
        self._lead.release()
        if not self._alarm.is_set():  # looked at after the release, so that no call is without a watch
            self._alarm.set()
        self._perform(call)
        return self._lead.acquire(blocking=False)

    def run_no_own(self) -> None:
        """From now on the loop's thread has nothing else to do."""
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
                os._exit(1)  # without its loop the worker is no good

    def _perform(self, call: Call) -> None:
        if call in self._calls:  # else its time was over before it began
            self._run_in_time(call)
        self._unfinished.discard(call)

    def _run_in_time(self, call: Call) -> None:
        # As many calls as come in their last moment are started in vain, if each begins that can: what
        # even the quickest of the last could not do in the time that is left is refused.
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
            # An outlier counts no more than twice: the machine may have been busy with others.
            self._usual += (min(ended - call.started, 2 * self._quick) - self._usual) / _RECENT
            took = (call.answered or ended) - call.started
            self._took.append(min(took, 0.9 * call.timeout))  # who comes to a free slot is never refused
