"""One call on its way to the model and back."""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING

from .http.connection import Connection
from .http.request import Request

if TYPE_CHECKING:  # websockets takes 50 ms to import
    from .websocket import Stream


class Call:
    """A request with its two clocks, in seconds of the monotonic clock.

    `deadline` is the client's: nobody waits longer for an answer, whatever the reason. `limit` is the
    slot's: it begins with the run itself, so waiting never makes a call look stuck. Whoever claims the call
    first, its slot or the loop at the deadline, is the one who answers.
    """

    def __init__(
        self, request: Request, connection: Connection, id: str, received: float, timeout: float
    ) -> None:
        self.request = request
        self.connection = connection
        self.id = id
        self.received = received
        self.timeout = timeout
        self.deadline = received + timeout
        self.limit = math.inf
        self.started = 0.0
        self.answered = 0.0
        self.streaming = False
        self.opening = b""  # what opens a session, where it asks for one
        self.counted = True  # it is for a model, and not about models
        self.session: Stream | None = None
        self._claim = threading.Lock()
        self._end = threading.Lock()

    def start(self) -> None:
        """The run begins, on a slot."""
        self.started = time.monotonic()
        self.renew()

    def renew(self) -> None:
        """From here on the user's code has the time of a whole call."""
        self.limit = time.monotonic() + self.timeout

    def pause(self) -> None:
        """The client is waited for, and not the user's code."""
        self.limit = math.inf

    def claim(self) -> bool:
        """Take the right to answer: true for the first who asks."""
        if not self._claim.acquire(blocking=False):
            return False
        self.answered = time.monotonic()
        return True

    def begin(self, session: Stream) -> None:
        """The answer is a session: the right to end it is open again."""
        self.session = session
        self._claim.release()

    def end(self) -> bool:
        """The answer is complete or broken: true for the first who says so, and writes its line."""
        return self._end.acquire(blocking=False)
