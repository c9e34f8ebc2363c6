"""Facts of the machine as this container may use it: CPUs, memory, accelerators.

The host's numbers are wrong in a container with limits, so the control groups are read, version 1
and version 2 alike. Source: https://docs.kernel.org/admin-guide/cgroup-v2.html and cgroup-v1/.
"""

from __future__ import annotations

import os
import sys
import time

from . import paths
from .report import log

TYPE_CHECKING = False  # typing takes milliseconds to import
if TYPE_CHECKING:
    from collections.abc import Iterator

_DEV = "/dev"

# Seconds that NVML has to answer.
_NVML_PATIENCE = 1.5

# Version 1 writes "no limit" as the largest multiple of the page size that fits.
_NO_LIMIT = 1 << 62


def cpu_count(root: str = "") -> int:
    """CPUs that this process may use at once: its affinity, cut by the CPU quota, rounded up."""
    count = len(os.sched_getaffinity(0))
    for directory in _cgroups("cpu", root):
        quota, period = _cpu_quota(directory)
        if quota > 0 and period > 0:
            count = min(count, -(-quota // period))
    return max(1, count)


def memory_limit(root: str = "") -> int | None:
    """Bytes of memory that this container may use, or None where nothing limits it."""
    limits = []
    for directory in _cgroups("memory", root):
        for name in ("memory.max", "memory.limit_in_bytes"):
            limit = _number(_read(f"{directory}/{name}"))
            if 0 < limit < _NO_LIMIT:
                limits.append(limit)
    return min(limits, default=None)


def oom_kills(root: str = "") -> int:
    """How many processes of this container the kernel has killed for want of memory so far."""
    kills = 0
    for directory in _cgroups("memory", root):
        for name in ("memory.events", "memory.oom_control"):
            for line in _read(f"{directory}/{name}").splitlines():
                key, _, value = line.partition(" ")
                if key == "oom_kill":
                    kills = max(kills, _number(value))
    return kills


def gpu_count() -> int:
    """GPUs visible to this container; 0 without asking any library where there is no device file."""
    return len(gpu_names())


def visible_gpus(count: int, visible: str | None) -> int:
    """How many of so many GPUs CUDA_VISIBLE_DEVICES leaves. CUDA reads its list up to the first entry that
    names none; without the variable all are visible."""
    if visible is None or count == 0:
        return count
    number = 0
    for entry in map(str.strip, visible.split(",")):
        if not (entry.startswith(("GPU-", "MIG-")) or (entry.isdecimal() and int(entry[:9]) < count)):
            break
        number += 1
    return number


def gpu_names() -> list[str]:
    """Names of the GPUs that NVML reports; where it does not answer, those of the device files."""
    if not os.path.exists(f"{_DEV}/nvidiactl"):
        return []
    devices = _devices("nvidia")
    if not os.path.exists(f"{paths.DEPS}/pynvml.py"):
        return devices  # this image does not ask
    try:
        return _ask_nvml()
    except OSError as error:
        log(f"NVML does not tell the GPUs ({error}): /dev has {len(devices)}")
        return devices


def _ask_nvml() -> list[str]:
    """What NVML says, in a process of its own: a broken driver hangs or crashes whoever asks.

    Raises OSError with its last word.
    """
    answer, end = os.pipe()
    argv = [
        sys.executable,
        "-I",
        "-S",
        os.path.join(os.path.dirname(os.path.abspath(__file__)), "nvml.py"),
        paths.DEPS,
    ]
    outputs = [(os.POSIX_SPAWN_DUP2, end, 1), (os.POSIX_SPAWN_DUP2, end, 2)]
    pid = os.posix_spawn(argv[0], argv, os.environ, file_actions=outputs)
    os.close(end)
    try:
        text, in_time = _read_all(answer, time.monotonic() + _NVML_PATIENCE)
    finally:
        os.close(answer)
    if not in_time:
        _kill(pid)
        raise OSError(f"no answer within {_NVML_PATIENCE} s")
    lines = text.decode("utf-8", "replace").splitlines()
    if os.waitpid(pid, 0)[1]:
        raise OSError(lines[-1] if lines else "it crashed")
    return lines


def _kill(pid: int) -> None:
    """Kill a child and reap it, unless it hangs in the kernel: then it stays, and nobody waits for it."""
    os.kill(pid, 9)
    for _ in range(20):
        if os.waitpid(pid, os.WNOHANG) != (0, 0):
            return
        time.sleep(0.01)


def _read_all(fd: int, until: float) -> tuple[bytes, bool]:
    """What comes until the other side closes, and whether it did so in time."""
    import select

    text = b""
    while select.select([fd], [], [], max(0.0, until - time.monotonic()))[0]:
        piece = os.read(fd, 1 << 16)
        if not piece:
            return text, True
        text += piece
    return text, False


def neuron_count() -> int:
    """AWS Neuron devices (Inferentia, Trainium) visible to this container."""
    return len(_devices("neuron"))


def network_interfaces() -> list[str]:
    """Names of the network interfaces, loopback excepted."""
    try:
        return sorted(name for name in os.listdir("/sys/class/net") if name != "lo")
    except OSError:
        return []


def default_interface() -> str | None:
    """The interface of the default route, or None in a container without one."""
    for line in _read("/proc/net/route").splitlines()[1:]:
        name, destination = line.split()[:2]
        if destination == "00000000":
            return name
    return None


def _cgroups(controller: str, root: str) -> Iterator[str]:
    """The directories whose limits hold for this process: its own control group and all above it.

    A container may see its own group mounted as the root (version 1, or a private namespace), while
    /proc/self/cgroup still gives the host's path: directories that do not exist are passed over.
    """
    for line in _read(f"{root}/proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            top = f"{root}/sys/fs/cgroup"
        elif controller in controllers.split(","):
            top = f"{root}/sys/fs/cgroup/{controller}"
        else:
            continue
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for depth in range(len(parts), -1, -1):
            directory = "/".join([top, *parts[:depth]])
            if os.path.isdir(directory):
                yield directory


def _cpu_quota(directory: str) -> tuple[int, int]:
    """Quota and period in microseconds; a quota below 1 means no limit."""
    version2 = _read(f"{directory}/cpu.max").split()
    if len(version2) == 2:
        return _number(version2[0]), _number(version2[1])
    return (
        _number(_read(f"{directory}/cpu.cfs_quota_us")),
        _number(_read(f"{directory}/cpu.cfs_period_us")),
    )


def _devices(prefix: str) -> list[str]:
    names = os.listdir(_DEV)
    return sorted(name for name in names if name.startswith(prefix) and name[len(prefix) :].isdigit())


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        return 0


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read()
    except OSError:
        return ""
