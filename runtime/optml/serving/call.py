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

    `deadline` is the client's: no client waits longer for a response, whatever the reason. `limit` is the
    slot's: it starts with the run, so waiting never makes a call look stuck. Whichever claims the call first
    answers it: its slot, or the loop at the deadline.
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
        self.opening = b""  # the handshake response, if this is to become a session
        self.counted = True  # false for requests that manage models
        self.session: Stream | None = None
        self._claim = threading.Lock()
        self._end = threading.Lock()

    def start(self) -> None:
        """Start the run, on a slot."""
        self.started = time.monotonic()
        self.renew()

    def renew(self) -> None:
        """Restart the slot's clock: user code has the time of a whole call again."""
        self.limit = time.monotonic() + self.timeout

    def pause(self) -> None:
        """Stop the slot's clock while the server waits for the client."""
        self.limit = math.inf

    def claim(self) -> bool:
        """Claim the right to respond: true for the first caller."""
        if not self._claim.acquire(blocking=False):
            return False
        self.answered = time.monotonic()
        return True

    def begin(self, session: Stream) -> None:
        """Turn the call into a session, whose end can be claimed again."""
        self.session = session
        self._claim.release()

    def end(self) -> bool:
        """Mark the response as complete or broken off: true for the first caller, which logs it."""
        return self._end.acquire(blocking=False)
