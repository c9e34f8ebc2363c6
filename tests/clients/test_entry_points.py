"""Clients that bypass the entry point need only the image's environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.clients.workplace import PROJECT
from tests.support.docker import HARDENED, run


@pytest.mark.parametrize("command", [("python3",), ("python",), ("/bin/bash", "-c", 'python "$@"', "bash")])
def test_a_processing_job(train_image: str, tmp_path: Path, command: tuple[str, ...]) -> None:
    tmp_path.chmod(0o777)
    program, *arguments = command
    result = run(
        train_image,
        *(*arguments, "/opt/ml/processing/input/code/clean.py", "--least", "3"),
        options=(
            *HARDENED,
            f"--entrypoint={program}",
            f"--volume={PROJECT}/clean.py:/opt/ml/processing/input/code/clean.py:ro",
            f"--volume={PROJECT}/data/points.csv:/opt/ml/processing/input/points.csv:ro",
            f"--volume={tmp_path}:/opt/ml/processing/output",
        ),
    )
    assert result.code == 0, result.output
    assert result.stdout == "kept 3 of 4 points\n"
    assert (tmp_path / "points.csv").read_text() == "1,3\n2,5\n3,7"


def test_tools_that_the_drivers_of_the_sdk_call(train_image: str) -> None:
    tools = (
        "set -e; for tool in bash python python3 pip pip3 tar cat; do command -v $tool; done; pip3 --version"
    )
    result = run(train_image, "-c", tools, options=("--entrypoint=/bin/bash",))
    assert result.code == 0, result.output
    assert "/opt/venv/bin/python3" in result.stdout.split()
