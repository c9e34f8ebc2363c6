"""Job and Program → the command line that runs the program: as one process, under torchrun, or
under Open MPI."""

from __future__ import annotations

import os

from ..report import UserError
from . import job as jobs
from . import privilege
from .record import Record
from .reporting import TORCH_VARIABLE

TYPE_CHECKING = False  # typing takes milliseconds to import
if TYPE_CHECKING:
    from .job import Job
    from .program import Program
    from .rendezvous import Host

# Distributions of the toolkits that are no engine of ours.
_UNSUPPORTED = (
    "sagemaker_parameter_server_enabled",
    "sagemaker_multi_worker_mirrored_strategy_enabled",
    "sagemaker_distributed_dataparallel_enabled",
    "sagemaker_pytorch_xla_multi_worker_enabled",
)

_TORCHRUN = ("sagemaker_torch_distributed_enabled", "sagemaker_pytorch_ddp_enabled")

PROCESSES_PER_HOST = "SAGEMAKER_PROCESSES_PER_HOST"

# Where the libraries under torch.distributed listen: else they may guess an interface that leads nowhere.
_INTERFACE_VARIABLES = ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME", "TP_SOCKET_IFNAME")


class Launch(Record):
    """What is started on this host."""

    engine: str
    """`process`, `torchrun`, `mpirun`, or `sshd` on a host that waits for the first one's mpirun."""
    argv: list[str]
    environment: dict[str, str]


def launch(job: Job, program: Program, arguments: list[str], environment: dict[str, str]) -> Launch:
    """The launch of this program on this host. Raises UserError for a distribution that is not supported."""
    for name in _UNSUPPORTED:
        if job.enabled(name):
            raise UserError(
                f"{name} is not supported; use sagemaker_torch_distributed_enabled (torchrun) or"
                " sagemaker_mpi_enabled (Open MPI)"
            )
    engine, argv = "process", program.argv + arguments
    distributed = job.current_host in job.distribution_hosts
    if distributed and job.enabled("sagemaker_mpi_enabled"):
        from . import mpi  # its imports take 50 ms

        if job.current_host == job.master:
            engine, argv = "mpirun", mpi.rank(program) + arguments
            argv, environment = mpi.mpirun(job, argv, processes_per_host(job, environment), environment)
        else:
            engine, argv = "sshd", mpi.sshd(job, environment)
    elif distributed and any(map(job.enabled, _TORCHRUN)):
        engine, argv = "torchrun", _torchrun(job, program, environment) + arguments
        error_file = f"{os.environ.get('TMPDIR', '/tmp')}/optml-{os.urandom(8).hex()}.json"
        environment = {TORCH_VARIABLE: error_file, **environment}
        if len(job.distribution_hosts) > 1:
            interfaces = dict.fromkeys(_INTERFACE_VARIABLES, job.network_interface)
            environment = {**interfaces, **environment}
    if environment.get(privilege.VARIABLE):
        if engine in ("mpirun", "sshd"):
            raise UserError(f"{privilege.VARIABLE} does not work with MPI: start the container as that user")
        argv, environment = privilege.drop(argv, environment)
    return Launch(engine=engine, argv=argv, environment=environment)


def meet(job: Job) -> Host | None:
    """Where the hosts of a distributed program meet before it starts, and notice that one of them is lost.

    None where there is one host alone, or each runs a program of its own. Studio's local mode
    (SM_STUDIO_LOCAL_MODE) has no names by which hosts could find each other.
    """
    hosts = job.distribution_hosts
    engines = ("sagemaker_mpi_enabled", *_TORCHRUN)
    if len(hosts) == 1 or job.current_host not in hosts or not any(map(job.enabled, engines)):
        return None
    if os.environ.get("SM_STUDIO_LOCAL_MODE", "").lower() == "true":
        return None
    from . import keys, rendezvous  # their imports take 20 ms

    return rendezvous.host(job.current_host, hosts, keys.Key(keys.seed(job, "rendezvous")))


def rendezvous_without_job() -> Host | None:
    """The same where the job cannot be read: its hosts are told in case they meet."""
    try:
        return meet(jobs.read(given={_TORCHRUN[0]: "true"}))
    except Exception:  # whatever it is, it has been told
        return None


def _torchrun(job: Job, program: Program, environment: dict[str, str]) -> list[str]:
    """One torchrun agent on each host of the distribution, the first host leading."""
    hosts = job.distribution_hosts
    argv = [
        *[program.python, "-m", "torch.distributed.run"],
        f"--nnodes={len(hosts)}",
        f"--nproc-per-node={processes_per_host(job, environment)}",
        f"--node-rank={hosts.index(job.current_host)}",
        # A host that is alone need not find its own name.
        f"--master-addr={environment['MASTER_ADDR'] if len(hosts) > 1 else '127.0.0.1'}",
        f"--master-port={environment['MASTER_PORT']}",
    ]
    if program.kind == "script":
        return [*argv, program.name]
    if program.kind == "module":
        return [*argv, "--module", program.module]
    return [*argv, "--no-python", *program.argv]


def processes_per_host(job: Job, environment: dict[str, str]) -> int:
    """One for each GPU, else one; SAGEMAKER_PROCESSES_PER_HOST or the job's own parameter says otherwise."""
    if setting := environment.get(PROCESSES_PER_HOST):
        return jobs.number(PROCESSES_PER_HOST, setting)
    parameter = "sagemaker_mpi_num_of_processes_per_host"
    if job.framework_parameters.get(parameter) is not None:
        return jobs.number(parameter, job.framework_parameters[parameter])
    return job.gpus or 1
