"""The root file system that is made where no registry answers."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from tests.support.matrix import ARCH, ROOT, matrix

VARIANT = matrix()[0].variant


def test_is_the_same_to_the_bit_when_made_again(tmp_path: Path) -> None:
    recorded = (ROOT / "build" / f"rootfs-{VARIANT}-{ARCH}.txt").read_text()
    if not recorded.startswith("source: mmdebstrap"):
        pytest.skip("the images stand on the official image, which a registry gave")
    digests = set()
    for name in ("first", "second"):
        tar = tmp_path / f"{name}.tar"
        subprocess.run(
            [ROOT / "scripts/mmdebstrap", VARIANT, ARCH, tar],
            cwd=ROOT,
            check=True,
            env={**os.environ, "SOURCE_DATE_EPOCH": "1767225600"},
        )
        with tar.open("rb") as file:
            digests.add(hashlib.file_digest(file, "sha256").hexdigest())
    assert len(digests) == 1


def test_its_source_checksum_and_packages_are_recorded() -> None:
    source, checksum, *packages = (ROOT / "build" / f"rootfs-{VARIANT}-{ARCH}.txt").read_text().splitlines()
    assert source.startswith("source: ")
    assert checksum.startswith("checksum: sha256:")
    assert any(line.startswith("python3\t") for line in packages) or "debian@" in source
