"""scripts/gpu-check on a machine without GPU and torch: what it does, and that it names the rest."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

from tests.support.matrix import ROOT


def test_without_gpu_and_torch_it_says_what_it_skipped(tmp_path: Path) -> None:
    (tmp_path / "home/lib").mkdir(parents=True)
    (tmp_path / "home/lib/optml").symlink_to(ROOT / "runtime/optml")
    python = tmp_path / "python3"
    python.write_text("#!/bin/sh\nexit 1\n")  # imports nothing
    python.chmod(0o755)
    options = ["--home", tmp_path / "home", "--python", python, "--out", tmp_path / "out"]
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/gpu-check", *options], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out/report.json").read_text())
    statuses = [result["status"] for result in report.values()]
    assert statuses == ["skipped", "skipped", "passed", "skipped", "skipped", "skipped", "skipped"]
    assert "too old for CUDA 13" in report["A driver that is too old is reported"]["found"]
    assert report["A served model, GPU against CPU"]["found"] == f"{python} cannot import torch"
    text = (tmp_path / "out/report.md").read_text()
    assert all(f"| {name} | {result['status']} |" in text for name, result in report.items())


def test_a_checkout_brings_the_runtime_and_what_it_needs(tmp_path: Path) -> None:
    home = runpy.run_path(str(ROOT / "scripts/gpu-check"))["runtime_of_checkout"](tmp_path)
    assert (home / "lib/optml/__main__.py").is_file()
    assert (home / "deps/pynvml.py").is_file()


def test_gpus_that_torch_does_not_use_are_a_failure(tmp_path: Path) -> None:
    """A CPU build of PyTorch trains on a machine with GPUs, through gloo."""
    check = runpy.run_path(str(ROOT / "scripts/gpu-check"))
    (tmp_path / "data").mkdir()
    found = {"backend": "gloo", "sum": 3, "expected sum": 3, "losses": [8, 1]}
    (tmp_path / "data/found.json").write_text(json.dumps(found))
    for gpus, status in ([{}, {}], "failed"), ([], "passed"):
        machine = SimpleNamespace(gpus=gpus, need_torch=lambda: None, train=lambda *_, **__: (0, tmp_path))
        assert check["run"](check["distributed_training"], machine)["status"] == status
