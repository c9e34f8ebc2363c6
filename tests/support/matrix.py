"""The build matrix as `make matrix` prints it, and what of it has been built here."""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
ARCH = "arm64" if os.uname().machine in ("aarch64", "arm64") else "amd64"
"""This machine, as Debian names it."""


@dataclass(frozen=True)
class Cell:
    """One image in one variant."""

    image: str
    variant: str
    parent: str | None
    tag: str
    python: str
    platforms: tuple[str, ...]

    @property
    def id(self) -> str:
        return f"{self.image}:{self.variant}"


@cache
def matrix() -> tuple[Cell, ...]:
    """Every cell of the matrix."""
    printed = subprocess.run(["make", "matrix"], cwd=ROOT, capture_output=True, check=True, text=True)
    return tuple(
        Cell(**entry | {"platforms": tuple(entry["platforms"])}) for entry in json.loads(printed.stdout)
    )


@cache
def built() -> tuple[Cell, ...]:
    """The cells whose image the Docker Engine has."""
    listed = subprocess.run(
        ["docker", "images", "--format", "{{.Repository}}:{{.Tag}}"],
        capture_output=True,
        check=True,
        text=True,
    )
    tags = set(listed.stdout.split())
    return tuple(cell for cell in matrix() if cell.tag in tags)


def built_cell(image: str, variant: str) -> Cell:
    """The cell of this image and variant, which must have been built."""
    found = next(cell for cell in matrix() if (cell.image, cell.variant) == (image, variant))
    assert found in built(), f"not built: {found.tag}; run make build-all"
    return found


def lineage(cell: Cell) -> tuple[str, ...]:
    """The image and the ancestors whose behaviour it inherits, the youngest first.

    An image with an entry point of its own is a tool, and does nothing that its parent does.
    """
    dockerfile = (ROOT / "images" / cell.image / "Dockerfile").read_text()
    stages = re.findall(r"^FROM (\S+)", dockerfile, re.M)
    if stages[-1] != "${PARENT}" or (cell.parent and re.search(r"^ENTRYPOINT", dockerfile, re.M)):
        return (cell.image,)
    parent = next(c for c in matrix() if c.image == cell.parent and c.variant == cell.variant)
    return (cell.image, *lineage(parent))
