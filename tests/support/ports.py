"""Ports of this machine."""

from __future__ import annotations

import random
import socket


def free_port(address: str = "0.0.0.0") -> int:
    """A port of this address that is free, and that the kernel gives to no outgoing connection meanwhile."""
    while True:
        port = random.randrange(20000, 32768)  # below the ephemeral ports of Linux
        try:
            socket.create_server((address, port)).close()
            return port
        except OSError:
            continue
