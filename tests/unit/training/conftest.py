"""A scratch /opt/ml on the host, and `train` on it as the entry point starts it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from optml.training.job import Job
from optml.training.program import Program
from tests.support.training import OptMl

RUNTIME = Path(__file__).parents[3] / "runtime" / "optml" / "__main__.py"
HELD = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


@dataclass
class Ml(OptMl):
    """A scratch /opt/ml, and `train` run on it."""

    root: Path

    def environment(self, **variables: str) -> dict[str, str]:
        kept = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
        return {**kept, "SAGEMAKER_BASE_DIR": str(self.root), **variables}

    def start(self, *argv: str, **variables: str) -> subprocess.Popen[bytes]:
        """Start `train` isolated, as the entry point does; both of its outputs are pipes."""
        words = ["check", *argv[1:]] if argv[:1] == ("--check",) else ["train", *argv]
        command = [sys.executable, "-I", "-S", str(RUNTIME), *words]
        pipe = subprocess.PIPE
        before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
        try:
            return subprocess.Popen(command, env=self.environment(**variables), stdout=pipe, stderr=pipe)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def train(self, *argv: str, **variables: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*argv, **variables)
        out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(argv, process.returncode, out.decode(), err.decode())


def an_ml(root: Path) -> Ml:
    for part in ("input/config", "input/data", "model", "code", "output/data"):
        (root / part).mkdir(parents=True)
    return Ml(root)


@pytest.fixture
def ml(tmp_path: Path) -> Ml:
    return an_ml(tmp_path / "ml")


def a_job(**fields: Any) -> Job:
    """A job of one host, with these fields overridden."""
    plain: dict[str, Any] = {
        "name": "",
        "arn": "",
        "region": "",
        "hyperparameters": {},
        "framework_parameters": {},
        "hosts": ["algo-1"],
        "current_host": "algo-1",
        "network_interface": "eth0",
        "instance_type": "local",
        "instance_group": "homogeneousCluster",
        "instance_groups": {},
        "distribution_groups": [],
        "channels": {},
        "cpus": 2,
        "gpus": 0,
        "gpu_facts": [],
        "neurons": 0,
        "program": None,
        "submit_directory": None,
        "training_module": None,
        "log_level": 20,
        "resource_config": {},
        "input_data_config": {},
    }
    return Job(**{**plain, **fields})


def a_program(**fields: Any) -> Program:
    """A script, with these fields overridden."""
    plain = {"directory": "/opt/ml/code", "name": "train.py", "kind": "script", "python": "/venv/python3"}
    return Program(**{**plain, **fields})
