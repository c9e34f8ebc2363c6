"""What cpu-train adds to base, and gpu-train inherits."""

from __future__ import annotations

from typing import Any

import pytest
from testinfra.host import Host

from tests.support.matrix import Cell, lineage

DEPS = "import sys; sys.path.append('/opt/optml/deps'); "


def test_trains_by_default(cell: Cell, config: dict[str, Any]) -> None:
    if "cpu-serve" in lineage(cell):
        pytest.skip("serves by default")
    assert config["Cmd"] == ["train"]


def test_boto3_is_the_runtimes_and_its_services_are_whole(host: Host) -> None:
    clients = "s3 sts ecr secretsmanager codeartifact"
    script = DEPS + f"import boto3; [boto3.client(s, region_name='eu-west-1') for s in '{clients}'.split()]"
    assert host.run("/usr/bin/python3 -I -S -c %s", script).rc == 0


def test_there_is_no_server(cell: Cell, host: Host) -> None:
    if "cpu-serve" in lineage(cell):
        pytest.skip("has one")
    for name in ("gunicorn", "flask"):
        assert host.run("/usr/bin/python3 -I -S -c %s", DEPS + f"import {name}").rc == 1
    result = host.run("/opt/optml/bin/entrypoint serve")
    assert result.rc != 0
    assert result.stderr.count("\n") == 1
    assert "cpu-serve" in result.stderr
