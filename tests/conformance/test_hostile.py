"""Images that do not start, do not end or never stop writing: each breaks only the clauses of its start."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.support.docker import docker
from tests.support.images import image_from
from tests.support.matrix import ROOT

STARTS = ["E-TRAIN-1", "E-SERVE-1"]


def broken(dockerfile: str, tmp_path: Path, *options: str) -> list[str]:
    """The required clauses that an image breaks. The check must end by itself and leave nothing behind."""
    found, junit = tmp_path / "found.json", tmp_path / "found.xml"
    with image_from(dockerfile, tmp_path) as tag:
        command = [ROOT / "scripts/check", tag, "--level=required", f"--json={found}", f"--junit={junit}"]
        limited = ["bash", "-c", 'ulimit -v 512000; exec "$@"', "bash", *command, *options]
        done = subprocess.run(limited, capture_output=True, text=True, timeout=500)
        left = docker("ps", "--all", "--quiet", "--filter", f"ancestor={tag}").stdout
    assert (done.returncode, left) == (1, ""), done.stderr
    assert max(map(len, done.stdout.splitlines())) < 1000
    names = [c["id"] for c in json.loads(found.read_text())["clauses"] if c["state"] == "broken"]
    assert len(ElementTree.parse(junit).findall("testcase/failure")) == len(names)
    return names


def test_an_image_with_nothing_in_it(tmp_path: Path) -> None:
    assert broken('FROM scratch\nLABEL a=b\nCOPY Dockerfile /file\nCMD ["x"]', tmp_path) == STARTS


@pytest.mark.long
@pytest.mark.image("base")
@pytest.mark.one_variant
def test_a_script_with_the_line_endings_of_windows(image: str, tmp_path: Path) -> None:
    script = r"printf '#!/bin/sh\r\nexit 0\r\n' > /start && chmod 755 /start"
    assert broken(f'FROM {image}\nRUN {script}\nENTRYPOINT ["/start"]', tmp_path) == STARTS


@pytest.mark.long
@pytest.mark.image("base")
@pytest.mark.one_variant
def test_a_container_that_does_nothing_for_ever(image: str, tmp_path: Path) -> None:
    """It is waited for once, not once for each clause."""
    dockerfile = f'FROM {image}\nENTRYPOINT ["/bin/sh", "-c", "trap \'\' TERM; while :; do sleep 1; done"]'
    found = broken(dockerfile, tmp_path, "--train-timeout=3", "--start-timeout=3")
    assert found == ["E-TRAIN-1", "P-READY-1"]


@pytest.mark.long
@pytest.mark.image("base")
@pytest.mark.one_variant
def test_more_output_than_memory(image: str, tmp_path: Path) -> None:
    """The engine keeps the end of the output, and the check, limited to 512 MB here, reads no more of it."""
    program = r"head -c 600000000 /dev/zero | tr '\\0' x; exit 3"
    dockerfile = f'FROM {image}\nENTRYPOINT ["/bin/sh", "-c", "{program}"]'
    assert broken(dockerfile, tmp_path, "--only=E-TRAIN-1", "--only=T-LOG-1") == ["E-TRAIN-1"]
