"""scripts/gpu-check with PyTorch on a machine without a GPU: it runs what can run there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.docker import docker, run
from tests.support.matrix import ROOT


@pytest.mark.long
def test_the_dry_form(torch_image: str, tmp_path: Path) -> None:
    """The runtime is copied out of gpu-serve in the same variant."""
    image = f"optml/gpu-serve:{torch_image.rpartition(':')[2]}"
    container = docker("create", image).stdout.strip()
    docker("cp", f"{container}:/opt/optml", tmp_path / "home")
    docker("rm", container)
    mounts = (f"--volume={tmp_path}:/check", f"--volume={ROOT / 'scripts'}:/scripts:ro")
    command = ("python3", "/scripts/gpu-check", "--home", "/check/home", "--out", "/check/out")
    done = run(torch_image, *command, options=mounts, timeout=600)
    assert done.code == 0, done.output
    report = json.loads((tmp_path / "out/report.json").read_text())
    statuses = [result["status"] for result in report.values()]
    assert statuses == ["skipped", "skipped", "passed", "passed", "passed", "skipped", "skipped"]
    trained = report["All-reduce and training in bf16 over all GPUs"]["found"]
    assert trained["backend"] == "gloo" and "NCCL" in trained["skipped"]
    assert report["A served model, GPU against CPU"]["found"]["cpu"]["calls/s"] > 0
