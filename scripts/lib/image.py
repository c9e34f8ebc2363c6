"""Reads the files of an image through the Docker Engine."""

from __future__ import annotations

import re
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

IMAGES = Path(__file__).resolve().parent.parent.parent / "images"


def docker(*args: str) -> str:
    """The output of the client; raises CalledProcessError if it fails."""
    return subprocess.run(["docker", *args], check=True, stdout=subprocess.PIPE, text=True).stdout


@contextmanager
def exported(image: str) -> Iterator[tarfile.TarFile]:
    """A stream of the image's files, readable once. Its container is created but never started."""
    container = docker("create", "--pull=never", image, "-").strip()
    try:
        with (
            subprocess.Popen(["docker", "export", container], stdout=subprocess.PIPE) as export,
            tarfile.open(fileobj=export.stdout, mode="r|") as tar,
        ):
            yield tar
    finally:
        docker("rm", container)


def parent(image: str) -> str | None:
    found = re.search(r"^ARG PARENT=(\S+)", (IMAGES / image / "Dockerfile").read_text(), re.M)
    return found[1] if found else None


def in_usr(path: str) -> str:
    """A path from dpkg's lists, resolved for a system whose /bin, /sbin and /lib are links into /usr."""
    return re.sub(r"^/(s?bin|lib\w*)/", r"/usr/\1/", path)
