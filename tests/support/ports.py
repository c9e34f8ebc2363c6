"""Ports of this machine."""

from __future__ import annotations

import random
import socket


def free_port(address: str = "0.0.0.0") -> int:
    """A port of this address that nobody uses now, nor takes for a connection of its own until it is used."""
    while True:
        port = random.randrange(20000, 32768)  # below those that Linux gives to connections
        try:
            socket.create_server((address, port)).close()
            return port
        except OSError:
            continue
