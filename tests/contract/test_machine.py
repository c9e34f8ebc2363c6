"""The resources of a limited container, as the runtime reports them to the user's program."""

from __future__ import annotations

import pytest

from tests.support.docker import run

COUNT = "from optml import machine; print(machine.cpu_count(), machine.memory_limit())"


@pytest.mark.image("base")
@pytest.mark.parametrize("namespace", ["host", "private"])
def test_limits_of_docker_run_are_read(image: str, namespace: str) -> None:
    options = ("--cpus=0.7", "--memory=300m", f"--cgroupns={namespace}")
    result = run(image, "python3", "-c", COUNT, options=options)
    assert result.stdout.split() == ["1", str(300 << 20)], result.output


@pytest.mark.image("base")
def test_a_set_of_cpus_is_read(image: str) -> None:
    assert run(image, "python3", "-c", COUNT, options=("--cpuset-cpus=0",)).stdout.split()[0] == "1"
