"""How many workers: by CPUs or GPUs, and by the memory that the first one takes."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING

from .. import machine

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .settings import Settings


def plan_workers(settings: Settings) -> tuple[int, str]:
    """How many workers, and why in a few words."""
    if settings.multi_model:
        return 1, "the router of many models"
    if settings.workers is not None:
        return settings.workers, "SAGEMAKER_MODEL_SERVER_WORKERS"
    if settings.gpus:
        return settings.gpus, f"{settings.gpus} GPUs"
    cpus = machine.cpu_count()
    return cpus, f"{cpus} CPUs"


def fitting(planned: int, reason: str, settings: Settings, pids: Iterable[int]) -> tuple[int, str]:
    """How many fit into the memory, now that the first shows how large one is, and why in a few words."""
    size = max((resident_memory(pid) for pid in pids), default=0)
    limit = machine.memory_limit()
    if settings.workers is not None or not limit or not size:
        return planned, reason
    count = max(1, min(planned, int(limit * 0.9) // size))
    if count < planned:
        reason = f"{planned} for {reason}, but only {count} of {size >> 20} MB fit into {limit >> 20} MB"
    return count, reason


def resident_memory(pid: int) -> int:
    """Bytes of memory that a process holds."""
    try:
        with open(f"/proc/{pid}/statm") as file:
            return int(file.read().split()[1]) * mmap.PAGESIZE
    except (OSError, IndexError):
        return 0
