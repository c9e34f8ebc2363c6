"""The NVIDIA GPUs of this container: which there are, which of them CUDA shows a program, how they are.

What NVML tells is asked for in a process of its own (`nvml.py`). Where it does not answer in time, fails, or
tells what cannot be, the device files are counted. NVIDIA_VISIBLE_DEVICES is not looked at: it is an order to
the container toolkit, and what that has made of it lies in /dev. (With CDI it is `void` beside real GPUs.)
"""

from __future__ import annotations

import os
import sys
import time

from . import machine, paths
from .report import log

_PATIENCE = 1.8  # seconds that NVML has to answer


class Gpu:
    """A GPU, or a slice of one (MIG)."""

    def __init__(self, index: int, id: str, name: str = "", memory: int = 0, used: int = 0) -> None:
        self.index = index
        """Of the GPU, as NVML counts."""
        self.id = id
        """What names it in CUDA_VISIBLE_DEVICES."""
        self.uuid = id
        self.name = name
        self.memory = memory
        """Bytes; 0 where NVML does not tell."""
        self.used = used
        self.capability = self.driver = self.cuda = ""

    @property
    def is_slice(self) -> bool:
        return self.id.startswith("MIG-")


def find(visible: str | None) -> list[Gpu]:
    """The GPUs that CUDA_VISIBLE_DEVICES leaves, all without it. Without a driver nothing is asked."""
    devices = machine.devices("nvidia") if _has_driver() else []
    found = [Gpu(index, str(index)) for index in range(len(devices))]
    if _can_ask():
        try:
            found = _asked(len(devices))
        except (OSError, ValueError) as error:
            log(f"NVML does not tell the GPUs ({error}): /dev has {len(devices)}")
    return found if visible is None else _visible(found, visible)


def for_one_process(gpus: list[Gpu]) -> list[Gpu]:
    """Those that one process can use. Of slices CUDA shows a process the first one, and nothing beside it.

    Source: https://docs.nvidia.com/datacenter/tesla/mig-user-guide/mig-device-names.html
    """
    return [gpu for gpu in gpus if gpu.is_slice][:1] or gpus


def memory() -> list[Gpu]:
    """The GPUs as NVML sees them now, with the memory in use; none where it does not tell."""
    try:
        return _asked(0) if _can_ask() else []
    except (OSError, ValueError):
        return []


def are_open() -> bool:
    """Whether this process has a GPU open, as CUDA does from its first use on."""
    for fd in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{fd}").startswith((f"{machine.DEV}/nvidia", f"{machine.DEV}/dxg")):
                return True
        except OSError:
            pass  # that of the listing
    return False


def state() -> str:
    """What may be wrong with the GPUs, in one line; empty where NVML tells nothing."""
    try:
        return "; ".join(_ask("state") if _can_ask() else ())
    except OSError as error:
        return f"NVML does not tell the state of the GPUs ({error})"


def _has_driver() -> bool:
    # WSL2 has the latter alone.
    return any(os.path.exists(f"{machine.DEV}/{name}") for name in ("nvidiactl", "dxg"))


def _can_ask() -> bool:
    return _has_driver() and os.path.exists(f"{paths.DEPS}/pynvml.py")  # which not every image has


def _asked(files: int) -> list[Gpu]:
    """What NVML says of each GPU. Raises OSError where it fails, ValueError where it says what cannot be."""
    first, *lines = _ask("list")
    count, driver, cuda = first.split("\t")
    if files and not 0 < int(count) <= files:  # WSL2 has no files
        raise ValueError(f"it counts {count}")
    found: dict[str, Gpu] = {}
    for line in lines:
        index, id, name, total, used, capability = line.split("\t")
        gpu = found[id] = Gpu(int(index), id, name, int(total or 0), int(used or 0))
        gpu.capability, gpu.driver, gpu.cuda = capability, driver, cuda
    if len(found) < len(lines):
        raise ValueError("it tells one GPU twice")
    return list(found.values())


def _visible(gpus: list[Gpu], visible: str) -> list[Gpu]:
    """CUDA reads its list up to the first entry that names none. A name may be cut short.

    Source: https://docs.nvidia.com/cuda/cuda-programming-guide/05-appendices/environment-variables.html
    """
    names_known = not any(gpu.uuid.isdecimal() for gpu in gpus)
    chosen: dict[str, Gpu] = {}
    for entry in map(str.strip, visible.split(",")):
        named = []
        if entry.isdecimal():  # its number among all GPUs, of which one may be in slices
            named = [gpu for gpu in gpus if gpu.index == int(entry[:9])]
        elif entry.startswith(("GPU-", "MIG-")):
            if names_known and "/" not in entry:  # with one it is a name of old
                named = [gpu for gpu in gpus if gpu.id.startswith(entry)]
            elif gpus:
                named = [Gpu(len(chosen), entry)]
        if not named or entry in chosen:
            break
        chosen[entry] = gpu = named[0]
        gpu.id = gpu.id if gpu.is_slice else entry  # CUDA may count in another order than NVML
    return list(chosen.values())


def _ask(verb: str) -> list[str]:
    """What NVML says, in a process of its own: a broken driver hangs or crashes whoever asks.

    Raises OSError with what it has told where it fails.
    """
    import select  # only where there is a driver

    answer, its_end = os.pipe()
    argv = [sys.executable, "-I", "-S", f"{paths.LIB}/optml/nvml.py", paths.DEPS, verb]
    outputs = [(os.POSIX_SPAWN_DUP2, its_end, 1), (os.POSIX_SPAWN_DUP2, its_end, 2)]
    pid = os.posix_spawn(argv[0], argv, os.environ, file_actions=outputs)
    os.close(its_end)
    text = os.read(answer, 1)  # the time runs from here, however long a busy machine takes to get so far
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
        for _ in range(20):  # reaped, unless it hangs in the kernel: then nobody waits for it
            if os.waitpid(pid, os.WNOHANG) != (0, 0):
                break
            time.sleep(0.01)
        raise OSError("; ".join([*lines, f"no answer within {_PATIENCE} s"]))
    if os.waitpid(pid, 0)[1]:
        raise OSError("; ".join(lines) or "it crashed")
    return lines
