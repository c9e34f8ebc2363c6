"""The check as an image: a tool with an entry point of its own."""

from __future__ import annotations

from tests.support.docker import HARDENED, run
from tests.support.images import show_size
from tests.support.matrix import Cell


def test_is_within_its_budget(cell: Cell) -> None:
    show_size(cell)


def test_it_says_what_it_takes(cell: Cell) -> None:
    result = run(cell.tag, "--help")
    assert result.code == 0
    assert result.stdout.startswith("usage: check ")


def test_files_beside_it_are_not_its_modules(cell: Cell) -> None:
    """Its working directory is the user's, and may hold a json.py."""
    script = "echo 'raise SystemExit(9)' > json.py && /opt/optml/check/entrypoint --list"
    options = ("--entrypoint=sh", "--workdir=/tmp", *HARDENED)
    result = run(cell.tag, "-c", script, options=options)
    assert result.code == 0, result.output
    assert "T-EXIT-1" in result.stdout
