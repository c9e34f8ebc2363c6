"""The hosts of a job find each other by names that resolve only some time after the container has started."""

from __future__ import annotations

import socket
import time

from ..report import UserError, log

PATIENCE = 15 * 60.0
_PAUSE = 0.5
_REMIND_EVERY = 30.0


def wait_for_names(hosts: list[str], patience: float = PATIENCE) -> None:
    """Wait until every one of these names resolves; all are asked in each round.

    Raises UserError naming those that do not within `patience` seconds.
    """
    start = time.monotonic()
    said = start
    while missing := [host for host in hosts if not resolves(host)]:
        now = time.monotonic()
        if now - start > patience:
            raise UserError(
                f"no address for {', '.join(missing)} after {now - start:.0f} s; check that every host of"
                " resourceconfig.json was started, in the same network"
            )
        if now - said > _REMIND_EVERY:
            said = now
            log(f"waiting for the names of {', '.join(missing)}")
        time.sleep(_PAUSE)


def resolves(host: str) -> bool:
    """Whether the name has an address now."""
    try:
        return bool(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM))
    except (OSError, UnicodeError):
        return False
