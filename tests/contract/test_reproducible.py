"""How the build verifies itself: from nothing, by several at a time, and twice under other circumstances."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from pathlib import Path

import pytest

from tests.support.docker import docker
from tests.support.matrix import ARCH, ROOT, matrix

VARIANT = matrix()[0].variant
pytestmark = [pytest.mark.long, pytest.mark.alone]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone of what is in the working tree."""
    clone = tmp_path / "clone"
    listed = subprocess.check_output(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, text=True
    )
    for name in listed.splitlines():
        if (ROOT / name).is_file():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, clone / name)
    author = ["-c", "user.name=x", "-c", "user.email=x@example.com"]
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "all"]):
        subprocess.run(["git", *author, *command], cwd=clone, check=True)
    return clone


def test_an_image_that_another_day_changes_is_found_and_its_file_named(clone: Path) -> None:
    (clone / "build").symlink_to(ROOT / "build")
    (clone / "images/dated").mkdir()
    (clone / "images/dated/Dockerfile").write_text(
        "ARG PARENT=base\nFROM ${PARENT}\nRUN touch /etc/a; date > /etc/dated\n"
    )
    verified = subprocess.run(
        [clone / "scripts/verify-reproducible", VARIANT, ARCH, "0", "", "dated:base:", "base::"],
        env={**os.environ, "SOURCE_DATE_EPOCH": "1767225600"},
        capture_output=True,
        text=True,
    )
    assert verified.returncode == 1, verified.stderr
    base, dated = verified.stdout.splitlines()
    assert base.startswith(f"optml/base:{VARIANT} sha256:")
    assert dated == f"optml/dated:{VARIANT} differs, first in /etc/dated"


def test_two_who_build_from_nothing_at_a_time_do_not_meet(clone: Path) -> None:
    # What was fetched before would be fetched again; that is tested elsewhere.
    (clone / "build").mkdir()
    (clone / "build/cache").symlink_to(ROOT / "build/cache")
    tag = f"test-{uuid.uuid4().hex[:12]}"
    command = ["make", "-j4", "build-all", f"TAG={tag}", f"DEBIAN={VARIANT}"]
    try:
        makes = [
            subprocess.Popen(command, cwd=clone, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            for _ in range(2)
        ]
        printed = [make.communicate()[0] for make in makes]
        assert [make.returncode for make in makes] == [0, 0], printed
        for cell in matrix():
            docker("image", "inspect", f"optml/{cell.image}:{tag}")
    finally:
        tags = docker(
            "images", "--format", "{{.Repository}}:{{.Tag}}", "--filter", f"reference=optml/*:{tag}*"
        )
        docker("rmi", "--force", *tags.stdout.split(), check=False)
