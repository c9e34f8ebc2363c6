"""Open MPI over ssh on several hosts: a real all-reduce, keys of the job alone, and real trouble."""

from __future__ import annotations

import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.distributed.conftest import PROGRAMS, Cluster, fetched, python_of
from tests.support.docker import Container, docker

pytestmark = pytest.mark.image("mpi-train")

ARN = "arn:aws:sagemaker:eu-west-1:123456789012:training-job/numbers"
SECRET = "wJalrXUtnFEMI"
HYPERPARAMETERS = {"sagemaker_mpi_enabled": "true", "batch-size": "32"}
HOSTS = ("algo-1", "algo-2", "algo-3")


@pytest.fixture
def job(image: str, cluster: Callable[[str], Cluster], tmp_path: Path) -> Cluster:
    """A cluster whose code holds mpi4py, as `pip install mpi4py` in the Dockerfile would give it."""
    variant = image.rpartition(":")[2]
    wheels = fetched(f"mpi4py-{variant}", "mpi4py==4.1.2", python_of(variant))
    code = tmp_path / "code"
    for wheel in wheels.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(code)
    (code / "train.py").write_bytes((PROGRAMS / "allreduce_mpi.py").read_bytes())
    job = cluster(image)
    job.options = (
        f"--volume={code}:/opt/ml/code:ro",
        f"--env=TRAINING_JOB_ARN={ARN}",
        f"--env=AWS_SECRET_ACCESS_KEY={SECRET}",
        "--env=AWS_REGION=eu-west-1",
        "--env=NCCL_DEBUG=WARN",
        "--env=MY_OWN=words with spaces, \"quotes\" and 'more'",
    )
    return job


@pytest.mark.parametrize("size", [2, 4])
def test_ranks_of_all_hosts_sum_up(job: Cluster, size: int) -> None:
    hosts = [f"algo-{number}" for number in range(1, size + 1)]
    job.configure(HYPERPARAMETERS, *hosts, network_interface_name="ethwe")  # which no container has
    job.start()
    job.assert_success()
    for rank, host in enumerate(hosts):
        found = job.output(host, f"rank-{rank}.json")
        assert (found["rank"], found["ranks"]) == (rank, size)
        assert found["sum of ranks"] == sum(range(size))
        assert len(set(found["hosts"])) == size
        environment = found["environment"]
        assert environment["SM_CURRENT_HOST"] == host
        assert environment["SM_HP_BATCH_SIZE"] == "32"
        assert environment["NCCL_DEBUG"] == "WARN"
        assert environment["MY_OWN"] == "words with spaces, \"quotes\" and 'more'"
        assert environment["AWS_REGION"] == "eu-west-1"
        # mpirun gives its environment to the ranks beside it; nothing takes it to another host.
        assert ("AWS_SECRET_ACCESS_KEY" in environment) == (rank == 0)


@pytest.mark.parametrize("late", ["algo-1", "algo-2"])
def test_a_host_whose_name_resolves_late_is_waited_for(job: Cluster, late: str) -> None:
    job.configure(HYPERPARAMETERS, "algo-1", "algo-2")
    job.start(*({"algo-1", "algo-2"} - {late}))
    job.containers["algo-1" if late == "algo-2" else "algo-2"].wait_for_log("training environment")
    time.sleep(6)
    job.start(late)
    job.assert_success()


@pytest.mark.parametrize("victim", ["algo-1", "algo-3"])
@pytest.mark.parametrize("trouble", ["killed", "cut off"])
def test_a_host_that_vanishes_ends_the_others_and_is_named(job: Cluster, trouble: str, victim: str) -> None:
    job.configure(HYPERPARAMETERS, *HOSTS)
    job.start(options=("--env=UNTIL=stopped",))
    job.wait_for("running", "algo-1")
    job.containers[victim].kill("KILL") if trouble == "killed" else job.cut_off(victim)
    assert 0 not in job.codes().values()
    for host in {*HOSTS} - {victim}:
        assert f"host {victim} vanished" in job.hosts[host].failure


def test_a_rank_that_fails_on_another_host_ends_all(job: Cluster) -> None:
    job.configure(HYPERPARAMETERS, *HOSTS)
    job.start(options=("--env=UNTIL=2",))
    codes = job.codes()
    assert 0 not in codes.values()
    assert job.hosts["algo-1"].failure.startswith("ValueError: my own words")
    for host in ("algo-2", "algo-3"):
        assert job.hosts[host].failure.startswith(f"host algo-1 ended with code {codes['algo-1']}")


def test_workers_let_only_the_first_host_in_and_only_by_the_key(job: Cluster, image: str) -> None:
    job.configure(HYPERPARAMETERS, *HOSTS[:2])
    job.start(options=("--env=UNTIL=stopped",))
    job.wait_for("running", "algo-1")
    first, second = (job.containers[host] for host in HOSTS[:2])

    # The first host, with the key of the job and with another one.
    ssh = "ssh -F /tmp/optml-mpi-*/config {} algo-2 true"
    assert first.exec("sh", "-c", ssh.format(""), check=False).code == 0
    other = "ssh-keygen -q -t ed25519 -N '' -f /tmp/other && " + ssh.format(
        "-i /tmp/other -o IdentityAgent=none"
    )
    other = other.replace("/tmp/optml-mpi-*/config", "/tmp/without_key")
    strip = "grep -v IdentityFile /tmp/optml-mpi-*/config > /tmp/without_key && "
    refused = first.exec("sh", "-c", strip + other, check=False)
    assert refused.code == 255 and "Permission denied" in refused.stderr

    # Another container with the key, but not from the first host's address.
    with Container(image, "sleep", "infinity", options=(f"--network={job.network}",)) as stranger:
        copied = docker("cp", f"{first.name}:/tmp/", "-", check=False)
        assert copied.code == 0
        config = first.exec("sh", "-c", "cat /tmp/optml-mpi-*/config").stdout
        folder = config.split("IdentityFile ")[1].split("/key")[0]
        for name in ("config", "key", "known_hosts"):
            text = first.exec("cat", f"{folder}/{name}").stdout
            script = f"umask 077; mkdir -p {folder}; cat > {folder}/{name} <<'END'\n{text}END\n"
            stranger.exec("sh", "-c", script)
        refused = stranger.exec("ssh", "-F", f"{folder}/config", "algo-2", "true", check=False)
        assert refused.code == 255 and "Permission denied" in refused.stderr

    # No file of a worker holds the credentials.
    found = second.exec("grep", "-rl", SECRET, "/tmp", "/run", "/root", "/etc", "/opt/ml/output", check=False)
    assert found.stdout == ""


def test_the_image_holds_no_key(image: str) -> None:
    script = "ls /etc/ssh/ssh_host_* /root/.ssh /home/ml/.ssh 2>/dev/null; true"
    assert docker("run", "--rm", image, "sh", "-c", script).stdout == ""
