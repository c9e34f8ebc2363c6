"""Run by the entry point as `python3 …/optml/__main__.py train`, and by people as `python -m optml`."""

from __future__ import annotations

import gc
import os
import sys

if __name__ == "__main__":
    # Import only optml and the standard library until user code runs.
    _package, _standard = os.path.dirname(os.path.abspath(__file__)), os.path.dirname(os.__file__)
    _users_path = [entry for entry in sys.path if entry != _package]
    sys.path[:] = [entry for entry in sys.path if entry.startswith(_standard) and "-packages" not in entry]
    sys.path.insert(0, os.path.dirname(_package))

from optml.report import UserError, log_error

_USAGE = """usage: python -m optml env                          the job as this container sees it, as JSON
       python -m optml check [--json] [ARGUMENT...]  what `train` would run, and everything wrong with it"""


def main(argv: list[str]) -> int:
    """Run one verb and return the container's exit code."""
    verb, *rest = argv or ["--help"]
    try:
        if verb == "train":
            gc.set_threshold(10_000)  # no collection before the program starts
            from optml.training.train import train

            os._exit(train(rest))  # nothing to clean up, and a late signal cannot change the code
        if verb == "mpirun":
            from optml.training.launcher import mpirun

            os._exit(mpirun(rest))
        if verb == "check":
            from optml.training.check import check

            return check(rest)
        if verb == "serve":
            from optml import isolation

            isolation.isolate(_users_path)  # user code runs in this interpreter
            from optml.serving.server import serve

            return serve(rest)
        if verb == "env":
            from optml.training.check import print_environment

            return print_environment()
    except UserError as problem:
        log_error(str(problem))
        return 1
    print(_USAGE)
    return 0 if verb in ("-h", "--help") else 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
