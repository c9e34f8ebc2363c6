"""Programs of the jobs in several test files, and the proof that all hosts trained together."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import pytest

from tests.support.cluster import Cluster
from tests.support.matrix import ROOT, matrix
from tests.support.wheels import fetched

PROGRAMS = Path(__file__).parent / "programs"
EXAMPLES = ROOT / "examples"


def program(name: str) -> tuple[str, ...]:
    """Options that run a program of PROGRAMS instead of the example's."""
    return (f"--volume={PROGRAMS}:/opt/ml/code/programs:ro", f"--env=SAGEMAKER_PROGRAM=programs/{name}")


def mpi_code(image: str, code: Path) -> Path:
    """A folder with mpi4py, as pip would install it in the Dockerfile, and a program for an all-reduce."""
    cell = next(cell for cell in matrix() if cell.tag == image)
    wheels = fetched(f"mpi4py-{cell.variant}", cell.python, "mpi4py==4.1.2")
    for wheel in wheels.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(code)
    shutil.copy(PROGRAMS / "allreduce_mpi.py", code / "train.py")
    return code


def assert_trained_together(job: Cluster, *hosts: str, processes: int = 1) -> None:
    """Every rank summed over all, saw a part of the data, and ended with the same weights."""
    size = len(hosts) * processes
    metrics = [job.output(hosts[rank // processes], f"metrics-{rank}.json") for rank in range(size)]
    for rank, found in enumerate(metrics):
        assert (found["rank"], found["ranks"]) == (rank, size)
        assert found["sum of ranks"] == sum(range(size))
        assert found["losses"] == metrics[0]["losses"]
        assert found["weights"] == pytest.approx(metrics[0]["weights"])
    assert sum(found["points"] for found in metrics) == 1024
    losses = metrics[0]["losses"]
    assert losses[-1] < losses[0] / 5
    assert (job.hosts[hosts[0]].root / "model/network.pt").stat().st_size > 500
