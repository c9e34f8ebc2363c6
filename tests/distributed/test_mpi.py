"""Open MPI on several hosts: a real all-reduce, an environment for each host, and real trouble."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.distributed.jobs import PROGRAMS, mpi_code
from tests.support.cluster import Cluster

pytestmark = pytest.mark.image("mpi-train")

ARN = "arn:aws:sagemaker:eu-west-1:123456789012:training-job/numbers"
SECRET = "wJalrXUtnFEMI"
MINE = "words with spaces, \"quotes\", 'more'\nand\tlines"
HYPERPARAMETERS = {"sagemaker_mpi_enabled": "true", "batch-size": "32"}
HOSTS = ("algo-1", "algo-2", "algo-3")


@pytest.fixture
def job(image: str, cluster: Callable[[str], Cluster], tmp_path: Path) -> Cluster:
    """A cluster whose code holds mpi4py, as `pip install mpi4py` in the Dockerfile would give it."""
    code = mpi_code(image, tmp_path / "code")
    job = cluster(image)
    job.options = (
        f"--volume={code}:/opt/ml/code:ro",
        f"--env=TRAINING_JOB_ARN={ARN}",
        "--env=AWS_REGION=eu-west-1",
        "--env=NCCL_DEBUG=WARN",
        f"--env=MY_OWN={MINE}",
    )
    return job


@pytest.mark.parametrize("size", [2, pytest.param(4, marks=pytest.mark.long)])
def test_ranks_of_all_hosts_sum_up(job: Cluster, size: int) -> None:
    hosts = [f"algo-{number}" for number in range(1, size + 1)]
    job.configure(HYPERPARAMETERS, *hosts, network_interface_name="ethwe")  # which no container has
    for host in hosts:
        job.start(host, options=(f"--env=AWS_SECRET_ACCESS_KEY=of {host}",))
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
        assert environment["MY_OWN"] == MINE
        assert environment["AWS_REGION"] == "eu-west-1"
        assert environment["AWS_SECRET_ACCESS_KEY"] == f"of {host}"


@pytest.mark.long
def test_the_first_host_may_come_last(job: Cluster) -> None:
    job.configure(HYPERPARAMETERS, "algo-1", "algo-2")
    job.start("algo-2")
    job.wait_for("training environment", "algo-2")
    time.sleep(4)
    job.start("algo-1")
    job.assert_success()


@pytest.mark.parametrize(
    ("trouble", "victim"),
    [
        ("killed", "algo-3"),
        pytest.param("killed", "algo-1", marks=pytest.mark.long),
        pytest.param("cut off", "algo-3", marks=pytest.mark.long),
    ],
)
def test_a_host_that_vanishes_ends_the_others_and_is_named(job: Cluster, trouble: str, victim: str) -> None:
    job.configure(HYPERPARAMETERS, *HOSTS)
    job.start(options=("--env=UNTIL=stopped",))
    job.wait_for("running", "algo-1")
    job.lose(victim, trouble)
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


def test_nothing_of_a_host_leaves_it(job: Cluster) -> None:
    """A host's environment is on no other host, neither in a process nor in a file."""
    job.configure(HYPERPARAMETERS, *HOSTS[:2])
    job.start("algo-1", options=("--env=UNTIL=stopped", f"--env=AWS_SESSION_TOKEN={SECRET}"))
    job.start("algo-2", options=("--env=UNTIL=stopped",))
    job.wait_for("running", "algo-1")
    # In two pieces, lest the search find itself.
    script = f"a={SECRET[:5]}; grep -rlsa ${{a}}{SECRET[5:]} /proc/[0-9]*/environ /tmp /run /root"
    found = {host: job.containers[host].exec("sh", "-c", script, check=False).stdout for host in HOSTS[:2]}
    assert "/environ" in found["algo-1"]
    assert found["algo-2"] == ""


@pytest.mark.parametrize("hosts", [pytest.param(HOSTS[:1], marks=pytest.mark.long), HOSTS[:2]])
def test_all_ranks_save_when_one_host_is_stopped(
    image: str, cluster: Callable[[str], Cluster], tmp_path: Path, hosts: tuple[str, ...]
) -> None:
    """The last host is stopped. The launcher does not know of that, and would kill the ranks at once."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code/train.py").write_bytes((PROGRAMS / "saves.py").read_bytes())
    job = cluster(image)
    job.options = (f"--volume={tmp_path}/code:/opt/ml/code:ro",)
    job.configure({**HYPERPARAMETERS, "sagemaker_mpi_num_of_processes_per_host": "2"}, *hosts)
    job.start()
    first = job.containers[hosts[0]]
    while first.log().stdout.count("running") < 2 * len(hosts):
        assert first.running, job.logs()
        time.sleep(0.1)
    job.containers[hosts[-1]].kill("TERM")
    job.assert_success()
    for number, host in enumerate(hosts):
        saved = {path.name for path in (job.hosts[host].root / "output/data").iterdir()}
        assert saved == {f"rank-{2 * number}", f"rank-{2 * number + 1}"}, job.logs()
