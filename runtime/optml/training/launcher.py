"""mpirun as the container's program, as in the launcher of a Kubeflow MPIJob."""

from __future__ import annotations

import os

from ..report import log_error
from .peers import Peers
from .supervisor import Supervisor

# Open MPI 4 and 5 print this and exit with the lost daemon's code: with 0 if it is unknown.
_LOST = "has lost communication with a remote daemon"


def mpirun(argv: list[str]) -> int:
    """Run mpirun with these arguments and return its exit code, but 1 instead of 0 if it lost a host."""
    supervisor = Supervisor()
    stderr, its_stderr = os.pipe()

    def work() -> None:
        os.dup2(its_stderr, 2)
        os.execvp("mpirun", ["mpirun", *argv])

    child = supervisor.start(work)
    os.close(its_stderr)
    ended = supervisor.run(child, stderr, Peers("", {}, ""))
    if ended.code == 0 and _LOST in ended.tail:
        log_error("mpirun has lost a host but exited with 0: this is a failure")
        return 1
    return ended.code
