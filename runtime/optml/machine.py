"""What this container may use of the machine: CPUs, memory, network, device files.

The host's numbers are wrong in a container with limits, so the control groups are read, both version 1
and version 2. Source: https://docs.kernel.org/admin-guide/cgroup-v2.html and cgroup-v1/.
"""

from __future__ import annotations

import os

from .hints import Iterator

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket

DEV = "/dev"

# Version 1 writes "no limit" as the largest multiple of the page size that fits.
_NO_LIMIT = 1 << 62


def cpu_count(root: str = "") -> int:
    """CPUs that this process may use: the lower of its affinity and its CPU quota, rounded up."""
    count = len(os.sched_getaffinity(0))
    for directory in _cgroups("cpu", root):
        quota, period = _cpu_quota(directory)
        if quota > 0 and period > 0:
            count = min(count, -(-quota // period))
    return max(1, count)


def memory_limit(root: str = "") -> int | None:
    """Bytes of memory that this container may use, or None if unlimited."""
    limits = []
    for directory in _cgroups("memory", root):
        for name in ("memory.max", "memory.limit_in_bytes"):
            limit = _number(read(f"{directory}/{name}"))
            if 0 < limit < _NO_LIMIT:
                limits.append(limit)
    return min(limits, default=None)


def oom_kills(root: str = "") -> int:
    """How many processes of this container the kernel has killed so far for lack of memory."""
    kills = 0
    for directory in _cgroups("memory", root):
        for name in ("memory.events", "memory.oom_control"):
            for line in read(f"{directory}/{name}").splitlines():
                key, _, value = line.partition(" ")
                if key == "oom_kill":
                    kills = max(kills, _number(value))
    return kills


def network_interface(named: object) -> str:
    """The named interface if this container has it, else that of the default route, else any.

    Local mode of the SageMaker SDK 3.x names `ethwe`, which its containers do not have.
    """
    try:
        present = sorted(name for name in os.listdir("/sys/class/net") if name != "lo")
    except OSError:
        present = []
    if named and (named in present or not present):
        return str(named)
    routes = [line.split()[:2] for line in read("/proc/net/route").splitlines()[1:]]
    return next((name for name, destination in routes if destination == "00000000"), (*present, "lo")[0])


def _cgroups(controller: str, root: str) -> Iterator[str]:
    """The directories whose limits apply to this process: its control group and all ancestors.

    A container may see its own group mounted as the root (version 1, or a private namespace), while
    /proc/self/cgroup still gives the host's path: directories that do not exist are skipped.
    """
    for line in read(f"{root}/proc/self/cgroup").splitlines():
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
    version2 = read(f"{directory}/cpu.max").split()
    if len(version2) == 2:
        return _number(version2[0]), _number(version2[1])
    return _number(read(f"{directory}/cpu.cfs_quota_us")), _number(read(f"{directory}/cpu.cfs_period_us"))


def devices(prefix: str) -> list[str]:
    """The device files named `prefix` and a number."""
    names = os.listdir(DEV)
    return sorted(name for name in names if name.startswith(prefix) and name[len(prefix) :].isdigit())


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        return 0


def read(path: str) -> str:
    """The text of a file; empty if it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def listen(port: int, backlog: int) -> socket.socket:
    """Listen on every address of this container: IPv6 and IPv4, or IPv4 alone if there is no IPv6.

    Raises OSError if the port cannot be bound.
    """
    import socket

    if socket.has_dualstack_ipv6():
        return socket.create_server(
            ("::", port), family=socket.AF_INET6, backlog=backlog, dualstack_ipv6=True
        )
    return socket.create_server(("", port), backlog=backlog)
