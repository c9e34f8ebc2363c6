"""What decides whether something is published: accepted vulnerabilities, and whether a lock has changed."""

from __future__ import annotations

import json
import subprocess
from datetime import date, timedelta
from pathlib import Path

import pytest

from tests.support.matrix import ROOT

TOMORROW, YESTERDAY = (date.today() + timedelta(days=n) for n in (1, -1))


class Scan:
    """scripts/scan with a grype that saves its configuration and finds something if the SBOM says so."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "grype").write_text(
            f'#!/bin/sh\ncp "$2" {directory}/configuration\n! grep -q vulnerable "${{3#sbom:}}"\n'
        )
        (directory / "grype").chmod(0o755)
        for name in ("clean", "vulnerable"):
            (directory / name).write_text(name)

    def run(self, accepted: str, *sboms: str) -> subprocess.CompletedProcess[str]:
        (self.directory / "accepted").write_text(accepted)
        command = [ROOT / "scripts/scan", "--accepted", self.directory / "accepted"]
        return subprocess.run(
            [*command, *(self.directory / sbom for sbom in sboms)],
            env={"GRYPE": str(self.directory / "grype"), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
        )

    @property
    def configuration(self) -> dict[str, object]:
        read: dict[str, object] = json.loads((self.directory / "configuration").read_text())
        return read


@pytest.fixture
def scan(tmp_path: Path) -> Scan:
    return Scan(tmp_path)


def test_an_accepted_vulnerability_is_ignored_until_its_date(scan: Scan) -> None:
    for until in (date.today(), TOMORROW):
        assert scan.run(f"# why\n\nCVE-2026-1 libfoo1 {until}  # not read here\n", "clean").returncode == 0
        assert scan.configuration["ignore"] == [
            {"vulnerability": "CVE-2026-1", "package": {"name": "libfoo1"}}
        ]
    assert scan.configuration["fail-on-severity"] == "high"


def test_an_expired_entry_fails_even_if_nothing_is_found(scan: Scan) -> None:
    refused = scan.run(f"CVE-2026-1 libfoo1 {YESTERDAY}  # not read here\n", "clean")
    assert refused.returncode == 1
    assert f"accepted:1: CVE-2026-1 in libfoo1 was accepted until {YESTERDAY}" in refused.stderr


@pytest.mark.parametrize(
    "line", ["CVE-2026-1", "CVE-2026-1 libfoo1 soon # x", f"CVE-2026-1 libfoo1 {TOMORROW}"]
)
def test_an_entry_without_a_date_or_a_reason_is_refused(scan: Scan, line: str) -> None:
    refused = scan.run(f"{line}\n", "clean")
    assert refused.returncode == 1
    assert "accepted:1: write NAME PACKAGE YEAR-MONTH-DAY  # REASON" in refused.stderr


def test_one_bad_image_fails_and_the_others_are_still_scanned(scan: Scan) -> None:
    assert scan.run("", "vulnerable", "clean").returncode == 1
    assert scan.run("", "clean", "vulnerable").returncode == 1


class Repository:
    """A checkout of a release, with one lock."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.lock = directory / "images/base/packages.lock"
        self.lock.parent.mkdir(parents=True)
        self.lock.write_text("# archive: 20260101T000000Z\ntrixie amd64 apt 1\n")
        (directory / "Makefile").write_text("X := 1\nVERSION := 0.1.9\n")
        (directory / "CHANGELOG.md").write_text("# Changelog\n\nWords.\n\n## 0.1.9\n\n- It.\n")
        self.git("init", "--quiet")
        for key, value in (("user.name", "x"), ("user.email", "x@example.com")):
            self.git("config", key, value)
        self.git("add", ".")
        self.git("commit", "--quiet", "--message", "first")

    def git(self, *args: str) -> str:
        return subprocess.run(
            ["git", *args], cwd=self.directory, check=True, stdout=subprocess.PIPE, text=True
        ).stdout

    def renewal(self) -> str:
        return subprocess.run(
            [ROOT / "scripts/renewal"], cwd=self.directory, check=True, stdout=subprocess.PIPE, text=True
        ).stdout


def test_locks_with_the_same_packages_are_not_a_release(tmp_path: Path) -> None:
    repository = Repository(tmp_path)
    repository.lock.write_text("# archive: 20260202T000000Z\ntrixie amd64 apt 1\n")
    assert repository.renewal() == ""
    assert repository.git("tag") == ""


def test_a_newer_package_is_a_new_release(tmp_path: Path) -> None:
    repository = Repository(tmp_path)
    repository.lock.write_text("# archive: 20260202T000000Z\ntrixie amd64 apt 2\n")
    assert repository.renewal() == "v0.1.10\n"
    assert repository.git("rev-parse", "v0.1.10") == repository.git("rev-parse", "HEAD")
    assert repository.git("status", "--porcelain") == ""
    assert "VERSION := 0.1.10\n" in (tmp_path / "Makefile").read_text()
    changelog = (tmp_path / "CHANGELOG.md").read_text()
    assert changelog.startswith("# Changelog\n\nWords.\n\n## 0.1.10\n\n- Newer packages")
    assert changelog.count("## 0.1.9\n\n- It.\n") == 1
