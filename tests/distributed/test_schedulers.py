"""The same image under each scheduler: containers that get the variables it gives, and nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.distributed.conftest import Cluster
from tests.distributed.test_torchrun import assert_trained_together, program
from tests.support.docker import inspect

HOSTS = ("node1", "node2")
PET = {"PET_NNODES": "2", "PET_NPROC_PER_NODE": "2", "PET_MASTER_ADDR": "node1", "PET_MASTER_PORT": "29500"}
ELASTIC = {
    "PET_NNODES": "2:3",
    "PET_NPROC_PER_NODE": "1",
    "PET_RDZV_BACKEND": "c10d",
    "PET_RDZV_ENDPOINT": "node1:29400",
    "PET_RDZV_ID": "job",
}
TORCH = {"sagemaker_torch_distributed_enabled": "true"}


@pytest.fixture
def job(torch_image: str, cluster: Callable[[str], Cluster]) -> Cluster:
    job = cluster(torch_image)
    job.add(*HOSTS)
    return job


def start(job: Cluster, host: str, *options: str, **variables: str) -> None:
    root = job.hosts[host].root
    mounts = [f"--volume={root / part}:/opt/ml/{part}" for part in ("input", "model", "output")]
    variables["GLOO_SOCKET_IFNAME"] = "eth0"
    job.run(host, *mounts, *options, *(f"--env={name}={value}" for name, value in variables.items()))


def test_a_trainjob(job: Cluster) -> None:
    for rank, host in enumerate(HOSTS):
        start(job, host, **PET, PET_NODE_RANK=str(rank), JOB_COMPLETION_INDEX=str(rank))
    job.assert_success()
    assert_trained_together(job, *HOSTS, processes=2)
    assert "optml: host 2 of 2, by PET_NNODES" in job.containers["node2"].log().stderr


def test_a_pytorchjob(job: Cluster) -> None:
    shared = {"MASTER_ADDR": "node1", "MASTER_PORT": "23456", "WORLD_SIZE": "2"}
    for rank, host in enumerate(HOSTS):
        own = {"RANK": str(rank), "PET_NODE_RANK": str(rank), "PET_NNODES": "2", "PET_NPROC_PER_NODE": "1"}
        start(job, host, **shared, **own)
    job.assert_success()
    assert_trained_together(job, *HOSTS)


def test_a_volcano_job(job: Cluster) -> None:
    shared = {"MASTER_ADDR": "node1", "MASTER_PORT": "23456", "WORLD_SIZE": "2"}
    for rank, host in enumerate(HOSTS):
        start(job, host, **shared, RANK=str(rank))
    job.assert_success()
    assert_trained_together(job, *HOSTS)


def test_a_batch_job_of_several_nodes(job: Cluster) -> None:
    shared = {"AWS_BATCH_JOB_NUM_NODES": "2", "AWS_BATCH_JOB_MAIN_NODE_INDEX": "0"}
    for host in HOSTS:
        job.hosts[host].config("hyperparameters.json", TORCH)
    start(job, "node1", **shared, AWS_BATCH_JOB_NODE_INDEX="0")
    main = inspect(job.containers["node1"].name)["NetworkSettings"]["Networks"][job.network]["IPAddress"]
    start(
        *(job, "node2"),
        **shared,
        AWS_BATCH_JOB_NODE_INDEX="1",
        AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS=main,
    )
    job.assert_success()
    assert_trained_together(job, *HOSTS)


def test_a_task_of_slurm_for_each_process(job: Cluster) -> None:
    shared = {
        "SLURM_JOB_ID": "42",
        "SLURM_NNODES": "1",
        "SLURM_NTASKS": "2",
        "SLURM_NODEID": "0",
        "SLURM_JOB_NODELIST": "node1",
    }
    for rank, host in enumerate(HOSTS):  # two containers, as pyxis gives each task a view of its node
        start(job, host, **shared, SLURM_PROCID=str(rank), SLURM_LOCALID=str(rank))
    job.assert_success()
    assert_trained_together(job, *HOSTS)


def test_an_elastic_job(job: Cluster) -> None:
    for host in HOSTS:
        start(job, host, f"--hostname={host}", **ELASTIC)
    job.assert_success()
    ranks = [len(list((job.hosts[host].root / "output/data").glob("metrics-*.json"))) for host in HOSTS]
    assert ranks == [1, 1]
    assert "optml: one of 2 to 3 hosts, by PET_NNODES" in job.containers["node1"].log().stderr


def test_a_node_that_is_killed_ends_the_other(job: Cluster) -> None:
    for rank, host in enumerate(HOSTS):
        start(job, host, *program("endless.py"), **PET, PET_NODE_RANK=str(rank))
    job.wait_for("running")
    job.containers["node2"].kill("KILL")
    assert 0 not in job.codes().values()


def test_a_node_does_not_train_alone_while_the_other_does_not_come(job: Cluster) -> None:
    start(job, "node1", **PET, PET_NODE_RANK="0")
    job.wait_for("torch.distributed.run", "node1")
    time.sleep(10)
    assert job.containers["node1"].running
    job.containers["node1"].kill("TERM")
    assert job.containers["node1"].wait() != 0
    assert "epoch" not in job.containers["node1"].log().stdout
    assert not job.hosts["node1"].success
