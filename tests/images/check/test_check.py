"""The check as an image: a tool with an entry point of its own."""

from __future__ import annotations

import subprocess

from tests.support.docker import HARDENED, run
from tests.support.matrix import ROOT, Cell


def test_size_within_budget(cell: Cell) -> None:
    tag = cell.tag.rpartition(":")[2]
    shown = subprocess.run([ROOT / "scripts/size", "--tag", tag, cell.image], capture_output=True, text=True)
    assert shown.returncode == 0, shown.stdout + shown.stderr


def test_it_says_what_it_takes(cell: Cell) -> None:
    result = run(cell.tag, "--help")
    assert result.code == 0
    assert result.stdout.startswith("usage: check ")


def test_files_beside_it_are_not_its_modules(cell: Cell) -> None:
    """The folder where it starts is the user's, and may have a json.py."""
    script = "echo 'raise SystemExit(9)' > json.py && /opt/optml/check/entrypoint --list"
    options = ("--entrypoint=sh", "--workdir=/tmp", *HARDENED)
    result = run(cell.tag, "-c", script, options=options)
    assert result.code == 0, result.output
    assert "T-EXIT-1" in result.stdout
