"""The SBOM of an image against the image itself."""

from __future__ import annotations

import json
import subprocess
import uuid
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from license_expression import get_spdx_licensing

from tests.support.docker import inspect, run
from tests.support.images import image_from
from tests.support.matrix import ROOT, matrix

TAGS = {cell.variant: cell.tag.rpartition(":")[2] for cell in matrix()}
VARIANTS = list(TAGS)
IMAGES = sorted({cell.image for cell in matrix()})
SBOM = [ROOT / ".venv/bin/python", ROOT / "scripts/sbom"]


def written(into: Path, tag: str, *images: str) -> dict[str, Any]:
    """The SBOMs that scripts/sbom writes for images of this tag."""
    command = [*SBOM, "--into", into, "--tag", tag, *images]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return {name: json.loads((into / f"{name}-{tag}.json").read_text()) for name in images}


def tag_of(image: str) -> str:
    return image.rpartition(":")[2]


def packages(document: dict[str, Any], kind: str) -> set[tuple[str, str]]:
    return {
        (component["name"], component["version"])
        for component in document["components"]
        if component.get("purl", "").startswith(f"pkg:{kind}/")
    }


def reasons() -> list[tuple[str, str]]:
    lines = (ROOT / "scripts/unpackaged").read_text().splitlines()
    return [(line.split()[0], line.partition("#")[2]) for line in lines if line.startswith("/")]


def test_the_files_without_a_package_are_few_and_each_has_a_reason() -> None:
    assert len(reasons()) <= 60
    assert all(reason.strip() for _, reason in reasons())


@pytest.mark.parametrize(
    "variant", [VARIANTS[0], *(pytest.param(v, marks=pytest.mark.long) for v in VARIANTS[1:])]
)
def test_every_file_of_every_image_is_a_packages_or_ours_or_has_a_reason(
    variant: str, tmp_path: Path
) -> None:
    tag = TAGS[variant]
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    for name, document in written(tmp_path, tag, *IMAGES).items():
        assert validator.validate_str(json.dumps(document)) is None
        assert document["metadata"]["component"]["name"] == f"optml/{name}"
        assert packages(document, "generic") == {("optml", document["metadata"]["component"]["version"])}
        label = inspect(f"optml/{name}:{tag}")["Config"]["Labels"]["org.opencontainers.image.licenses"]
        assert document["metadata"]["component"]["licenses"] == [{"expression": label}]
        assert_licence_covers(label, document)


def assert_licence_covers(label: str, document: dict[str, Any]) -> None:
    """The label is an SPDX expression that covers all SPDX licences of the Python packages."""
    spdx = get_spdx_licensing()
    # A LicenseRef is valid SPDX, but not in the list.
    expression = label.replace(" AND LicenseRef-Debian", "")
    assert spdx.validate(expression, strict=True).errors == []
    for component in document["components"]:
        for license_ in component.get("licenses", ()) if ("pkg:pypi/" in component.get("purl", "")) else ():
            name = license_.get("expression") or license_["license"].get("id", "MIT")
            assert set(spdx.license_keys(name)) <= set(spdx.license_keys(expression)), component["name"]


@pytest.mark.long
def test_no_reason_outlives_its_files(tmp_path: Path) -> None:
    if len(VARIANTS) == 1:
        pytest.skip("the files may be in the other variant")
    found = set()
    for variant in VARIANTS:
        for document in written(tmp_path, TAGS[variant], *IMAGES).values():
            found |= {c["description"] for c in document["components"] if c["type"] == "file"}
    assert {reason.strip() for _, reason in reasons()} == found


@pytest.mark.image("mpi-train")
@pytest.mark.one_variant
def test_the_packages_are_those_that_the_image_names_itself(image: str, tmp_path: Path) -> None:
    document = written(tmp_path, tag_of(image), "mpi-train")["mpi-train"]
    listed = run(image, "dpkg-query", "--show", "--showformat", "${Package} ${Version}\n").stdout
    assert packages(document, "deb") == {tuple(line.split()) for line in listed.splitlines()}
    assert packages(document, "deb/optml") == {("optml-absent", "1")}
    script = """
import importlib.metadata as m
for path in ("/opt/optml/deps", "/opt/venv/lib/python3.%d/site-packages" % __import__("sys").version_info[1]):
    for d in m.distributions(path=[path]): print(d.metadata["Name"], d.version)
"""
    listed = run(image, "python3", "-c", script).stdout
    assert packages(document, "pypi") == {tuple(line.split()) for line in listed.splitlines()}


@pytest.mark.image("slim-serve")
@pytest.mark.one_variant
def test_an_image_without_dpkg_names_all_that_it_has_of_debian(image: str, tmp_path: Path) -> None:
    document = written(tmp_path, tag_of(image), "slim-serve")["slim-serve"]
    names = {name for name, _ in packages(document, "deb")}
    assert {"libc6", "python3", "tzdata", "ca-certificates"} <= names
    assert not names & {"apt", "dpkg", "bash", "perl-base"}


@pytest.mark.image("base")
@pytest.mark.one_variant
def test_files_that_were_left_out_are_recorded_with_their_package(image: str, tmp_path: Path) -> None:
    document = written(tmp_path, tag_of(image), "base")["base"]
    absent = [
        (component["name"], line["value"])
        for component in document["components"]
        for line in component.get("properties", ())
        if line["name"] == "optml:absent"
    ]
    assert ("bash", "/usr/share/doc/bash/CHANGES.gz") in absent
    assert not [path for _, path in absent if path.endswith("/copyright")]
    script = "import os, sys; print([p for p in sys.stdin.read().split('\\0') if os.path.lexists(p)])"
    there = subprocess.run(
        ["docker", "run", "--rm", "--interactive", image, "python3", "-c", script],
        input="\0".join(path for _, path in absent),
        capture_output=True,
        text=True,
    )
    assert there.stdout == "[]\n", there.stderr


@pytest.mark.image("runtime")
@pytest.mark.one_variant
def test_a_file_that_nothing_explains_is_named(image: str, tmp_path: Path) -> None:
    (tmp_path / "stranger").touch()
    dockerfile = f"FROM {image}\nCOPY stranger /opt/\nCOPY stranger /etc/fstab\n"
    tag = f"test-{uuid.uuid4().hex[:12]}"
    with image_from(dockerfile, tmp_path, f"optml/runtime:{tag}"):
        command = [*SBOM, "--into", tmp_path, "--tag", tag, "runtime"]
        refused = subprocess.run(command, capture_output=True, text=True)
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[1:] == ["  /opt/stranger"]


@pytest.mark.long
@pytest.mark.image("base")
@pytest.mark.one_variant
def test_a_suite_that_has_no_number_yet_goes_by_its_name(image: str, tmp_path: Path) -> None:
    tag = f"test-{uuid.uuid4().hex[:12]}"
    dockerfile = f"FROM {image}\nRUN sed -i /^VERSION_ID=/d /usr/lib/os-release\n"
    with image_from(dockerfile, tmp_path, f"optml/base:{tag}"):
        document = written(tmp_path, tag, "base")["base"]
    purls = [
        component["purl"] for component in document["components"] if "pkg:deb/" in component.get("purl", "")
    ]
    assert purls and all(f"distro=debian-{VARIANTS[0]}" in purl for purl in purls)
