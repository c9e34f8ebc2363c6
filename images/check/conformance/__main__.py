"""`python -m conformance IMAGE`."""

import os
import signal
import sys


def run() -> int:
    for number in (signal.SIGINT, signal.SIGTERM):  # while modules load, there is nothing to remove
        signal.signal(number, lambda number, _: os._exit(128 + number))
    from conformance.cli import main

    return main()


sys.exit(run())
