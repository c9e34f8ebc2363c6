"""The NVIDIA GPUs of this container: which exist, which of them CUDA exposes to a program, their state.

A separate process (`nvml.py`) queries NVML. If it fails, times out or returns impossible values, the device
files are counted instead. NVIDIA_VISIBLE_DEVICES is ignored: it is an instruction to the container toolkit,
whose result is in /dev. (With CDI it is `void` beside real GPUs.)
"""

from __future__ import annotations

import os
import sys
import time

from . import machine, paths
from .report import log

_PATIENCE = 1.8  # seconds for NVML to answer


class Gpu:
    """A GPU, or a slice of one (MIG)."""

    def __init__(self, index: int, id: str, name: str = "", memory: int = 0, used: int = 0) -> None:
        self.index = index
        """The GPU's index in NVML."""
        self.id = id
        """Its name in CUDA_VISIBLE_DEVICES."""
        self.uuid = id
        self.name = name
        self.memory = memory
        """Bytes; 0 if unknown."""
        self.used = used
        self.capability = self.driver = self.cuda = ""

    @property
    def is_slice(self) -> bool:
        return self.id.startswith("MIG-")


def find(visible: str | None) -> list[Gpu]:
    """The GPUs that CUDA_VISIBLE_DEVICES selects, or all if it is unset; none without a driver."""
    devices = machine.devices("nvidia") if _has_driver() else []
    found = [Gpu(index, str(index)) for index in range(len(devices))]
    if _can_query():
        try:
            found = _listed(len(devices))
        except (OSError, ValueError) as error:
            log(f"NVML does not tell the GPUs ({error}): /dev has {len(devices)}")
    return found if visible is None else _visible(found, visible)


def for_one_process(gpus: list[Gpu]) -> list[Gpu]:
    """The GPUs that one process can use: if there are slices, CUDA exposes the first one and nothing else.

    Source: https://docs.nvidia.com/datacenter/tesla/mig-user-guide/mig-device-names.html
    """
    return [gpu for gpu in gpus if gpu.is_slice][:1] or gpus


def memory() -> list[Gpu]:
    """The GPUs with the memory now in use, from NVML; empty if it does not answer."""
    try:
        return _listed(0) if _can_query() else []
    except (OSError, ValueError):
        return []


def are_open() -> bool:
    """Whether this process has a GPU open, as it does from its first use of CUDA."""
    for fd in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{fd}").startswith((f"{machine.DEV}/nvidia", f"{machine.DEV}/dxg")):
                return True
        except OSError:
            pass  # the listing's own
    return False


def state() -> str:
    """What may be wrong with the GPUs, in one line; empty if NVML reports nothing."""
    try:
        return "; ".join(_query("state") if _can_query() else ())
    except OSError as error:
        return f"NVML does not tell the state of the GPUs ({error})"


def _has_driver() -> bool:
    # WSL2 has only dxg.
    return any(os.path.exists(f"{machine.DEV}/{name}") for name in ("nvidiactl", "dxg"))


def _can_query() -> bool:
    return _has_driver() and os.path.exists(f"{paths.DEPS}/pynvml.py")  # not in every image


def _listed(files: int) -> list[Gpu]:
    """The GPUs that NVML reports. Raises OSError if it fails, ValueError if its answer is impossible."""
    first, *lines = _query("list")
    count, driver, cuda = first.split("\t")
    if files and not 0 < int(count) <= files:  # WSL2 has no files
        raise ValueError(f"it counts {count}")
    found: dict[str, Gpu] = {}
    for line in lines:
        index, id, name, total, used, capability = line.split("\t")
        gpu = found[id] = Gpu(int(index), id, name, int(total or 0), int(used or 0))
        gpu.capability, gpu.driver, gpu.cuda = capability, driver, cuda
    if len(found) < len(lines):
        raise ValueError("it lists one GPU twice")
    return list(found.values())


def _visible(gpus: list[Gpu], visible: str) -> list[Gpu]:
    """CUDA reads the list up to the first invalid entry. A UUID may be abbreviated.

    Source: https://docs.nvidia.com/cuda/cuda-programming-guide/05-appendices/environment-variables.html
    """
    names_known = not any(gpu.uuid.isdecimal() for gpu in gpus)
    chosen: dict[str, Gpu] = {}
    for entry in map(str.strip, visible.split(",")):
        named = []
        if entry.isdecimal():  # the index of a GPU, which may be divided into slices
            named = [gpu for gpu in gpus if gpu.index == int(entry[:9])]
        elif entry.startswith(("GPU-", "MIG-")):
            if names_known and "/" not in entry:  # a slash: the old format
                named = [gpu for gpu in gpus if gpu.id.startswith(entry)]
            elif gpus:
                named = [Gpu(len(chosen), entry)]
        if not named or entry in chosen:
            break
        chosen[entry] = gpu = named[0]
        gpu.id = gpu.id if gpu.is_slice else entry  # CUDA's order may differ from NVML's
    return list(chosen.values())


def _query(verb: str) -> list[str]:
    """The output of `nvml.py`, a separate process: a broken driver may hang or crash its caller.

    Raises OSError with the output if it fails.
    """
    import select  # only with a driver

    answer, its_end = os.pipe()
    argv = [sys.executable, "-I", "-S", f"{paths.LIB}/optml/nvml.py", paths.DEPS, verb]
    outputs = [(os.POSIX_SPAWN_DUP2, its_end, 1), (os.POSIX_SPAWN_DUP2, its_end, 2)]
    pid = os.posix_spawn(argv[0], argv, os.environ, file_actions=outputs)
    os.close(its_end)
    text = os.read(answer, 1)  # the time runs from here, however long a busy machine takes to start it
    until = time.monotonic() + _PATIENCE
    while in_time := bool(select.select([answer], [], [], max(0.0, until - time.monotonic()))[0]):
        piece = os.read(answer, 1 << 16)
        if not piece:
            break
        text += piece
    os.close(answer)
    lines = text.decode("utf-8", "replace").splitlines()[1:]
    if not in_time:
        os.kill(pid, 9)
        for _ in range(20):  # reaped, unless it hangs in the kernel
            if os.waitpid(pid, os.WNOHANG) != (0, 0):
                break
            time.sleep(0.01)
        raise OSError("; ".join([*lines, f"no answer within {_PATIENCE} s"]))
    if os.waitpid(pid, 0)[1]:
        raise OSError("; ".join(lines) or "it crashed")
    return lines
