"""What the entry point starts, as `python3 …/optml/__main__.py train`; for people: `python -m optml`."""

from __future__ import annotations

import gc
import os
import sys

if __name__ == "__main__":
    # Nothing but us and the standard library, until the user's code comes.
    _package, _standard = os.path.dirname(os.path.abspath(__file__)), os.path.dirname(os.__file__)
    _users_path = [entry for entry in sys.path if entry != _package]
    sys.path[:] = [entry for entry in sys.path if entry.startswith(_standard) and "-packages" not in entry]
    sys.path.insert(0, os.path.dirname(_package))

from optml.report import UserError, log_error

_USAGE = """usage: python -m optml env                          the job as this container sees it, as JSON
       python -m optml check [--json] [ARGUMENT...]  what `train` would run, and all that is wrong with it"""


def main(argv: list[str]) -> int:
    """Run one verb and return the exit code of the container."""
    verb, *rest = argv or ["--help"]
    try:
        if verb == "train":
            gc.set_threshold(10_000)  # no collection before the program has started
            from optml.training.train import train

            os._exit(train(rest))  # nothing is left to clean up, and a signal changes nothing more
        if verb == "mpirun":
            from optml.training.launcher import mpirun

            os._exit(mpirun(rest))
        if verb == "check":
            from optml.training.check import check

            return check(rest)
        if verb == "serve":
            from optml import house

            house.isolate(_users_path)  # the interpreter is the user's, too
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
