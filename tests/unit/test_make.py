"""The targets of the Makefile: what they declare, and their errors for a wrong call."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.support.matrix import ROOT, matrix


def make(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", *args], cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_help_lists_every_target_and_variable() -> None:
    printed = make("help").stdout
    verbs = "demo test build-all size sbom scan matrix push lint lock clean help build/NAME test/NAME"
    for word in [*verbs.split(), "DEBIAN", "PLATFORM", "REGISTRY", "TAG"]:
        assert word in printed
    assert make().stdout == printed


def test_the_matrix_is_the_folders_with_a_dockerfile() -> None:
    folders = {path.parent.name for path in (ROOT / "images").glob("*/Dockerfile")}
    assert {cell.image for cell in matrix()} == folders
    for cell in matrix():
        assert cell.tag.startswith(f"optml/{cell.image}:")
        assert cell.parent is None or cell.parent in folders


def test_a_variant_that_does_not_exist_is_refused() -> None:
    refused = make("build-all", "DEBIAN=potato")
    assert refused.returncode != 0
    assert "DEBIAN=potato is unknown; choose one of: trixie bookworm" in refused.stderr


@pytest.mark.parametrize("target", ["demo", "test", "lint", "lock", "clean", "sbom", "verify-reproducible"])
def test_recipes_are_valid_shell(target: str) -> None:
    recipes = make("--dry-run", "--always-make", target)
    assert recipes.returncode == 0, recipes.stderr
    checked = subprocess.run(["bash", "-n"], input=recipes.stdout, capture_output=True, text=True)
    assert checked.stderr == ""


def test_push_needs_a_registry() -> None:
    refused = make("push")
    assert refused.returncode != 0
    assert "make push REGISTRY=" in refused.stderr


@pytest.mark.parametrize(
    "script", sorted(path.name for path in (ROOT / "scripts").iterdir() if path.is_file())
)
def test_every_script_explains_itself_at_its_top(script: str) -> None:
    lines = (ROOT / "scripts" / script).read_text().splitlines()
    assert lines[1].startswith(("# ", '"""'))


def test_an_engine_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    refused = subprocess.run([ROOT / "scripts/engine"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 1
    assert "no Docker Engine answers at DOCKER_HOST=tcp://127.0.0.1:1" in refused.stderr


def test_packages_are_installed_by_one_process_at_a_time(tmp_path: Path) -> None:
    # As by `make -j4` on a bare machine. This apt fails, like the real one, while another one is running.
    (tmp_path / "apt-get").write_text(
        f"#!/bin/sh\nmkdir {tmp_path}/lock || exit 100\nsleep 0.2\nrmdir {tmp_path}/lock\n"
    )
    (tmp_path / "sudo").write_text('#!/bin/sh\nshift\nexec "$@"\n')
    for program in tmp_path.iterdir():
        program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    installs = [
        subprocess.Popen([ROOT / "scripts/apt-install", "x"], env=environment, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    assert [(process.communicate()[1], process.returncode)[1] for process in installs] == [0, 0, 0]


def test_images_for_another_architecture_have_their_own_names() -> None:
    tags = {machine: make("matrix", f"PLATFORM=linux/{machine}").stdout for machine in ("amd64", "arm64")}
    assert not {e["tag"] for e in json.loads(tags["amd64"])} & {e["tag"] for e in json.loads(tags["arm64"])}
