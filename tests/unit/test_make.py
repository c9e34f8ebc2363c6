"""The verbs of the Makefile: what they declare, and what they say to a wrong call."""

from __future__ import annotations

import subprocess

import pytest

from tests.support.matrix import ROOT, matrix


def make(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", *args], cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_help_names_every_verb_and_variable() -> None:
    printed = make("help").stdout
    verbs = "demo test build-all size matrix push lint lock clean help build/NAME test/NAME"
    for word in [*verbs.split(), "DEBIAN", "PLATFORM", "ROOTFS", "REGISTRY", "TAG"]:
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


def test_push_wants_to_know_where_to() -> None:
    refused = make("push")
    assert refused.returncode != 0
    assert "make push REGISTRY=" in refused.stderr


@pytest.mark.parametrize(
    "script", ["engine", "rootfs", "mmdebstrap", "wheels", "venv", "apt-install", "size"]
)
def test_every_script_explains_itself_at_its_top(script: str) -> None:
    lines = (ROOT / "scripts" / script).read_text().splitlines()
    assert lines[1].startswith(("# ", '"""'))


def test_an_engine_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    refused = subprocess.run([ROOT / "scripts/engine"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 1
    assert "no Docker Engine answers at DOCKER_HOST=tcp://127.0.0.1:1" in refused.stderr
