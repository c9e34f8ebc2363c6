"""Slurm itself: slurmd in a container for each node, sbatch, srun, and the image entered as enroot would.

Slurm is Debian's, without pyxis: `enter` stands in for its --container-image.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.distributed.jobs import EXAMPLES, PROGRAMS, assert_trained_together
from tests.support.cluster import BOUND, Cluster
from tests.support.docker import docker, inspect
from tests.support.locks import exclusive
from tests.support.matrix import ROOT

pytestmark = pytest.mark.long

NODES = ("node1", "node2", "node3")
EXAMPLE = (EXAMPLES / "schedulers/job.sbatch").read_text()


@pytest.fixture(scope="module")
def node_image(torch_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Debian with Slurm, with the root file system of the job's image in /image."""
    context = tmp_path_factory.mktemp("slurm") / "node"
    shutil.copytree(Path(__file__).parent / "slurm", context)
    os.link(_debian(), context / "debian.tar")
    (context / "image.env").write_text("\n".join(inspect(torch_image)["Config"]["Env"]))
    tag = f"optml-test-slurm:{uuid.uuid4().hex[:12]}"
    docker("build", "--force-rm", "--build-arg", f"JOB={torch_image}", "--tag", tag, context, timeout=600)
    yield tag
    docker("rmi", "--force", tag)


def _debian() -> Path:
    """The root file system of a Debian with Slurm, kept for the next run."""
    tar = ROOT / "build/slurm.tar"
    if not shutil.which("mmdebstrap"):
        pytest.skip("mmdebstrap, which makes the nodes, is not here; make build-all installs it")
    with exclusive("slurm"):
        if not tar.exists():
            command = ["mmdebstrap", "--quiet", "--variant=minbase", "--include=slurm-wlm,munge"]
            done = subprocess.run([*command, "bookworm", tar], capture_output=True, text=True)
            if done.returncode:
                tar.unlink(missing_ok=True)
                pytest.skip(f"Debian's packages of Slurm cannot be had here: {done.stderr.strip()[-300:]}")
    return tar


class Slurm(Cluster):
    """The nodes, each with an /opt/ml of its own in the job's image."""

    def boot(self, *nodes: str) -> None:
        self.add(*nodes)
        for node in nodes:
            mounts = self.mounts(node, "/image/opt/ml")
            programs = f"--volume={PROGRAMS}:/image/opt/ml/code/programs:ro"
            # Docker's seccomp filter forbids user namespaces, in which enroot runs containers.
            options = (f"--hostname={node}", "--security-opt=seccomp=unconfined", *mounts, programs)
            self.run(node, *options, command=("node",))

    def sbatch(self, script: str) -> str:
        """Submit a batch script, which Slurm starts once its nodes are up; returns the job's id."""
        script = script.replace("--container-image=distributed-torch", "enter")
        (self.root / "job.sbatch").write_text(script)
        first = self.containers["node1"]
        docker("cp", self.root / "job.sbatch", f"{first.name}:/tmp")
        self._until("the controller answers", lambda: first.exec("sinfo", check=False).code == 0)
        submitted = first.exec("sbatch", "--parsable", "--chdir=/tmp", "--output=/tmp/log", "/tmp/job.sbatch")
        return submitted.stdout.strip()

    def log(self) -> str:
        """What the job has written so far."""
        return self.containers["node1"].exec("cat", "/tmp/log", check=False).stdout

    def wait_for_output(self, text: str) -> None:
        self._until(f"the job writes {text!r}", lambda: text in self.log())

    def state(self, job: str) -> str:
        """How the job ended, in Slurm's words."""
        show = ("scontrol", "show", "job", job)

        def found() -> str:
            return re.search(r"JobState=(\w+)", self.containers["node1"].exec(*show).stdout)[1]

        self._until(
            "the job ends", lambda: found() not in ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING")
        )
        return found()

    def _until(self, what: str, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + BOUND
        while not holds():
            assert time.monotonic() < deadline, f"not within {BOUND:.0f} s: {what}\n{self.log()}{self.logs()}"
            time.sleep(0.2)


@pytest.fixture
def slurm(node_image: str, cluster: Callable[..., Any]) -> Slurm:
    made: Slurm = cluster(node_image, Slurm)
    return made


@pytest.mark.parametrize("size", [2, 3])
def test_the_example_trains_one_model(slurm: Slurm, size: int) -> None:
    slurm.boot(*NODES[:size])
    job = slurm.sbatch(EXAMPLE.replace("--nodes=2", f"--nodes={size}"))
    assert slurm.state(job) == "COMPLETED", slurm.log()
    assert_trained_together(slurm, *NODES[:size], processes=2)
    for number in range(1, size + 1):
        assert f"optml: host {number} of {size}, by Slurm\n" in slurm.log()


def test_a_task_for_each_process(slurm: Slurm) -> None:
    slurm.boot(*NODES[:2])
    script = EXAMPLE.replace("ntasks-per-node=1", "ntasks-per-node=2")
    job = slurm.sbatch(script.replace("export PET_NPROC_PER_NODE=2\n", ""))
    assert slurm.state(job) == "COMPLETED", slurm.log()
    assert_trained_together(slurm, *NODES[:2], processes=2)
    assert "torch.distributed.run" not in slurm.log()


def test_a_node_that_is_killed_ends_the_job(slurm: Slurm) -> None:
    slurm.boot(*NODES[:2])
    program = "env SAGEMAKER_PROGRAM=programs/endless.py train"
    # By default Slurm requeues a job that has lost a node.
    endless = EXAMPLE.replace(" train\n", f" {program}\n").replace(
        "\n#SBATCH", "\n#SBATCH --no-requeue\n#SBATCH", 1
    )
    job = slurm.sbatch(endless)
    slurm.wait_for_output("running")
    slurm.containers["node2"].kill("KILL")
    assert slurm.state(job) in ("FAILED", "NODE_FAIL"), slurm.log()
    assert not slurm.hosts["node1"].success
