"""The MPIJob of the examples: its launcher and workers as containers, set up as by mpi-operator.

https://github.com/kubeflow/mpi-operator/blob/master/pkg/controller/mpi_job_controller.go
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.distributed.jobs import EXAMPLES, mpi_code
from tests.support.cluster import BOUND, Cluster
from tests.support.docker import Container, docker, run
from tests.support.manifests import arguments, container_options

pytestmark = [pytest.mark.image("mpi-train"), pytest.mark.one_variant]

JOB, CONFIG = yaml.safe_load_all((EXAMPLES / "schedulers/mpijob.yaml").read_text())
NAME, SPEC = JOB["metadata"]["name"], JOB["spec"]
SLOTS = str(SPEC["slotsPerWorker"])
LAUNCHER = {
    "K_MPI_JOB_ROLE": "launcher",
    "OMPI_MCA_orte_keep_fqdn_hostnames": "true",
    "OMPI_MCA_orte_default_hostfile": "/etc/mpi/hostfile",
    "OMPI_MCA_plm_rsh_args": "-o ConnectionAttempts=10",
    "OMPI_MCA_orte_set_default_slots": SLOTS,
}


class MpiJob(Cluster):
    """The pods of the workers; that of the launcher is a container of its own."""

    @property
    def workers(self) -> list[str]:
        count = SPEC["mpiReplicaSpecs"]["Worker"]["replicas"]
        return [f"{NAME}-worker-{number}.{NAME}.default.svc" for number in range(count)]

    def prepare(self, code: Path) -> None:
        """Make what the operator makes: a list of hosts, and keys."""
        self.options = (f"--volume={code}:/opt/ml/code:ro",)
        self.add(*self.workers)
        (self.root / "mpi").mkdir()
        (self.root / "mpi/hostfile").write_text("".join(f"{name} slots={SLOTS}\n" for name in self.workers))
        make_keys = (
            "ssh-keygen -q -t ecdsa -b 521 -m PEM -N '' -f /keys/id_rsa"
            " && cp /keys/id_rsa.pub /keys/authorized_keys && chmod 644 /keys/*"
        )
        made = run(self.image, "sh", "-c", make_keys, options=(f"--volume={self.root / 'keys'}:/keys",))
        assert made.code == 0, made.output

    def pod(self, role: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Options and arguments of the role's container."""
        pod = SPEC["mpiReplicaSpecs"][role]["template"]["spec"]
        (volume,) = pod["volumes"]
        (item,) = volume["configMap"]["items"]
        folder = self.root / volume["name"]
        folder.mkdir(exist_ok=True)
        (folder / item["path"]).write_text(CONFIG["data"][item["key"]])
        keys = f"--volume={self.root / 'keys'}:{SPEC['sshAuthMountPath']}:ro"
        options = container_options(pod, **{volume["name"]: folder})
        return (*options, *self.options, keys), arguments(pod)

    def start_workers(self) -> None:
        options, command = self.pod("Worker")
        for worker in self.workers:
            output = self.hosts[worker].root / "output"
            for folder in (output, output / "data"):
                folder.chmod(0o777)
            own = (f"--volume={output}:/opt/ml/output", f"--hostname={worker.partition('.')[0]}")
            self.run(worker, *options, *own, command=command)
        self.wait_for("Server listening")

    def launcher(self) -> Container:
        options, command = self.pod("Launcher")
        mounted = f"--volume={self.root / 'mpi'}:/etc/mpi:ro"
        environment = (f"--env={name}={value}" for name, value in LAUNCHER.items())
        network = f"--network={self.network}"
        return Container(self.image, *command, options=(*options, mounted, network, *environment))


@pytest.fixture
def job(image: str, cluster: Callable[..., Any], tmp_path: Path) -> MpiJob:
    job: MpiJob = cluster(image, MpiJob)
    job.prepare(mpi_code(image, tmp_path / "code"))
    job.start_workers()
    return job


def test_the_workers_sum_up(job: MpiJob) -> None:
    with job.launcher() as launcher:
        assert launcher.wait(BOUND) == 0, launcher.log().output + job.logs()
        log = launcher.log().output
    for rank, worker in enumerate(job.workers):
        found = job.output(worker, f"rank-{rank}.json")
        assert (found["rank"], found["ranks"], found["sum of ranks"]) == (rank, 2, 1)
        assert found["hosts"] == [name.partition(".")[0] for name in job.workers]
        assert (found["environment"]["RANK"], found["environment"]["WORLD_SIZE"]) == (str(rank), "2")
        assert job.hosts[worker].success
        assert f"optml: host {rank + 1} of 2, by mpirun" in log


@pytest.mark.long
def test_a_worker_that_is_killed_ends_the_job(job: MpiJob) -> None:
    code = job.root / "code/train.py"
    code.write_text("import os; os.environ['UNTIL'] = 'stopped'\n" + code.read_text())
    with job.launcher() as launcher:
        launcher.wait_for_log("running", BOUND)
        job.containers[job.workers[1]].kill("KILL")
        assert launcher.wait(BOUND) != 0, launcher.log().output
    assert not any(training.success for training in job.hosts.values())


@pytest.mark.long
def test_a_worker_with_another_key_gets_no_process(job: MpiJob) -> None:
    """A host that merely has a worker's name learns nothing of the job."""
    config = job.root / "sshd/job.conf"
    config.write_text(config.read_text().replace("/home/ml/.ssh/id_rsa", "/tmp/key"))
    worker = job.containers[job.workers[1]]
    worker.exec("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/tmp/key")
    docker("restart", worker.name)
    with job.launcher() as launcher:
        assert launcher.wait(BOUND) != 0
        assert "Host key verification failed" in launcher.log().output
    assert not any(training.success for training in job.hosts.values())
