"""The Cluster that each scheduler's variables describe: one function each, with its source.

Imported only if such variables are set. Nothing here calls a scheduler's API.
"""

from __future__ import annotations

import os

from ..hints import Mapping
from ..report import UserError
from .cluster import MASTER_PORT, Cluster, placed
from .nodelist import expand
from .program import which


def claims(environ: Mapping[str, str], gpus: int) -> list[Cluster]:
    """The cluster of each scheduler found. `gpus` counts those of this host."""
    found = [torchrun(environ), jax(environ), xgboost(environ, gpus)]
    found += [batch(environ), skypilot(environ), slurm(environ)]
    return [cluster for cluster in found if cluster]


def torchrun(environ: Mapping[str, str]) -> Cluster | None:
    """A Kubeflow TrainJob or PyTorchJob, or anything else that sets torchrun's own PET_* variables.

    https://github.com/kubeflow/trainer/blob/master/pkg/runtime/framework/plugins/torch/torch.go
    https://github.com/kubeflow/trainer/blob/release-1.9/pkg/controller.v1/pytorch/envvar.go and elastic.go
    https://github.com/pytorch/pytorch/blob/main/torch/distributed/run.py
    """
    host, _, port = environ.get("PET_RDZV_ENDPOINT", "").rpartition(":")
    leader = environ.get("PET_MASTER_ADDR") or host or environ.get("MASTER_ADDR") or "localhost"
    port = environ.get("PET_MASTER_PORT") or port or environ.get("MASTER_PORT") or MASTER_PORT
    least, _, most = environ.get("PET_NNODES", "").partition(":")
    values = {**environ, "PET_NNODES": most or least}
    if environ.get("PET_RDZV_BACKEND", "static") != "static" and not environ.get("PET_NODE_RANK"):
        # torchrun assigns the ranks once all have met. Until then a host knows only whether it leads.
        leads = os.uname().nodename.partition(".")[0] == leader.partition(".")[0]
        values["PET_NODE_RANK"] = "0" if leads or values["PET_NNODES"] in ("", "1") else "1"
    if not (place := _place(values, "PET_NNODES", "PET_NODE_RANK")):
        return None
    if place[0] > 1 and environ.get("PET_STANDALONE", "") not in ("", "0"):
        raise UserError(
            f"PET_NNODES is {place[0]}, but PET_STANDALONE lets each host train alone; remove one"
        )
    fewest = _number({"PET_NNODES": least}, "PET_NNODES") or 0
    if not 0 < fewest <= place[0]:
        raise UserError(
            f"PET_NNODES is {environ['PET_NNODES']!r}; it must be a number from 1 up, or LEAST:MOST"
        )
    each = environ.get("PET_NPROC_PER_NODE", "")
    process = {"LOCAL_WORLD_SIZE": each} if each.isdecimal() else {}
    return placed("PET_NNODES", [leader], *place, port, process, fewest)


def world(environ: Mapping[str, str], claim: Cluster | None = None) -> Cluster | None:
    """Volcano's pytorch plugin, and a PyTorchJob before 1.6: each pod is one process of PyTorch.

    WORLD_SIZE without RANK takes the rank from the claim of another scheduler, if there is one.
    https://github.com/volcano-sh/volcano/blob/master/pkg/controllers/job/plugins/distributed-framework/pytorch/pytorch.go
    """
    size = _number(environ, "WORLD_SIZE")
    if claim and size and not environ.get("RANK"):
        rank = int(claim.process.get("RANK", claim.rank))
        environ = {**environ, "RANK": str(min(rank, size - 1))}
    if not (place := _place(environ, "WORLD_SIZE", "RANK")):
        return None
    leader, port = environ.get("MASTER_ADDR") or "localhost", environ.get("MASTER_PORT") or MASTER_PORT
    return placed("WORLD_SIZE", [leader], *place, port, {"LOCAL_RANK": "0"})


def mpirun(environ: Mapping[str, str]) -> Cluster | None:
    """`mpirun train`, as the launcher of an MPIJob runs it: each rank is one process.

    https://docs.open-mpi.org/en/v5.0.x/tuning-apps/environment-var.html
    """
    if not (place := _place(environ, "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK")):
        return None
    leader = environ.get("MASTER_ADDR") or "node-0.invalid"  # mpirun names no hosts
    process = {
        "RANK": str(place[1]),
        "WORLD_SIZE": str(place[0]),
        "LOCAL_RANK": environ.get("OMPI_COMM_WORLD_LOCAL_RANK", "0"),
    }
    return placed("mpirun", [leader], *place, process=process)


def hyperpod(environ: Mapping[str, str]) -> None:
    """HyperPod's agent needs NNODES in the pod, and reads torchrun's own variables, too.

    Source: the package hyperpod-elastic-agent 1.1.3, run.py and rendezvous/hyperpod_rendezvous_backend.py
    """
    if (environ.get("NNODES") or "1") != "1" and which("hyperpodrun"):
        raise UserError(
            f"NNODES is {environ['NNODES']}, but PET_NNODES is missing, without which train does not start"
            " hyperpodrun; set PET_NNODES to the same, and PET_RDZV_BACKEND to hyperpod"
        )


def jax(environ: Mapping[str, str]) -> Cluster | None:
    """A Kubeflow TrainJob of JAX: one process on each host.

    https://github.com/kubeflow/trainer/blob/master/pkg/runtime/framework/plugins/jax/jax.go
    """
    if not (place := _place(environ, "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")):
        return None
    leader = environ.get("JAX_COORDINATOR_ADDRESS", "").partition(":")[0] or "localhost"
    return placed("JAX_NUM_PROCESSES", [leader], *place)


def xgboost(environ: Mapping[str, str], gpus: int) -> Cluster | None:
    """A Kubeflow TrainJob of XGBoost: DMLC_NUM_WORKER counts one worker per GPU, DMLC_TASK_ID counts hosts.

    https://github.com/kubeflow/trainer/blob/master/pkg/runtime/framework/plugins/xgboost/xgboost.go
    """
    workers = _number(environ, "DMLC_NUM_WORKER")
    hosts = str(workers // gpus if workers and gpus and workers % gpus == 0 else workers or "")
    if not (place := _place({**environ, "DMLC_NUM_WORKER": hosts}, "DMLC_NUM_WORKER", "DMLC_TASK_ID")):
        return None
    leader = environ.get("DMLC_TRACKER_URI") or "localhost"
    return placed("DMLC_NUM_WORKER", [leader], *place)


def batch(environ: Mapping[str, str]) -> Cluster | None:
    """A multi-node parallel job of AWS Batch. The main node leads, whatever its index, and gets no address.

    https://docs.aws.amazon.com/batch/latest/userguide/mnp-env-vars.html
    """
    if not (place := _place(environ, "AWS_BATCH_JOB_NUM_NODES", "AWS_BATCH_JOB_NODE_INDEX")):
        return None
    size, index = place
    rank = (index - (_number(environ, "AWS_BATCH_JOB_MAIN_NODE_INDEX") or 0)) % size
    leader = environ.get("AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS")
    if not leader and rank > 0:
        raise UserError(
            f"AWS_BATCH_JOB_NODE_INDEX is {index}, which is not the main node, but"
            " AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS is missing; pass it to the container"
        )
    leader = leader or (_own_address() if size > 1 else "localhost")
    return placed("AWS Batch", [leader], size, rank)


def skypilot(environ: Mapping[str, str]) -> Cluster | None:
    """A task of SkyPilot.

    https://docs.skypilot.co/en/stable/running-jobs/distributed-jobs.html
    """
    if not (place := _place(environ, "SKYPILOT_NUM_NODES", "SKYPILOT_NODE_RANK")):
        return None
    hosts = environ.get("SKYPILOT_NODE_IPS", "").split()
    _check_names("SKYPILOT_NODE_IPS", hosts, "SKYPILOT_NUM_NODES", place[0])
    return placed("SkyPilot", hosts, *place)


def slurm(environ: Mapping[str, str]) -> Cluster | None:
    """srun, with one task per node or per process. The step's variables override the job's.

    https://slurm.schedmd.com/srun.html#SECTION_OUTPUT-ENVIRONMENT-VARIABLES
    """
    count = _first(environ, "SLURM_STEP_NUM_NODES", "SLURM_NNODES", "SLURM_JOB_NUM_NODES")
    tasks = _first(environ, "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS")
    task = _place(environ, tasks, "SLURM_PROCID")
    place = _place(environ, count, "SLURM_NODEID")
    if not place and not task:
        return None
    if not place:
        raise UserError(f"{tasks} is set, but {count} is missing; pass all of SLURM_* to the container")
    size, task = place[0], task or place
    if task[0] < size:
        raise UserError(f"{tasks} is {task[0]}, but {count} is {size}; start at least one task on each node")
    names = _first(environ, "SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST")
    hosts = expand(environ.get(names, "localhost" if size == 1 else ""), size + 1)
    _check_names(names, hosts, count, size)
    number = environ.get("SLURM_JOB_ID", "")
    # Jobs that share a node share its ports.
    port = str(20000 + int(number[-4:])) if number.isdecimal() else MASTER_PORT
    process = {}
    if task[0] > size:
        process = {
            "RANK": str(task[1]),
            "WORLD_SIZE": str(task[0]),
            "LOCAL_RANK": str(_number(environ, "SLURM_LOCALID") or 0),
        }
    return placed("Slurm", hosts, *place, port, process)


def _place(environ: Mapping[str, str], count: str, rank: str) -> tuple[int, int] | None:
    """Size and rank; None if neither variable says that there are others."""
    size, place = _number(environ, count), _number(environ, rank)
    if size is None and not place:
        return None
    if size is None or (place is None and size > 1):
        present, missing = (count, rank) if place is None else (rank, count)
        raise UserError(
            f"{present} is {environ[present]}, but {missing} is missing; pass both to the container"
        )
    if (place or 0) >= size:
        raise UserError(
            f"{rank} is {place or 0}, but {count} is {size}; it must be less, as it counts from 0"
        )
    return size, place or 0


def _number(environ: Mapping[str, str], name: str) -> int | None:
    value = environ.get(name) or None
    if value and not (value.isdecimal() and len(value) < 7):
        raise UserError(f"{name} is {value!r}; it must be a number")
    return int(value) if value else None


def _first(environ: Mapping[str, str], *names: str) -> str:
    """The first of these variables that is set; the last one if none is."""
    return next(filter(environ.get, names), names[-1])


def _check_names(names: str, hosts: list[str], count: str, size: int) -> None:
    if len(set(hosts)) != size or len(hosts) != size:
        raise UserError(
            f"{count} is {size}, but {names} names other than {size} hosts: {', '.join(hosts[:8]) or 'none'}"
        )


def _own_address() -> str:
    """The address from which this host reaches others; nothing is sent to find it."""
    import socket  # takes 10 ms

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # not assigned, RFC 5737
            return str(probe.getsockname()[0])
        except OSError:
            return os.uname().nodename
