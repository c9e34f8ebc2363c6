"""Prints the name of each GPU that NVML reports, one a line.

A program of its own, because what a broken driver does to it (hang, crash, an error in any call) must not
happen to whoever asks; `machine.py` does.
"""

from __future__ import annotations

import sys


def main(deps: str) -> None:
    sys.path.append(deps)
    import pynvml

    pynvml.nvmlInit()
    for index in range(pynvml.nvmlDeviceGetCount()):
        name = pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(index))
        print(name.decode() if isinstance(name, bytes) else name)


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except Exception as error:
        sys.exit(f"{type(error).__name__}: {error}")
