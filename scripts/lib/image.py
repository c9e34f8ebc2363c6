"""The files of an image, as the Docker Engine exports them, and what Debian calls them."""

from __future__ import annotations

import re
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager


def docker(*args: str) -> str:
    """What the client prints; raises CalledProcessError where it fails."""
    return subprocess.run(["docker", *args], check=True, stdout=subprocess.PIPE, text=True).stdout


@contextmanager
def exported(image: str) -> Iterator[tarfile.TarFile]:
    """A stream of the image's files, to be read once; the container made for it is never started."""
    container = docker("create", "--pull=never", image, "-").strip()
    try:
        with (
            subprocess.Popen(["docker", "export", container], stdout=subprocess.PIPE) as export,
            tarfile.open(fileobj=export.stdout, mode="r|") as tar,
        ):
            yield tar
    finally:
        docker("rm", container)


def in_usr(path: str) -> str:
    """Where a path of dpkg's lists leads once /bin, /sbin and /lib are links into /usr."""
    return re.sub(r"^/(s?bin|lib\w*)/", r"/usr/\1/", path)
