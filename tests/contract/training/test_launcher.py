"""mpirun as the program of a container, here a script that ends in the ways of Open MPI."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.docker import run

pytestmark = [pytest.mark.image("cpu-train"), pytest.mark.one_variant]

LOST = "echo 'PRTE has lost communication with a remote daemon.' >&2; "


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("exit 0", 0),
        ("exit 3", 3),
        ("kill -9 $$", 137),
        (LOST + "exit 0", 1),
        (LOST + "exit 3", 3),
    ],
)
def test_mpirun_that_has_lost_a_host_never_ends_with_0(
    image: str, tmp_path: Path, script: str, code: int
) -> None:
    mpirun = tmp_path / "mpirun"
    mpirun.write_text(f'#!/bin/sh\necho "got $*"\n{script}\n')
    mpirun.chmod(0o755)
    done = run(image, "mpirun", "-n", "2", "train", options=(f"--volume={mpirun}:/usr/local/bin/mpirun:ro",))
    assert done.code == code, done.output
    assert done.stdout == "got -n 2 train\n"
    assert ("optml: error: mpirun has lost a host" in done.stderr) == (script == LOST + "exit 0")
