"""The phases before the program, in the child of PID 1 that then becomes the program.

A stop needs no handling here: it kills this process. What a plain job does not need is imported where used.
"""

from __future__ import annotations

import errno
import marshal
import os
import sys

from .. import paths
from ..report import UserError, described, log
from . import banner, launchers, program, secrets, source
from . import job as jobs
from .arguments import arguments
from .children import signal
from .environment import environment
from .job import Job
from .launchers import Launch
from .program import RUN_AS

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket

    from .rendezvous import Host
else:
    import _socket as socket  # the same without its enums

# Python ignores these two; the user's program must start with their default action.
_RESTORED = (signal.SIGPIPE, signal.SIGXFSZ)

# Seconds for a host whose program does not start to reach the others and tell them.
_NOTICE = 30.0


class Teller:
    """The child's end of its socket to PID 1 (`train.Preparation`)."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link

    def tell(self, **facts: object) -> None:
        self._link.sendall(marshal.dumps(facts))

    def hand_over(self, links: dict[str, socket.socket]) -> None:
        """Pass PID 1 the connections to the other hosts, which it uses from then on."""
        self.tell(links=list(links))
        for link in links.values():
            # One descriptor per message, which must also hold some data.
            descriptor = link.fileno().to_bytes(4, sys.byteorder)
            right = (socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptor)
            self._link.sendmsg([marshal.dumps({})], [right])

    def close(self) -> None:
        self._link.close()


def prepare(argv: list[str], to_pid1: Teller, stderr: int, report: int) -> None:
    """Run the phases before the program, then become the program."""
    tell = to_pid1.tell
    hidden = secrets.secret_values({})
    host, links, order = None, {}, ""
    try:
        tell(phase="reading the job")
        job = jobs.read()
        hidden = secrets.secret_values({**job.framework_parameters, **job.hyperparameters})
        host = launchers.meet(job)
        tell(phase="fetching the code", distributed=host is not None, current=job.current_host)
        directory, named = source.fetch(job)
        entry = program.find(job, directory, named)
        words = arguments(job.hyperparameters) + argv
        variables = environment(job, entry, words)
        banner.start(job, entry, hidden)
        tell(phase="installing the requirements")
        if steps := program.steps(directory):
            from . import requirements

            requirements.install(steps, entry, variables)
        banner.warn_of_driver(job, entry)
        tell(phase="meeting the other hosts")
        if host:
            links = host.join()
            to_pid1.hand_over(links)
            order = host.order() if launchers.engine(job) == "daemon" else ""
        tell(phase="starting the program")
        launch = launchers.launch(job, entry, words, variables, order)
        log(f"$ {secrets.mask_command(_shown(job, launch, words, argv), hidden)}")
        tell(
            name=entry.name,
            hidden=hidden,
            upload=_upload(job),
            follows=job.master if launch.engine == "daemon" else "",
            gpus=job.gpus,
            ranks=launch.engine in ("mpirun", "daemon"),
            orders=launch.orders,
            torch_report=launch.environment.get(launchers.TORCH_VARIABLE, ""),
        )
        _become(launch, launchers.with_runner(launch, entry, report), directory, stderr)
    except Exception as error:
        tell(failed=secrets.mask(described(error), hidden))
    to_pid1.close()
    if not links:  # otherwise PID 1 does
        announce(1, host=host)


def _shown(job: Job, launch: Launch, words: list[str], argv: list[str]) -> list[str]:
    """The command line without the secrets in objects, where masking does not find short ones."""
    if launch.engine == "daemon":  # mpirun's order
        return launch.argv
    own = launch.argv[: len(launch.argv) - len(words)]
    return own + arguments(secrets.without_secrets(job.hyperparameters)) + argv


def _upload(job: Job) -> str:
    """Where output/intermediate is uploaded while the program runs; empty for nowhere."""
    uri = str(job.framework_parameters.get("sagemaker_s3_output") or "")
    if not uri.startswith("s3://"):
        return ""
    if not os.path.isdir(f"{paths.DEPS}/boto3"):
        raise UserError("this image cannot upload to S3: boto3 is missing; use the cpu-train image")
    return "/".join(part for part in (uri.rstrip("/"), job.name, "output/intermediate") if part)


def announce(code: int, patience: float = _NOTICE, host: Host | None = None) -> None:
    """Tell the other hosts, if there are any, that the program of this one does not start.

    A job that cannot be read is taken for a distributed one.
    """
    try:
        host = host or launchers.meet(jobs.read(given={jobs.TORCHRUN[0]: "true"}))
    except Exception:
        return  # the job's error has been reported
    if host:
        host.announce(code, patience)


def _become(launch: Launch, argv: list[str], directory: str, stderr: int) -> None:
    """Become the program. Raises UserError if it cannot be started."""
    own_stderr = os.dup(2)
    os.set_inheritable(own_stderr, False)
    try:
        os.chdir(directory)
        if user := launch.environment.get(RUN_AS):
            from . import privilege

            privilege.give_pipes(user, 1, stderr)
        os.dup2(stderr, 2)
        for number in _RESTORED:
            signal.signal(number, signal.SIG_DFL)
        os.execvpe(argv[0], argv, launch.environment)
    except OSError as error:
        os.dup2(own_stderr, 2)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        hint = "; begin it with #! and its interpreter" if error.errno == errno.ENOEXEC else ""
        raise UserError(f"cannot start {launch.argv[0]} in {directory}: {error.strerror}{hint}") from error
