"""The lock of Debian packages, with an archive that moves on."""

from __future__ import annotations

import functools
import hashlib
import http.server
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.matrix import ROOT


class Archive:
    """A Debian archive of one suite, and a checkout with one image whose packages come from there."""

    def __init__(self, directory: Path, address: str) -> None:
        self.directory, self.address = directory, address
        self.checkout = directory / "checkout"
        (self.checkout / "images/base").mkdir(parents=True)
        (self.checkout / "images/base/Dockerfile").write_text("ARG ROOTFS\nFROM ${ROOTFS}\n")
        (self.checkout / "images/base/packages").write_text("tool  # a reason\n")
        # This archive is not signed.
        (directory / "apt.conf").write_text(
            'Acquire::AllowInsecureRepositories "true";\nAPT::Get::AllowUnauthenticated "true";\n'
        )

    def publish(self, **versions: str) -> None:
        """Hold exactly these packages."""
        shutil.rmtree(self.directory / "debian", ignore_errors=True)
        pool = self.directory / "debian/pool"
        stanzas = []
        for name, version in versions.items():
            control = (
                f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: x\nDescription: x\n"
            )
            control += "Depends: library\n" if name == "tool" else ""
            control += "Essential: yes\n" if name == "essential" else ""
            tree = self.directory / "tree"
            shutil.rmtree(tree, ignore_errors=True)
            (tree / "DEBIAN").mkdir(parents=True)
            (tree / "DEBIAN/control").write_text(control)
            pool.mkdir(parents=True, exist_ok=True)
            deb = pool / f"{name}_{version.partition(':')[2] or version}_all.deb"
            subprocess.run(["dpkg-deb", "--build", tree, deb], check=True, stdout=subprocess.DEVNULL)
            digest = hashlib.sha256(deb.read_bytes()).hexdigest()
            stanzas.append(
                f"{control}Filename: pool/{deb.name}\nSize: {deb.stat().st_size}\nSHA256: {digest}\n"
            )
        for suite in (
            "debian/dists/potato",
            "debian/dists/potato-updates",
            "debian-security/dists/potato-security",
        ):
            for arch in ("amd64", "arm64"):
                index = self.directory / suite / f"main/binary-{arch}/Packages"
                index.parent.mkdir(parents=True, exist_ok=True)
                index.write_text("\n".join(stanzas) if suite.endswith("potato") else "")

    def debs(self, *args: str, snapshot: str = "http://127.0.0.1:9") -> subprocess.CompletedProcess[str]:
        return self.run(ROOT / "scripts/debs", *args, snapshot=snapshot)

    def run(
        self, *command: str | Path, snapshot: str = "http://127.0.0.1:9"
    ) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "APT_CONFIG": f"{self.directory}/apt.conf",
            "DEBIAN_MIRROR": self.address,
            "DEBIAN_SNAPSHOT": snapshot,
            "http_proxy": "",
        }
        return subprocess.run(
            command,
            cwd=self.checkout,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def fetched(self) -> dict[str, str]:
        """The version of each package that a build would get."""
        debs = (self.checkout / "build/debs/base/potato-amd64").glob("*.deb")
        show = ["dpkg-deb", "--show", "--showformat", "${Version}"]
        return {deb.stem: subprocess.check_output([*show, deb], text=True) for deb in debs}

    @property
    def differs(self) -> Path:
        return self.checkout / "build/debs/potato-amd64.differs"


BEFORE = {"essential": "1", "library": "2:1.0+x", "tool": "1", "unrelated": "1"}
AFTER = {**BEFORE, "library": "2:1.1"}


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    """An archive whose packages have been locked as BEFORE."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        archive = Archive(tmp_path, f"http://127.0.0.1:{server.server_port}")
        archive.publish(**BEFORE)
        locked = archive.debs("lock", "potato")
        assert locked.returncode == 0, locked.stderr
        yield archive
        server.shutdown()


def test_locked_packages_are_fetched_with_exactly_their_dependencies(archive: Archive) -> None:
    fetched = archive.debs("fetch", "potato", "amd64")
    assert fetched.returncode == 0, fetched.stderr
    assert archive.fetched() == {"essential": "1", "library": "2:1.0+x", "tool": "1"}
    assert not archive.differs.exists()


def test_nothing_is_requested_twice(archive: Archive) -> None:
    archive.debs("fetch", "potato", "amd64")
    archive.publish()
    again = archive.debs("fetch", "potato", "amd64")
    assert (again.returncode, again.stderr) == (0, "")
    assert archive.fetched()["library"] == "2:1.0+x"


def test_an_archive_that_moved_on_is_used_and_the_differences_are_reported(archive: Archive) -> None:
    archive.publish(**AFTER)
    fetched = archive.debs("fetch", "potato", "amd64")
    assert fetched.returncode == 0, fetched.stderr
    assert archive.fetched() == {"essential": "1", "library": "2:1.1", "tool": "1"}
    assert archive.differs.read_text() == "  library: 2:1.0+x -> 2:1.1\n"
    assert archive.differs.read_text() in fetched.stderr
    assert "make lock" in fetched.stderr


def test_the_archive_of_old_versions_is_tried_first(archive: Archive, tmp_path: Path) -> None:
    date = (archive.checkout / "images/base/packages.lock").read_text().split("archive: ")[1].split()[0]
    shutil.copytree(tmp_path / "debian", tmp_path / f"archive/debian/{date}")
    archive.publish(**AFTER)
    fetched = archive.debs("fetch", "potato", "amd64", snapshot=archive.address)
    assert fetched.returncode == 0, fetched.stderr
    assert archive.fetched()["library"] == "2:1.0+x"
    assert not archive.differs.exists()


def test_push_refuses_what_differs_from_the_lock(archive: Archive) -> None:
    archive.publish(**AFTER)
    for name in ("scripts", ".venv"):
        (archive.checkout / name).symlink_to(ROOT / name)
    make = ("make", "-f", ROOT / "Makefile", "VARIANTS=potato", "DEBIAN=potato", "PLATFORM=linux/amd64")
    refused = archive.run(*make, "push", "REGISTRY=127.0.0.1:9")
    assert refused.returncode != 0
    assert f"run make lock:\n{archive.differs.read_text()}" in refused.stderr


def test_a_renewed_lock_no_longer_differs(archive: Archive) -> None:
    archive.publish(**AFTER)
    archive.debs("fetch", "potato", "amd64")
    archive.debs("lock", "potato")
    assert archive.debs("fetch", "potato", "amd64").returncode == 0
    assert not archive.differs.exists()
    assert archive.fetched()["library"] == "2:1.1"


def test_a_package_that_is_not_the_locked_one_is_refused(archive: Archive, tmp_path: Path) -> None:
    (tmp_path / "debian/pool/tool_1_all.deb").write_bytes(b"another")
    fetched = archive.debs("fetch", "potato", "amd64")
    assert fetched.returncode == 1
    assert "has no debian/pool/tool_1_all.deb" in fetched.stderr
    assert "Traceback" not in fetched.stderr


def test_a_suite_without_a_lock_is_refused(archive: Archive) -> None:
    refused = archive.debs("fetch", "sid", "amd64")
    assert refused.returncode == 1
    assert (
        refused.stderr == "debs: error: images/*/packages.lock have nothing for sid on amd64; run make lock\n"
    )
