"""What the entry point starts, as `python3 …/optml/__main__.py train`; for people: `python -m optml`."""

from __future__ import annotations

import os
import sys

if not __package__:
    # Started by path. Training runs isolated, with nothing but us on the path. Serving shares the user's
    # interpreter, where whatever the user installed comes first.
    _package = os.path.dirname(os.path.abspath(__file__))
    _lib = os.path.dirname(_package)
    sys.path[:] = [entry for entry in sys.path if entry != _package]
    _home = os.path.dirname(_lib)
    sys.path += [_lib, f"{_home}/deps", f"{_home}/shims"]

from optml.report import UserError, log_error

_USAGE = """usage: python -m optml env                          the job as this container sees it, as JSON
       python -m optml check [--json] [ARGUMENT...]  what `train` would run, and all that is wrong with it"""


def main(argv: list[str]) -> int:
    """Run one verb and return the exit code of the container."""
    verb, *rest = argv or ["--help"]
    try:
        if verb == "train":
            if rest[:1] == ["--check"]:
                verb, rest = "check", rest[1:]
            else:
                from optml.training.train import train

                return train(rest)
        if verb == "check":
            from optml.training.check import check

            return check(rest)
        if verb == "serve":
            from optml.serving.server import serve

            return serve(rest)
        if verb == "env":
            from optml.training.job import print_environment

            return print_environment()
    except UserError as problem:
        log_error(str(problem))
        return 1
    print(_USAGE)
    return 0 if verb in ("-h", "--help") else 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
