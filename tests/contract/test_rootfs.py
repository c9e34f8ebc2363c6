"""How images are made: the root file system below them, and a build without network."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tarfile
import uuid
from pathlib import Path

import pytest

from tests.support.docker import inspect
from tests.support.images import EPOCH, built_image
from tests.support.matrix import ARCH, ROOT, matrix

VARIANT = matrix()[0].variant


def test_is_the_same_to_the_bit_when_made_again_with_another_umask(tmp_path: Path) -> None:
    tag = "-".join(filter(None, (os.environ.get("TAG"), VARIANT, ARCH)))
    made = inspect(f"optml/rootfs:{tag}")["Config"]["Labels"]["optml.rootfs.digest"]
    tar = tmp_path / "rootfs.tar"
    subprocess.run(
        [ROOT / "scripts/mmdebstrap", VARIANT, ARCH, tar],
        cwd=ROOT,
        check=True,
        umask=0o027,  # nobody's
        env={**os.environ, "SOURCE_DATE_EPOCH": EPOCH},
    )
    with tar.open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == made
    # Mount points, for tools that unpack the image and mount these themselves.
    with tarfile.open(tar) as archive:
        assert all(archive.getmember(f"./{name}").isdir() for name in ("dev", "proc", "sys"))
        assert not [name for name in archive.getnames() if name.startswith("./dev/")]


@pytest.mark.image("base")
@pytest.mark.one_variant
def test_a_build_step_has_no_network(image: str, tmp_path: Path) -> None:
    name = f"test-{uuid.uuid4().hex[:12]}"
    (tmp_path / f"images/{name}").mkdir(parents=True)
    (tmp_path / f"images/{name}/Dockerfile").write_text(
        'ARG PARENT\nFROM ${PARENT}\nRUN test "$(ls /sys/class/net)" = lo\n'
    )
    with built_image(tmp_path, name, image):
        pass  # it has succeeded
