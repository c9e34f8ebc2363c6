"""`train`: the life of a training container, from the platform's files to an exit code.

A job goes through these phases: read, fetch, install, meet, start (`phases.py`, in a child that becomes
the program), run (`supervisor.py`), upload (`intermediate.py`, in a child) and report (`outcome.py`).
"""

from __future__ import annotations

import io
import marshal
import os
import sys

from .. import machine, paths
from ..hints import Any
from ..report import UserError, described
from .supervisor import Supervisor

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
else:
    import _socket as socket  # the same without its enums

STOP_TIMEOUT = "SAGEMAKER_STOP_TIMEOUT"

# SageMaker kills a container 120 s after it asks it to stop.
_PATIENCE = 120.0
# Seconds for a host that is stopped before its program runs to tell the others.
_LAST_WORD = 0.7


def train(argv: list[str]) -> int:
    """Run the training job of this container and return its exit code: that of the user's program.

    `argv` is passed to the program after the hyperparameters. An error in the job is reported in one
    line, in the log and in `output/failure`, and returns 1.
    """
    try:
        return _train(argv, Supervisor())
    except Exception as error:
        from . import outcome
        from .secrets import secret_values

        return outcome.fail(1, described(error), secret_values({}))


def _train(argv: list[str], supervisor: Supervisor) -> int:
    prepare_output()
    supervisor.patience = patience()
    kills_before = machine.oom_kills()  # before there is anything to kill
    start = Preparation(supervisor, argv)
    from . import outcome  # imported while the child works

    supervisor.wait(lambda: start.over)
    facts = start.facts
    if not start.runs:
        return _fail_before_the_program(supervisor, start)

    from . import intermediate  # imported while the program starts
    from .peers import Peers

    peers = Peers(facts["current"], start.links, facts["follows"], facts["orders"])
    with intermediate.upload(supervisor, facts["upload"]):
        ended = supervisor.run(start.child, start.stderr, peers, facts["ranks"])
        code = peers.code(ended.code)
        peers.close(code)
    if code == 0:
        return outcome.succeed()
    report = outcome.read_report(start.report, facts["torch_report"])
    kills, hidden = machine.oom_kills() - kills_before, facts["hidden"]
    reason = outcome.reason(facts["name"], ended, kills, hidden, report, facts["gpus"] > 0)
    return outcome.fail(code, reason, hidden)


def _fail_before_the_program(supervisor: Supervisor, start: Preparation) -> int:
    from . import outcome

    code, reason = _why_not(supervisor, start)
    outcome.fail(code, reason, start.facts.get("hidden", []))
    if start.links:
        from .peers import Peers

        Peers(start.facts["current"], start.links, "").close(code)
    elif "failed" in start.facts:  # the child tells the others
        supervisor.wait(lambda: start.child.ended)
    elif start.facts.get("distributed", True):
        from .phases import announce

        notice = supervisor.start(lambda: announce(code, _LAST_WORD))
        supervisor.wait(lambda: notice.ended, _LAST_WORD)
    return code


def _why_not(supervisor: Supervisor, start: Preparation) -> tuple[int, str]:
    """Exit code and reason of a job whose program does not start."""
    phase = start.facts.get("phase", "starting")
    if "failed" in start.facts:
        return 1, start.facts["failed"]
    if supervisor.stopped:
        start.child.kill()
        return 128 + supervisor.stopped, f"stopped by signal {supervisor.stopped} while {phase}"
    supervisor.wait(lambda: start.child.ended, 1)
    status = os.waitstatus_to_exitcode(start.child.status or 0)
    how = f"was killed by signal {-status}" if status < 0 else f"ended with code {status}"
    return 128 - status if status < 0 else 1, f"optml {how} while {phase}"


class Preparation:
    """The child that prepares the job (`phases.py`) and then becomes the program.

    Through a socket it reports each phase and, at the end, what PID 1 must know of the job, with the
    connections to the other hosts. If the socket closes without a reported failure, the program runs.
    """

    def __init__(self, supervisor: Supervisor, argv: list[str]) -> None:
        self.over = False
        """Whether the program runs, or never will."""
        self._fds: list[int] = []
        self._received = b""
        self._socket, its_socket = socket.socketpair()
        self.stderr, its_stderr = os.pipe()
        self.report, its_report = os.pipe()

        def work() -> None:
            from .phases import Teller, prepare  # PID 1 needs none of its imports

            prepare(argv, Teller(its_socket), its_stderr, its_report)

        self.child = supervisor.start(work)
        its_socket.close()
        os.close(its_stderr)
        os.close(its_report)
        supervisor.watch(self._socket.fileno(), self._receive)

    @property
    def facts(self) -> dict[str, Any]:
        """What the child has reported: `phase`; `failed`, if so; `name`, `hidden` and others at the end."""
        facts: dict[str, Any] = {}
        messages = io.BytesIO(self._received)
        try:
            while True:
                facts.update(marshal.load(messages))
        except EOFError:
            return facts

    @property
    def runs(self) -> bool:
        """Whether the child has become the program."""
        return self.over and "name" in self.facts and "failed" not in self.facts

    @property
    def links(self) -> dict[str, int]:
        """The connections to other hosts, by host."""
        return dict(zip(self.facts.get("links", ()), self._fds, strict=False))

    def _receive(self) -> bool:
        descriptor = socket.CMSG_SPACE(4)  # one per message
        piece, ancillary, *_ = self._socket.recvmsg(1 << 16, descriptor, socket.MSG_CMSG_CLOEXEC)
        for _, _, fd in ancillary:
            self._fds.append(int.from_bytes(fd, sys.byteorder))
        self._received += piece
        self.over = not piece
        return bool(piece)


def prepare_output() -> None:
    """Make the directories that programs write to, and remove the outcome of an earlier run.

    Both as far as the mounts allow. What user code writes from now on is kept.
    """
    for directory in (paths.MODEL, paths.OUTPUT_DATA, paths.OUTPUT_INTERMEDIATE):
        try:
            os.makedirs(directory, exist_ok=True)
        except OSError:
            pass  # the program fails if it needs it
    for path in (paths.FAILURE, paths.SUCCESS):
        try:
            os.unlink(path)
        except OSError:
            pass  # there is none, or it is on a read-only mount, where ours cannot be written either


def patience() -> float:
    """Seconds from the request to stop to the end. Raises UserError if the variable is invalid."""
    text = os.environ.get(STOP_TIMEOUT) or str(_PATIENCE)
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 1 <= seconds <= 86400:
        raise UserError(f"{STOP_TIMEOUT} is {text!r}; it must be a number of seconds from 1 to 86400")
    return seconds
