"""CPUs and memory of a container, read from control groups of both versions."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from optml import machine

V1 = "12:cpu,cpuacct:/docker/abc\n5:memory:/docker/abc\n1:name=systemd:/docker/abc\n"
V2 = "0::/\n"
V2_HOST_NAMESPACE = "0::/system.slice/docker-abc.scope\n"
PLENTY = 64


@pytest.fixture(autouse=True)
def _affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(PLENTY)))


def write(root: Path, cgroup: str, settings: dict[str, str]) -> str:
    for name, content in {"proc/self/cgroup": cgroup, **settings}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return str(root)


@pytest.mark.parametrize(
    ("cgroup", "settings", "expected"),
    [
        pytest.param("", {}, PLENTY, id="no control groups"),
        pytest.param(V2, {"sys/fs/cgroup/cpu.max": "max 100000\n"}, PLENTY, id="v2 without a limit"),
        pytest.param(V2, {"sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2, id="v2"),
        pytest.param(V2, {"sys/fs/cgroup/cpu.max": "150000 100000\n"}, 2, id="v2, one and a half"),
        pytest.param(V2, {"sys/fs/cgroup/cpu.max": "5000 100000\n"}, 1, id="v2, a twentieth"),
        pytest.param(
            V2_HOST_NAMESPACE,
            {
                "sys/fs/cgroup/system.slice/docker-abc.scope/cpu.max": "max 100000\n",
                "sys/fs/cgroup/system.slice/cpu.max": "300000 100000\n",
            },
            3,
            id="v2, limited by the group above",
        ),
        pytest.param(
            V1,
            {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"},
            PLENTY,
            id="v1 without a limit",
        ),
        pytest.param(
            V1,
            {
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "250000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            3,
            id="v1, two and a half",
        ),
    ],
)
def test_cpu_count(tmp_path: Path, cgroup: str, settings: dict[str, str], expected: int) -> None:
    assert machine.cpu_count(write(tmp_path, cgroup, settings)) == expected


def test_cpu_count_never_exceeds_the_affinity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    root = write(tmp_path, V2, {"sys/fs/cgroup/cpu.max": "800000 100000\n"})
    assert machine.cpu_count(root) == 1


@pytest.mark.parametrize(
    ("cgroup", "settings", "expected"),
    [
        pytest.param("", {}, None, id="no control groups"),
        pytest.param(V2, {"sys/fs/cgroup/memory.max": "max\n"}, None, id="v2 without a limit"),
        pytest.param(V2, {"sys/fs/cgroup/memory.max": "1073741824\n"}, 1 << 30, id="v2"),
        pytest.param(
            V1, {"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, None, id="v1 without"
        ),
        pytest.param(V1, {"sys/fs/cgroup/memory/memory.limit_in_bytes": "536870912\n"}, 1 << 29, id="v1"),
        pytest.param(
            V2_HOST_NAMESPACE,
            {
                "sys/fs/cgroup/system.slice/docker-abc.scope/memory.max": "2147483648\n",
                "sys/fs/cgroup/system.slice/memory.max": "1073741824\n",
            },
            1 << 30,
            id="v2, the smaller of two",
        ),
    ],
)
def test_memory_limit(tmp_path: Path, cgroup: str, settings: dict[str, str], expected: int | None) -> None:
    assert machine.memory_limit(write(tmp_path, cgroup, settings)) == expected


@pytest.mark.parametrize(
    ("cgroup", "name"), [(V1, "memory/memory.oom_control"), (V2, "memory.events")], ids=["v1", "v2"]
)
def test_oom_kills(tmp_path: Path, cgroup: str, name: str) -> None:
    root = write(tmp_path, cgroup, {f"sys/fs/cgroup/{name}": "under_oom 0\noom_kill 3\n"})
    assert machine.oom_kills(root) == 3


def test_a_port_is_listened_to_on_ipv6_and_on_ipv4() -> None:
    with machine.listen(0, 1) as server:
        port = server.getsockname()[1]
        for address in ("::1", "127.0.0.1") if server.family == socket.AF_INET6 else ("127.0.0.1",):
            socket.create_connection((address, port), timeout=5).close()
        with pytest.raises(OSError, match="in use"):
            machine.listen(port, 1)


def test_without_ipv6_ipv4_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    create = socket.socket

    def only_ipv4(family: int = socket.AF_INET, *arguments: Any) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "no IPv6")
        return create(family, *arguments)

    monkeypatch.setattr(socket, "socket", only_ipv4)
    with machine.listen(0, 1) as server:
        assert server.family == socket.AF_INET
