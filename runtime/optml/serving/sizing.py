"""How many workers: by CPUs or GPUs, and by the memory that the first one takes."""

from __future__ import annotations

import mmap
from collections.abc import Iterable

from .. import gpus, machine
from ..gpus import Gpu
from .settings import Settings


def plan_workers(settings: Settings) -> tuple[int, str]:
    """The number of workers, and the reason in a few words."""
    if settings.multi_model:
        return 1, "the router of a multi-model server"
    if settings.workers is not None:
        return settings.workers, "SAGEMAKER_MODEL_SERVER_WORKERS"
    if settings.gpus:
        return len(settings.gpus), f"{len(settings.gpus)} GPUs"
    cpus = machine.cpu_count()
    return cpus, f"{cpus} CPUs"


def fitting(planned: int, reason: str, settings: Settings, pids: Iterable[int]) -> tuple[int, str]:
    """The number of workers of the first one's size that fit into memory, and the reason in a few words."""
    planned, reason = _fitting_in_gpus(planned, reason, settings.gpus)
    size = max((resident_memory(pid) for pid in pids), default=0)
    limit = machine.memory_limit()
    if settings.workers is not None or not limit or not size:
        return planned, reason
    count = max(1, min(planned, int(limit * 0.9) // size))
    if count < planned:
        reason = f"{planned} for {reason}, but only {count} of {size >> 20} MB fit into {limit >> 20} MB"
    return count, reason


def _fitting_in_gpus(planned: int, reason: str, found: list[Gpu]) -> tuple[int, str]:
    """The number of workers that fit into the memory of the GPUs that they share, if NVML reports it."""
    if not found or planned <= len(found):
        return planned, reason
    first = found[0]  # the first worker's
    used = next((gpu.used for gpu in gpus.memory() if gpu.uuid == first.uuid), 0) - first.used
    if not 0 < used <= first.memory:  # no model is there, or NVML's numbers are impossible
        return planned, reason
    room = int((first.memory - first.used) * 0.9)
    count = min(planned, max(1, room // used) * len(found))
    if count < planned:
        reason = (
            f"{planned} for {reason}, but only {count} that take {used >> 20} MiB fit into {len(found)} GPUs "
            f"with {room >> 20} MiB each"
        )
    return count, reason


def resident_memory(pid: int) -> int:
    """Bytes of memory that a process occupies; 0 if it is gone."""
    try:
        with open(f"/proc/{pid}/statm") as file:
            return int(file.read().split()[1]) * mmap.PAGESIZE
    except (OSError, IndexError):
        return 0
