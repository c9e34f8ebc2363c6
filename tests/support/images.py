"""Images as the build makes them, and their sizes."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.docker import docker
from tests.support.matrix import ARCH, ROOT, Cell

EPOCH = "1767225600"
"""The time of builds, as the Makefile has it."""


@contextmanager
def image_from(dockerfile: str, context: Path, name: str = "") -> Iterator[str]:
    """Build an image from this Dockerfile and the files in `context`; removes it afterwards."""
    name = name or f"optml-test-{uuid.uuid4().hex[:12]}"
    (context / "Dockerfile").write_text(dockerfile)
    docker("build", "--force-rm", "--tag", name, context, timeout=300)
    try:
        yield name
    finally:
        docker("rmi", "--force", name)


@contextmanager
def built_image(folder: Path, name: str, parent: str) -> Iterator[str]:
    """Build images/NAME of a folder on this parent, as make does; removes the image afterwards."""
    command = [ROOT / "scripts/build-image", name, f"linux/{ARCH}", "0", "", "", f"PARENT={parent}", "latest"]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": EPOCH}
    built = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    try:
        assert built.returncode == 0, built.stderr
        yield f"optml/{name}"
    finally:
        docker("rmi", "--force", f"optml/{name}", check=False)


def show_size(cell: Cell, *options: str) -> str:
    """What scripts/size prints of an image. Fails where the image is over its budget."""
    tag = cell.tag.rpartition(":")[2]
    command = [ROOT / "scripts/size", *options, "--tag", tag, cell.image]
    shown = subprocess.run(command, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    return shown.stdout
