"""examples/gpu: the frameworks' Dockerfiles, and the layer for drivers that are older than the wheels."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.support.matrix import ROOT

EXAMPLES = ROOT / "examples/gpu"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.Dockerfile")), ids=lambda path: path.stem)
def test_a_dockerfile_builds_on_our_image_and_pins_what_it_installs(path: Path) -> None:
    text = path.read_text()
    (image,) = re.findall(r"^(?:ARG IMAGE=|FROM optml/)([a-z-]+)$", text, re.M)
    assert (ROOT / "images" / image / "Dockerfile").is_file()
    for requirement in re.findall(r"pip install --no-cache-dir (.*)", text):
        assert re.fullmatch(r"\S+==\d[\d.]+'?", requirement)


@pytest.mark.parametrize(
    ("driver", "made_from", "used"),
    [
        ("535.54.03", "580.65.06", True),
        ("580.65.06", "580.65.06", False),
        ("590.44.01", "580.65.06", False),  # never instead of a newer driver
        ("", "580.65.06", False),  # no driver
        ("535.54.03", "", False),  # no libraries
    ],
)
def test_the_compatibility_libraries_are_used_if_needed(
    tmp_path: Path, driver: str, made_from: str, used: bool
) -> None:
    version, compat = tmp_path / "version", tmp_path / "compat"
    compat.mkdir()
    if driver:
        version.write_text(
            f"NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {driver}  Release\nGCC 13\n"
        )
    if made_from:
        (compat / f"libcuda.so.{made_from}").touch()
    script = (EXAMPLES / "compat-entrypoint").read_text()
    for real, here in {
        "/proc/driver/nvidia/version": version,
        "/usr/local/cuda/compat": compat,
        "/opt/optml/bin/entrypoint": "/usr/bin/printenv",
    }.items():
        assert real in script
        script = script.replace(real, str(here))
    command = ["sh", "-c", script, "compat-entrypoint", "LD_LIBRARY_PATH"]
    for before in ("", "/opt/mine"):
        done = subprocess.run(command, env={"LD_LIBRARY_PATH": before}, capture_output=True, text=True)
        assert done.stderr == ""
        assert done.stdout.strip() == ":".join([str(compat)] * used + [before] * bool(before))
