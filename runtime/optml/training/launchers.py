"""Job and Program → the command line that runs the program: as one process, under torchrun, or
under Open MPI."""

from __future__ import annotations

import os

from ..report import Problem
from .environment import MASTER_PORT
from .record import Record

TYPE_CHECKING = False  # typing takes milliseconds to import
if TYPE_CHECKING:
    from .job import Job
    from .program import Program

# Distributions of the toolkits that are no engine of ours.
_UNSUPPORTED = (
    "sagemaker_parameter_server_enabled",
    "sagemaker_multi_worker_mirrored_strategy_enabled",
    "sagemaker_distributed_dataparallel_enabled",
    "sagemaker_pytorch_xla_multi_worker_enabled",
)

PROCESSES_PER_HOST = "SAGEMAKER_PROCESSES_PER_HOST"

# Where the libraries under torch.distributed listen: else they may guess an interface that leads nowhere.
_INTERFACE_VARIABLES = ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME", "TP_SOCKET_IFNAME")


class Launch(Record):
    """What is started on this host."""

    engine: str
    """`process`, `torchrun` or `mpi`."""
    argv: list[str]
    environment: dict[str, str]
    """Variables that the engine needs, each a default that the user's own value beats."""


def launch(job: Job, program: Program, arguments: list[str]) -> Launch:
    """The launch of this program on this host. Raises Problem for a distribution that is not supported."""
    for name in _UNSUPPORTED:
        if job.enabled(name):
            raise Problem(
                f"{name} is not supported; use sagemaker_torch_distributed_enabled (torchrun) or"
                " sagemaker_mpi_enabled (Open MPI)"
            )
    if job.current_host in job.distribution_hosts:
        if job.enabled("sagemaker_mpi_enabled"):
            from . import mpi

            return mpi.launch(job, program, arguments)
        if job.enabled("sagemaker_torch_distributed_enabled") or job.enabled("sagemaker_pytorch_ddp_enabled"):
            return _torchrun(job, program, arguments)
    return Launch(engine="process", argv=program.argv + arguments, environment={})


def _torchrun(job: Job, program: Program, arguments: list[str]) -> Launch:
    """One torchrun agent on each host of the distribution, the first host leading."""
    hosts = job.distribution_hosts
    alone = len(hosts) == 1
    argv = [
        *[program.python, "-m", "torch.distributed.run"],
        f"--nnodes={len(hosts)}",
        f"--nproc-per-node={processes_per_host(job)}",
        f"--node-rank={hosts.index(job.current_host)}",
        # A host that is alone need not find its own name.
        f"--master-addr={'127.0.0.1' if alone else job.master}",
        f"--master-port={os.environ.get('MASTER_PORT') or MASTER_PORT}",
    ]
    if program.kind == "script":
        argv += [program.name]
    elif program.kind == "module":
        argv += ["--module", program.module]
    else:
        argv += ["--no-python", *program.argv]
    interface = {} if alone else dict.fromkeys(_INTERFACE_VARIABLES, job.network_interface)
    return Launch(engine="torchrun", argv=argv + arguments, environment=interface)


def processes_per_host(job: Job) -> int:
    """One for each GPU, else one; SAGEMAKER_PROCESSES_PER_HOST or the job's own parameter says otherwise."""
    wanted = os.environ.get(PROCESSES_PER_HOST) or job.framework_parameters.get(
        "sagemaker_mpi_num_of_processes_per_host"
    )
    if wanted is None:
        return job.gpus or 1
    if not str(wanted).isdecimal() or int(wanted) == 0:
        raise Problem(f"{PROCESSES_PER_HOST} is {wanted!r}; it must be a number from 1 up")
    return int(wanted)
