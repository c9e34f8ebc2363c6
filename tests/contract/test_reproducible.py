"""How builds are verified: from scratch, several at a time, and twice under different circumstances."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from scripts.lib.image import exported
from tests.support.docker import docker
from tests.support.images import EPOCH
from tests.support.matrix import ARCH, ROOT, matrix

VARIANT = matrix()[0].variant
pytestmark = [pytest.mark.long, pytest.mark.alone]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone of the working tree, uncommitted changes included."""
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
        env={**os.environ, "SOURCE_DATE_EPOCH": EPOCH},
        capture_output=True,
        text=True,
    )
    assert verified.returncode == 1, verified.stderr
    base, dated = verified.stdout.splitlines()
    assert base.startswith(f"optml/base:{VARIANT} sha256:")
    assert dated == f"optml/dated:{VARIANT} differs, first in /etc/dated"


@contextmanager
def tag_of_its_own() -> Iterator[str]:
    tag = f"test-{uuid.uuid4().hex[:12]}"
    yield tag
    tags = docker("images", "--format", "{{.Repository}}:{{.Tag}}", "--filter", f"reference=optml/*:{tag}*")
    docker("rmi", "--force", *tags.stdout.split(), check=False)


def test_two_who_build_from_nothing_at_a_time_do_not_meet(clone: Path) -> None:
    # Downloads are shared: fetching them is tested elsewhere.
    (clone / "build").mkdir()
    (clone / "build/cache").symlink_to(ROOT / "build/cache")
    with tag_of_its_own() as tag:
        command = ["make", "-j4", "build-all", f"TAG={tag}", f"DEBIAN={VARIANT}"]
        makes = [
            subprocess.Popen(command, cwd=clone, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            for _ in range(2)
        ]
        printed = [make.communicate()[0] for make in makes]
        assert [make.returncode for make in makes] == [0, 0], printed
        for cell in matrix():
            docker("image", "inspect", f"optml/{cell.image}:{tag}")


def files(image: str) -> dict[str, tuple[object, ...]]:
    """The image's files: kind, mode, owners, target and content of each, but not the time."""
    with exported(image) as tar:
        return {
            member.name: (
                *(member.type, member.mode, member.uid, member.gid, member.linkname),
                hashlib.sha256(tar.extractfile(member).read()).digest() if member.isreg() else b"",  # type: ignore[union-attr]
            )
            for member in tar
        }


def test_buildkit_makes_the_same_files_as_the_classic_builder(tmp_path: Path) -> None:
    # Where there is another client, too: Debian's has BuildKit without a plugin.
    environment = {**os.environ, "PATH": f"/usr/bin:{os.environ['PATH']}"}
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    with tag_of_its_own() as classic, tag_of_its_own() as buildkit:
        for tag, chosen in ((classic, "0"), (buildkit, "1")):
            environment["DOCKER_BUILDKIT"] = chosen
            trial = ["docker", "build", "--quiet", "--tag", f"optml/trial:{tag}", tmp_path]
            if subprocess.run(trial, env=environment).returncode:
                pytest.skip("the Docker client here has one builder alone")
            command = ["make", "build-all", f"TAG={tag}", f"DEBIAN={VARIANT}"]
            subprocess.run(command, cwd=ROOT, env=environment, check=True)
        for image in {cell.image for cell in matrix()}:
            one, other = (files(f"optml/{image}:{tag}") for tag in (classic, buildkit))
            differ = sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
            assert differ == [], image
