"""The Debian packages in docs/images.md install in every image, and serve their purpose there."""

from __future__ import annotations

import re

import pytest

from tests.support.docker import Container
from tests.support.matrix import ROOT, Cell

PROOFS = {
    "git": "git init --quiet /tmp/repository",
    "default-jre-headless": "java -version",
    "libgl1": 'python3 -c \'import ctypes; ctypes.CDLL("libGL.so.1"); ctypes.CDLL("libgthread-2.0.so.0")\'',
    "build-essential": "echo '#include <Python.h>' | cc -x c -c $(python3-config --includes) -o /tmp/x.o -",
    "ffmpeg": "ffmpeg -loglevel error -f lavfi -i sine -t 1 /tmp/x.wav && test -s /tmp/x.wav",
    "curl": "curl --version && ps",
    "python3-venv": "/usr/bin/python3 -m venv /tmp/venv && /tmp/venv/bin/pip --version",
}
"""The first package of each row, and what shows that the row is enough."""


def rows() -> list[str]:
    """The packages of each row of the table."""
    text = (ROOT / "docs/images.md").read_text()
    section = text.partition("## System packages for your framework")[2].partition("\n## ")[0]
    return re.findall(r"^\|.*\| `([^`|]+)` \|$", section, re.M)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_what_the_docs_name_installs_and_works(cell: Cell) -> None:
    assert {row.split()[0] for row in rows()} == set(PROOFS)
    with Container(cell.tag, "sleep", "infinity", options=("--init",)) as container:
        container.exec("apt-get", "update")
        for row in rows():
            container.exec("apt-get", "install", "--yes", *row.split(), timeout=500)
            container.exec("sh", "-c", PROOFS[row.split()[0]])
