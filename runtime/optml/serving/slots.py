"""Admission: so many calls run at once in a worker, so many wait, the rest is refused at once.

A slot is a thread that does nothing but run the model. The worker's loop admits calls and keeps the time;
whoever claims a call first, its slot or its deadline, is the one who answers.
"""

from __future__ import annotations

import math
import threading
import time
import traceback
from queue import SimpleQueue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .http.connection import Connection
    from .http.request import Request
    from .websocket import Stream


class Call:
    """One request on its way to the model and back. Times are seconds of the monotonic clock."""

    __slots__ = (
        "_claim", "connection", "deadline", "id", "received", "request", "session", "started", "streaming",
    )  # fmt: skip

    def __init__(self, request: Request, connection: Connection, id: str, now: float, timeout: float) -> None:
        self.request = request
        self.connection = connection
        self.id = id
        self.received = now
        self.deadline = now + timeout
        self.started = 0.0
        self.streaming = False
        self.session: Stream | None = None
        self._claim = threading.Lock()

    def claim(self) -> bool:
        """Take the right to answer: true for the first who asks."""
        return self._claim.acquire(blocking=False)

    def begin(self, session: Stream) -> None:
        """The answer is a session: the right to end it is open again."""
        self.session = session
        self._claim.release()


class Slots:
    """The threads that run calls, and the queue before them."""

    def __init__(self, count: int, queue: int, run: Callable[[Call], None]) -> None:
        self.count = count
        self.limit = count + queue
        self._run = run
        self._calls: set[Call] = set()
        self._sessions: set[Call] = set()
        self._queue: SimpleQueue[Call] = SimpleQueue()
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
    def full(self) -> bool:
        return len(self._calls) >= self.limit or self.count <= 0

    @property
    def held(self) -> bool:
        """Whether every slot has a session, so that nobody knows when one will be free."""
        return 0 < self.count <= len(self._sessions)

    def admit(self, call: Call) -> bool:
        """Run the call as soon as a slot is free; false when too many are waiting."""
        if self.full:
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

    def expired(self, now: float) -> list[Call]:
        """Calls that nobody has answered in time; they are the caller's to answer now."""
        late = [call for call in self.calls if now > call.deadline and (call.streaming or call.claim())]
        for call in late:
            self.release(call)
        return late

    def lose_one(self) -> list[Call]:
        """A slot is stuck. Gives the calls that no slot is left to run; they are the caller's to answer."""
        self.count -= 1
        return [] if self.count > 0 else self.give_up()

    def give_up(self, before: float = math.inf) -> list[Call]:
        """Calls that have waited since before this moment; they are the caller's to answer now."""
        waiting = [c for c in self.calls if not c.started and c.received < before and c.claim()]
        for call in waiting:
            self.release(call)
        return waiting

    def _work(self) -> None:
        while True:
            call = self._queue.get()
            if call in self._calls:  # else its time was over before it began
                call.started = time.monotonic()
                self._run(call)
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
