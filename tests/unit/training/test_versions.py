"""Training with each supported Python that this machine has."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.pythons import interpreter
from tests.unit.training.conftest import RUNTIME, Ml

VERSIONS = ["3.10", "3.11", "3.12", "3.13", "3.14"]

PROGRAM = """
import optml, sys
from sagemaker_training.environment import Environment
print("%d.%d" % sys.version_info[:2], optml.job().hyperparameters, Environment().hosts)
raise ValueError("the end")
"""


@pytest.mark.parametrize("version", VERSIONS)
def test_a_job(ml: Ml, tmp_path: Path, version: str) -> None:
    python = interpreter(version)
    # The user's Python is the first python3 on PATH.
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python3").write_text(f'#!/bin/sh\nexec {python} "$@"\n')
    (tmp_path / "bin/python3").chmod(0o755)
    ml.code("train.py", PROGRAM)
    ml.code("pyproject.toml", '[project]\nname = "mine"\n')
    ml.config("hyperparameters.json", {"lr": "3.10", "list": '[1, "x"]', "api_key": "s3cr3t-value"})
    environment = ml.environment(
        PATH=f"{tmp_path}/bin:/usr/bin:/bin", PYTHONPATH=str(RUNTIME.parents[1] / "shims")
    )
    command = [python, "-I", "-S", str(RUNTIME), "train"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    expected = {"lr": 3.1, "list": [1, "x"], "api_key": "s3cr3t-value"}
    assert done.stdout == f"{version} {expected} ['localhost']\n".replace("3.1,", "3.10,"), done.stderr
    assert (done.returncode, ml.failure.partition("\n")[0]) == (1, "ValueError: the end")
    ml.code("pyproject.toml", '[project]\nname = "mine"\ndependencies = ["one"]\n')
    checked = subprocess.run(
        [*command[:-1], "check"], env=environment, capture_output=True, text=True, timeout=60
    )
    assert "s3cr3t" not in checked.stdout
    # Without tomllib, which came with 3.11, a pyproject.toml is refused in one line.
    assert checked.returncode == (1 if version == "3.10" else 0), checked.stdout
