"""Our images keep every clause at every level, except for what they are not made for."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.support.docker import docker
from tests.support.matrix import ROOT


def assert_keeps_all(image: str, tmp_path: Path, *options: str) -> None:
    command = [ROOT / "scripts/check", image, "--level=hardened", f"--json={tmp_path}/result.json", *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    clauses = json.loads((tmp_path / "result.json").read_text())["clauses"]
    assert {clause["state"] for clause in clauses} == {"kept"}


@pytest.mark.long
@pytest.mark.image("cpu-serve")
def test_cpu_serve_keeps_all(image: str, tmp_path: Path) -> None:
    assert_keeps_all(image, tmp_path)


@pytest.mark.long
@pytest.mark.image("slim-serve")
def test_slim_serve_keeps_all_of_serving(image: str, tmp_path: Path) -> None:
    assert_keeps_all(image, tmp_path, "--serve")


@pytest.mark.long
@pytest.mark.image("gpu-serve")
def test_gpu_serve_keeps_all_of_serving(image: str, tmp_path: Path) -> None:
    assert_keeps_all(image, tmp_path, "--serve")


@pytest.mark.long
@pytest.mark.image("cpu-train")
def test_cpu_train_keeps_all_of_training(image: str, tmp_path: Path) -> None:
    assert_keeps_all(image, tmp_path, "--train")


@pytest.mark.long
@pytest.mark.image("gpu-train")
def test_gpu_train_keeps_all_of_training(image: str, tmp_path: Path) -> None:
    assert_keeps_all(image, tmp_path, "--train")


@pytest.mark.long
@pytest.mark.image("mpi-train")
def test_mpi_train_keeps_all_of_training(image: str, tmp_path: Path) -> None:
    assert_keeps_all(image, tmp_path, "--train")


@pytest.mark.image("check")
@pytest.mark.one_variant
def test_the_check_runs_in_a_container(image: str) -> None:
    """With nothing but the engine's socket. It checks itself, an image that does not train."""
    socket = "/var/run/docker.sock:/var/run/docker.sock"
    done = docker(
        "run", "--rm", "-v", socket, image, image, "--only=I-ENTRY-1", "--only=E-TRAIN-1", check=False
    )
    assert done.code == 1, done.output
    assert "kept        I-ENTRY-1" in done.stderr
    assert "broken      E-TRAIN-1" in done.stderr
    assert "\x1b" not in done.output
    assert "1 kept, 1 broken, 0 not checked" in done.stdout
