"""The images for arm64: the same files as for amd64, and they train and serve, by emulation if need be."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
import requests

from scripts.lib.image import exported
from tests.support.docker import Container, run, wait_for_ping
from tests.support.matrix import ROOT

EXAMPLE = ROOT / "examples/one-image"
IMAGES = ("base", "cpu-train", "cpu-serve", "slim-serve")
MACHINES_OWN = re.compile(
    # The loader, and folders of other word sizes.
    r".*/ld-linux-MACHINE\.so\.\d|(usr/)?lib(32|64|x32)(/.*)?"
    # setarch's names, and cryptography of VIA's processors.
    r"|usr/bin/(i386|MACHINE)|usr/lib/MACHINE-linux-gnu/engines-3/padlock\.so"
)
pytestmark = pytest.mark.long


def tag(image: str, machine: str) -> str:
    printed = subprocess.check_output(["make", "matrix", f"PLATFORM=linux/{machine}"], cwd=ROOT, text=True)
    return next(cell["tag"] for cell in json.loads(printed) if cell["image"] == image)


def files(image: str) -> set[str]:
    """The names of the image's files, with those of machines made equal."""
    with exported(image) as tar:
        names = {member.name for member in tar}
    return {re.sub("aarch64|x86_64|x86-64|arm64|amd64", "MACHINE", name) for name in names}


def mounts(ml: Path) -> tuple[str, ...]:
    return (f"--volume={ml}:/opt/ml", "--platform=linux/arm64")


@pytest.fixture
def project(ml: Path) -> Path:
    """The example's code and data in /opt/ml."""
    (ml / "input/data/train").mkdir()
    (ml / "input/data/train/iris.csv").write_bytes((EXAMPLE / "iris.csv").read_bytes())
    for program in ("train.py", "inference.py"):
        (ml / "code" / program).write_bytes((EXAMPLE / program).read_bytes())
    return ml


@pytest.mark.parametrize("name", IMAGES)
def test_has_the_same_files_as_for_amd64(name: str) -> None:
    differ = files(tag(name, "arm64")) ^ files(tag(name, "amd64"))
    assert sorted(name for name in differ if not MACHINES_OWN.fullmatch(name)) == []


@pytest.mark.parametrize("name", ("cpu-serve", "slim-serve"))
def test_trains_and_serves(name: str, project: Path) -> None:
    if name == "cpu-serve":
        assert run(tag(name, "arm64"), "uname", "-m", options=mounts(project)).stdout == "aarch64\n"
    options = (*mounts(project), "--env=SAGEMAKER_PROGRAM=train.py")
    trained = run(tag("cpu-serve", "arm64"), "train", options=options, timeout=300)
    assert trained.code == 0, trained.output
    assert "fitted 3 species to 150 flowers" in trained.stdout
    with Container(tag(name, "arm64"), "serve", options=mounts(project)) as server:
        url = wait_for_ping(server, timeout=240)
        flowers = "5.1,3.5,1.4,0.2\n7.0,3.2,4.7,1.4\n6.3,3.3,6.0,2.5"
        answer = requests.post(
            f"{url}/invocations", flowers, headers={"Content-Type": "text/csv"}, timeout=60
        )
        assert answer.json() == ["setosa", "versicolor", "virginica"]
