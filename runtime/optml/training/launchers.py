"""Job and Program → the command line that runs the program: as one process, under torchrun, or
under Open MPI."""

from __future__ import annotations

import os

from .. import paths
from ..hints import Mapping
from ..report import UserError
from . import job as jobs
from .cluster import INDEX, RESOURCES
from .job import MPI, TORCHRUN, Job
from .program import RUN_AS, Program, which
from .record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .rendezvous import Host

# Distributions of the toolkits that are not supported.
_UNSUPPORTED = (
    "sagemaker_parameter_server_enabled",
    "sagemaker_multi_worker_mirrored_strategy_enabled",
    "sagemaker_distributed_dataparallel_enabled",
    "sagemaker_pytorch_xla_multi_worker_enabled",
)

# If one of these is set, the container was started for torchrun.
_PET = ("PET_NNODES", "PET_NPROC_PER_NODE")

_NO_NAMES = "SM_STUDIO_LOCAL_MODE"
_NAMES = f"name all hosts in {RESOURCES}"

# The file to which torchrun copies its first failure.
TORCH_VARIABLE = "TORCHELASTIC_ERROR_FILE"

PROCESSES_PER_HOST = "SAGEMAKER_PROCESSES_PER_HOST"

# The interface for the libraries under torch.distributed, which may otherwise guess one that leads nowhere.
_INTERFACE_VARIABLES = ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME", "TP_SOCKET_IFNAME")

_RUNNER = f"{paths.LIB}/optml/training/runner.py"


class Launch(Record):
    """What is started on this host."""

    engine: str
    """`process`, `torchrun`, `mpirun`, or `daemon`: mpirun's own on each host but the first."""
    argv: list[str]
    environment: dict[str, str]
    orders: str = ""
    """The FIFO to which mpirun's agent writes, or empty."""


def engine(job: Job, environment: Mapping[str, str] = os.environ) -> str:
    """The `engine` of this host's `Launch`. Raises UserError for a distribution that is not supported, or
    that lacks its hosts."""
    for name in _UNSUPPORTED:
        if job.enabled(name):
            raise UserError(
                f"{name} is not supported; use sagemaker_torch_distributed_enabled (torchrun) or"
                " sagemaker_mpi_enabled (Open MPI)"
            )
    _check_hosts(job, environment)
    if job.current_host not in job.distribution_hosts or (job.cluster and job.cluster.of_processes):
        return "process"
    if job.enabled(MPI):
        return "mpirun" if job.current_host == job.master else "daemon"
    is_torchrun = any(map(job.enabled, TORCHRUN)) or any(map(environment.get, _PET))
    return "torchrun" if is_torchrun else "process"


def launch(
    job: Job, program: Program, arguments: list[str], environment: dict[str, str], order: str = ""
) -> Launch:
    """The launch of this program on this host, or of mpirun's `order` to a daemon.

    Raises UserError if it cannot be launched.
    """
    name, argv, orders = engine(job, environment), program.argv + arguments, ""
    if name in ("mpirun", "daemon"):
        from . import mpi  # its imports take 50 ms

        refuse_user(environment)
        if name == "daemon":
            argv = mpi.daemon(order)
        else:
            argv, processes = mpi.rank(program) + arguments, processes_per_host(job, environment)
            argv, environment, orders = mpi.mpirun(job, argv, processes, environment)
    elif name == "torchrun":
        argv = _torchrun(job, program, environment) + arguments
        error_file = f"{os.environ.get('TMPDIR', '/tmp')}/optml-{os.urandom(8).hex()}.json"
        several = _INTERFACE_VARIABLES if len(job.distribution_hosts) > 1 else ()
        interfaces = dict.fromkeys(several, job.network_interface)
        environment = {TORCH_VARIABLE: error_file, **interfaces, **environment}
    elif job.cluster:
        environment = {**job.cluster.process, **environment}
    if environment.get(RUN_AS):
        from . import privilege

        argv, environment = privilege.drop(argv, environment, job.checkpoint_dir)
    return Launch(engine=name, argv=argv, environment=environment, orders=orders)


def refuse_user(environment: Mapping[str, str]) -> None:
    """Raise UserError if MPI is to run as another user."""
    if environment.get(RUN_AS):
        raise UserError(f"{RUN_AS} does not work with MPI: start the container as that user")


def with_runner(launch: Launch, program: Program, fd: int) -> list[str]:
    """The command line of this launch, with the runner before the program if that is Python."""
    words, own = launch.argv, program.argv
    if program.kind not in ("script", "module", "function"):
        return words
    runner = [program.kind, own[-1]]
    if launch.engine == "process":
        os.set_inheritable(fd, True)
        return _replaced(words, own, [program.python, _RUNNER, str(fd), *runner])
    if launch.engine == "torchrun":
        in_words = [program.name] if program.kind == "script" else ["--module", program.module]
        return _replaced(words, in_words, [_RUNNER, "-1", *runner])
    return words


def meet(job: Job) -> Host | None:
    """This host's side of the rendezvous before a distributed program, which also detects lost hosts.

    None for a single host, if each host runs its own program, and under a scheduler, which must detect lost
    hosts itself. Also None in Studio's local mode, where hosts have no names: MPI raises UserError there.
    """
    name = engine(job)
    if job.cluster and job.cluster.scheduler != RESOURCES:
        return None
    if len(job.distribution_hosts) == 1 or name == "process":
        return None
    if os.environ.get(_NO_NAMES, "").lower() == "true":
        if name == "daemon":
            raise UserError(f"MPI needs the hosts to have names, but {_NO_NAMES} says that there are none")
        return None
    from . import keys, rendezvous  # their imports take 20 ms

    part = rendezvous.FirstHost if job.current_host == job.master else rendezvous.OtherHost
    return part(job.current_host, job.distribution_hosts, keys.derive(job))


def _check_hosts(job: Job, environment: Mapping[str, str]) -> None:
    """Check that a distributed job knows its hosts, so that none trains alone by mistake."""
    asked = next(filter(job.enabled, (MPI, *TORCHRUN)), None)
    if asked and not job.cluster and (index := environment.get(INDEX)):
        index = index if index.isdecimal() else repr(index)
        raise UserError(
            f"{asked} is set and {INDEX} is {index}, but nothing says how many hosts there are; {_NAMES}"
        )
    if asked == MPI and job.cluster and job.cluster.scheduler != RESOURCES and len(job.hosts) > 1:
        raise UserError(
            f"{asked} is set, but {job.cluster.scheduler} does not give mpirun the hosts' names; {_NAMES}"
        )


def _torchrun(job: Job, program: Program, environment: dict[str, str]) -> list[str]:
    """One torchrun agent on each host of the distribution; the first host leads.

    Options set by torchrun's own PET_* variables are left out, because the command line takes precedence.
    """
    hosts = job.distribution_hosts
    options = {
        "NNODES": len(hosts),
        "NPROC_PER_NODE": processes_per_host(job, environment),
        "NODE_RANK": hosts.index(job.current_host),
        # A single host need not resolve its own name.
        "MASTER_ADDR": environment["MASTER_ADDR"] if len(hosts) > 1 else "127.0.0.1",
        "MASTER_PORT": environment["MASTER_PORT"],
    }
    present = {name for name in options if environment.get(f"PET_{name}")}
    if environment.get("PET_RDZV_ENDPOINT") or environment.get("PET_RDZV_BACKEND", "static") != "static":
        present |= {"NODE_RANK", "MASTER_ADDR", "MASTER_PORT"}
    if environment.get(PROCESSES_PER_HOST):  # the user's; PET_* is the operator's
        present -= {"NPROC_PER_NODE"}
    # On SageMaker HyperPod, hyperpodrun replaces torchrun, with the same options.
    # https://docs.aws.amazon.com/sagemaker/latest/dg/sagemaker-eks-operator-install.html
    hyperpod = which("hyperpodrun")
    argv = [hyperpod] if hyperpod else [program.python, "-m", "torch.distributed.run"]
    argv += [
        f"--{name.lower().replace('_', '-')}={value}"
        for name, value in options.items()
        if name not in present
    ]
    if program.kind == "script":
        return [*argv, program.name]
    if program.kind == "module":
        return [*argv, "--module", program.module]
    return [*argv, "--no-python", *program.argv]


def processes_per_host(job: Job, environment: dict[str, str]) -> int:
    """SAGEMAKER_PROCESSES_PER_HOST, else the job's own parameter, else one per GPU, else one."""
    if setting := environment.get(PROCESSES_PER_HOST):
        return jobs.number(PROCESSES_PER_HOST, setting)
    parameter = "sagemaker_mpi_num_of_processes_per_host"
    if job.framework_parameters.get(parameter) is not None:
        return jobs.number(parameter, job.framework_parameters[parameter])
    return job.gpus or 1


def _replaced(words: list[str], old: list[str], new: list[str]) -> list[str]:
    """The words with the first occurrence of `old` replaced by `new`."""
    for at in range(len(words)):
        if words[at : at + len(old)] == old:
            return words[:at] + new + words[at + len(old) :]
    return words
