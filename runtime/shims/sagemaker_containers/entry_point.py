"""What scripts for several hosts call before they speak to the others."""

import socket
import time


def _wait_hostname_resolution(timeout: float = 15 * 60) -> None:
    """Block until the names of all hosts resolve; raises OSError if one does not in `timeout` seconds."""
    from . import training_env

    deadline = time.monotonic() + timeout
    for host in training_env().hosts:
        while True:
            try:
                socket.getaddrinfo(host, None)
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(1)
