"""New connections: who takes them, and for how long one leaves them to others who should."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .http.loop import ONCE

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from .http.loop import Loop


class Acceptor:
    """The listeners of one process. `patience` tells for how many seconds to leave a connection to others."""

    def __init__(
        self,
        loop: Loop,
        listeners: list[Any],
        adopt: Callable[[socket.socket], object],
        patience: Callable[[], float],
    ) -> None:
        self._loop = loop
        self._adopt = adopt
        self._patience = patience
        self._left = 0.0  # when a connection came that is left to others
        self._listeners = {listener.fileno(): listener.sock for listener in listeners}
        for fd in self._listeners:
            loop.watch(fd, self._on_connection, ONCE)

    @property
    def is_waiting(self) -> bool:
        """Whether a connection is left to others now."""
        return bool(self._left)

    def look_at_clock(self) -> None:
        """Take what others were too long about."""
        if self._left and self._loop.now - self._left >= self._patience():
            self._take()

    def stop(self, take_rest: bool) -> None:
        """Leave whoever comes now to others; take those who have connected already, where asked."""
        for fd, listener in self._listeners.items():
            while take_rest and self._accept(listener):
                pass
            self._loop.ignore(fd)
            listener.close()
        self._listeners = {}
        self._left = 0.0

    def _on_connection(self) -> None:
        if not self._patience():
            self._take()
        elif not self._left:
            self._left = self._loop.now

    def _take(self) -> None:
        self._left = 0.0
        for fd, listener in self._listeners.items():
            self._accept(listener)
            self._loop.watch_again(fd)

    def _accept(self, listener: socket.socket) -> bool:
        """Take one new connection; false when there is none."""
        try:
            sock, _ = listener.accept()
        except OSError:
            return False  # another process was faster, or the client is gone
        self._adopt(sock)
        return True
