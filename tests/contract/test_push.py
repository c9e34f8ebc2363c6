"""What `make push` does to a registry, against Debian's docker-registry on this machine."""

from __future__ import annotations

import json
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.support.docker import docker, run
from tests.support.matrix import ARCH, ROOT
from tests.support.registry import registry

RELEASE = "9.8.7-trixie-py3.13"
OTHER = "amd64" if ARCH == "arm64" else "arm64"


class Checkout:
    """A repository at tag v9.8.7, an image with one file for each machine, and a registry to push to."""

    def __init__(self, directory: Path, registry: str) -> None:
        self.directory, self.registry, self.name = directory, registry, f"test-{uuid.uuid4().hex[:12]}"
        (directory / "file").touch()
        (directory / "Dockerfile").write_text("FROM scratch\nCOPY file /\n")
        for machine in (ARCH, OTHER):
            tag = f"optml/{self.name}:{machine}"
            # The builder's cache would mix up the machines.
            docker("build", "--no-cache", "--platform", f"linux/{machine}", "--tag", tag, directory)
            self.release(machine, tag)
        self.git("init", "--quiet")
        self.git("add", "file")
        self.git("commit", "--quiet", "--message", "file")
        self.git("tag", "v9.8.7")

    def release(self, machine: str, image: str) -> None:
        """Put an image for this machine where verify-reproducible would."""
        folder = self.directory / "build" / machine / self.name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        subprocess.run(
            ["skopeo", "copy", "--quiet", "--dest-compress", f"docker-daemon:{image}", f"dir:{folder}"],
            check=True,
        )

    def git(self, *args: str) -> None:
        author = ["-c", "user.name=x", "-c", "user.email=x@example.com"]
        subprocess.run(["git", *author, *args], cwd=self.directory, check=True)

    def push(self, *args: str) -> subprocess.CompletedProcess[str]:
        command = [ROOT / "scripts/push", *args]
        return subprocess.run(command, cwd=self.directory, capture_output=True, text=True, timeout=120)

    def push_machine(self, machine: str = ARCH, version: str = "9.8.7") -> subprocess.CompletedProcess[str]:
        return self.push("machine", self.registry, version, RELEASE, machine, f"build/{machine}", self.name)

    def push_index(self, machines: str) -> subprocess.CompletedProcess[str]:
        return self.push("index", self.registry, RELEASE, machines, "trixie latest", self.name)

    def manifest(self, tag: str) -> tuple[str, Any]:
        """The digest and manifest in the registry for a tag, if there is one."""
        accept = "application/vnd.docker.distribution.manifest.list.v2+json"
        accept += ", application/vnd.docker.distribution.manifest.v2+json"
        url = f"http://{self.registry}/v2/optml/{self.name}/manifests/{tag}"
        answer = requests.get(url, headers={"Accept": accept}, timeout=20)
        return answer.headers.get("Docker-Content-Digest", ""), answer.json()


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Checkout]:
    (tmp_path / "checkout").mkdir()
    if not shutil.which("skopeo"):
        subprocess.run([ROOT / "scripts/apt-install", "skopeo"], check=True)
    with registry(tmp_path) as address:
        checkout = Checkout(tmp_path / "checkout", address)
        yield checkout
        for repository in (f"optml/{checkout.name}", f"{address}/optml/{checkout.name}"):
            listed = docker(
                "images", "--quiet", "--format", "{{.Repository}}:{{.Tag}}", repository
            ).stdout.split()
            docker("rmi", *listed, check=False)


@pytest.mark.image("base")
@pytest.mark.one_variant
def test_a_release_is_pushed_for_both_machines_joined_and_runs_by_digest(
    image: str, checkout: Checkout
) -> None:
    checkout.release(ARCH, image)
    for machine in (ARCH, OTHER):
        pushed = checkout.push_machine(machine)
        assert pushed.returncode == 0, pushed.stderr
    joined = checkout.push_index(f"{ARCH} {OTHER}")
    assert joined.returncode == 0, joined.stderr
    digest, index = checkout.manifest(RELEASE)
    assert {entry["platform"]["architecture"] for entry in index["manifests"]} == {"amd64", "arm64"}
    assert len(index["manifests"]) == 2  # SageMaker accepts no index with attestations
    assert [checkout.manifest(tag)[0] for tag in ("trixie", "latest")] == [digest, digest]
    listed = subprocess.run(
        [ROOT / "scripts/push", "releases"], input=joined.stdout, capture_output=True, text=True
    ).stdout
    name = f"{checkout.registry}/optml/{checkout.name}"
    assert json.loads(listed) == [
        {"name": name, "image": checkout.name, "variant": "trixie", "digest": digest}
    ]
    pulled = f"{name}@{digest}"
    assert run(pulled, "python3", "-c", "print(6 * 7)").stdout == "42\n"
    docker("rmi", "--force", pulled, check=False)


def test_a_release_that_is_there_is_never_replaced(checkout: Checkout) -> None:
    checkout.push_machine()
    checkout.push_index(ARCH)
    before = checkout.manifest(RELEASE), checkout.manifest(f"{RELEASE}-{ARCH}")
    checkout.release(ARCH, f"optml/{checkout.name}:{OTHER}")
    for refused in (checkout.push_machine(), checkout.push_index(ARCH)):
        assert refused.returncode == 1
        assert "is there already, and a release does not change; raise VERSION" in refused.stderr
    assert (checkout.manifest(RELEASE), checkout.manifest(f"{RELEASE}-{ARCH}")) == before


def test_the_next_release_moves_the_moving_tags_and_leaves_the_last_one(checkout: Checkout) -> None:
    checkout.push_machine()
    checkout.push_index(ARCH)
    before, _ = checkout.manifest(RELEASE)
    checkout.release(ARCH, f"optml/{checkout.name}:{OTHER}")
    checkout.git("tag", "v9.8.8")
    after = RELEASE.replace("9.8.7", "9.8.8")
    for step in (
        ("machine", checkout.registry, "9.8.8", after, ARCH, f"build/{ARCH}", checkout.name),
        ("index", checkout.registry, after, ARCH, "trixie latest", checkout.name),
    ):
        pushed = checkout.push(*step)
        assert pushed.returncode == 0, pushed.stderr
    assert checkout.manifest(RELEASE)[0] == before
    assert checkout.manifest("trixie")[0] == checkout.manifest("latest")[0] == checkout.manifest(after)[0]
    assert checkout.manifest("latest")[0] != before


def test_whoever_builds_the_release_compares_it_with_the_published_one(checkout: Checkout) -> None:
    checkout.push_machine()
    command = ("compare", checkout.registry, RELEASE, ARCH, f"build/{ARCH}", checkout.name)
    same = checkout.push(*command)
    assert same.returncode == 0, same.stderr
    name = f"{checkout.registry}/optml/{checkout.name}:{RELEASE}-{ARCH}"
    assert same.stdout.startswith(f"{name} is what this machine builds, sha256:")
    checkout.release(ARCH, f"optml/{checkout.name}:{OTHER}")
    other = checkout.push(*command)
    assert other.returncode == 1
    assert other.stderr.startswith(f"push: error: {name} is sha256:")
    absent = checkout.push("compare", checkout.registry, "0.0.1", *command[3:])
    assert absent.returncode == 1
    assert absent.stderr.startswith(f"push: error: {name.replace(RELEASE, '0.0.1')} cannot be read: ")


def test_only_the_tagged_commit_is_a_release(checkout: Checkout) -> None:
    assert checkout.push("release", "9.8.7").returncode == 0
    assert checkout.push("release", "9.9.0").returncode == 1
    other = checkout.push_machine(version="9.9.0")
    (checkout.directory / "file").write_text("changed")
    changed = checkout.push_machine()
    checkout.git("commit", "--quiet", "--all", "--message", "later")
    later = checkout.push_machine()
    for refused, reason in (
        (other, "there is no git tag v9.9.0"),
        (changed, "there are changes on top of v9.8.7"),
        (later, "HEAD is not v9.8.7"),
    ):
        assert refused.returncode == 1
        assert refused.stderr.startswith(f"push: error: {reason}")
    assert "errors" in checkout.manifest(f"{RELEASE}-{ARCH}")[1]


def test_a_registry_that_does_not_answer_is_not_taken_for_an_empty_one(checkout: Checkout) -> None:
    checkout.registry = "127.0.0.1:9"
    refused = checkout.push_machine()
    assert refused.returncode == 1
    assert "127.0.0.1:9 does not say whether it has" in refused.stderr
