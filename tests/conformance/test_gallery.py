"""Each clause can fail: for each there is an image that breaks it, and no other clause of its area."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from conformance import clauses
from conformance.clause import CLAUSES, Clause
from tests.support.docker import docker
from tests.support.matrix import ROOT

assert clauses  # its modules declare what CLAUSES has

GALLERY = Path(__file__).parent / "gallery"
CAPABILITIES = "com.amazonaws.sagemaker.capabilities"
FAULTS_OF_IMAGES = {
    "I-ENTRY-1": r'ENTRYPOINT ["/bin/sh", "-c", "exec python3 /toolkit \"$@\"", "sh"]',
    "I-ENTRY-2": 'RUN cp /toolkit /usr/bin/tini\nENTRYPOINT ["/usr/bin/tini"]',
    "I-LABEL-2": f"LABEL {CAPABILITIES}.multi-models=yes",
    "I-SECRET-1": "ARG DATABASE_PASSWORD=correct-horse-battery",
    "I-SECRET-2": "RUN echo key > /etc/ssh_host_rsa_key",
    "I-SETUID-1": "RUN cp /usr/bin/id /usr/bin/powerful && chmod 4755 /usr/bin/powerful",
    "I-LAYERS-1": "\n".join(f"COPY toolkit.py /copies/{n}" for n in range(60)),
}
"""Faults in the Dockerfile; all others are in the toolkit."""

# The two clauses without a fault here: an image without labels is made below; one of 10 GB is not, and
# test_cli.py fakes what the engine says of it.
WITHOUT_LABEL, ENORMOUS = "I-LABEL-1", "I-SIZE-1"
FAULTS = [c.id for c in CLAUSES if c.id not in (WITHOUT_LABEL, ENORMOUS)]
SHORT = ("T-EXIT-2", "V-ERROR-1")
BY_ID = {c.id: c for c in CLAUSES}

pytestmark = [pytest.mark.image("base"), pytest.mark.one_variant]


@contextmanager
def broken_image(base: str, fault: str, extra: str = "") -> Iterator[str]:
    """An image of the gallery."""
    tag = f"optml-gallery:{fault.lower()}-{uuid.uuid4().hex[:8]}"
    dockerfile = (GALLERY / "Dockerfile").read_text() + extra
    build = ["docker", "build", "--force-rm", "-q", "-t", tag]
    build += ["--build-arg", f"BASE={base}", "--build-arg", f"FAULT={fault}"]
    with tempfile.TemporaryDirectory() as context:
        shutil.copy(GALLERY / "toolkit.py", context)
        Path(context, "Dockerfile").write_text(dockerfile)
        subprocess.run([*build, context], check=True, capture_output=True)
    try:
        yield tag
    finally:
        docker("rmi", "--force", tag, check=False)


def states(image: str, tmp_path: Path, only: list[str], *options: str) -> dict[str, str]:
    """What the check finds, by clause."""
    out = tmp_path / "result.json"
    command = [ROOT / "scripts/check", image, "--level=hardened", f"--json={out}", *options]
    done = subprocess.run([*command, *(f"--only={i}" for i in only)], capture_output=True, text=True)
    found = {c["id"]: c["state"] for c in json.loads(out.read_text())["clauses"]}
    assert done.returncode == int("broken" in found.values()), done.stdout + done.stderr
    return found


def neighbours(clause: Clause) -> list[str]:
    """The clauses of its area and those of the start; no slow ones but itself."""
    return [
        c.id
        for c in CLAUSES
        if c.id == clause.id
        or (not c.slow and (c.id[0] == clause.id[0] or c.id[0] == "E") and c.verb in (clause.verb, None))
    ]


def broken(found: dict[str, str]) -> list[str]:
    return [name for name, state in found.items() if state == "broken"]


@pytest.mark.long
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_breaks_its_clause_and_no_other(image: str, fault: str, tmp_path: Path) -> None:
    with broken_image(image, fault, FAULTS_OF_IMAGES.get(fault, "")) as tag:
        found = states(tag, tmp_path, neighbours(BY_ID[fault]), "--start-timeout=20")
    assert broken(found) == [fault]


def test_every_clause_has_a_fault() -> None:
    """Checked in the short run, too: a clause that nothing can break proves nothing."""
    toolkit = re.sub(r"X-(\w+)-{number}", r"X-\1-1 X-\1-2", (GALLERY / "toolkit.py").read_text())
    assert {*re.findall(r"\b[A-Z]-[A-Z]+-\d\b", toolkit), *FAULTS_OF_IMAGES} == set(FAULTS)


@pytest.mark.parametrize("fault", SHORT)
def test_a_fault_is_found(image: str, fault: str, tmp_path: Path) -> None:
    started = "E-TRAIN-1" if BY_ID[fault].verb == "train" else "E-SERVE-1"
    with broken_image(image, fault) as tag:
        assert states(tag, tmp_path, [started, fault]) == {started: "kept", fault: "broken"}


@pytest.mark.long
def test_an_image_without_labels(image: str, tmp_path: Path) -> None:
    """It lacks the label that every server should have, and need not keep what other labels promise."""
    with broken_image(image, "none") as tag:
        bare = f"{tag}-bare"
        # Labels cannot be removed, but an image imported from the bare files has none.
        made = subprocess.run(
            "id=$(docker create $FROM) && docker export $id | docker import "
            '-c \'ENTRYPOINT ["/usr/bin/python3", "/toolkit"]\' - $TO; docker rm $id',
            shell=True,
            capture_output=True,
            text=True,
            env={"FROM": tag, "TO": bare, "PATH": os.environ["PATH"]},
        )
        try:
            assert made.returncode == 0, made.stderr
            found = states(bare, tmp_path, [WITHOUT_LABEL, "I-PORT-1", "S-BOTH-1", "M-LOAD-1", "V-CALL-1"])
        finally:
            docker("rmi", "--force", bare, check=False)
    assert found == {
        WITHOUT_LABEL: "broken",
        "I-PORT-1": "not checked",
        "S-BOTH-1": "not checked",
        "M-LOAD-1": "not checked",
        "V-CALL-1": "kept",
    }
