"""The same image under each scheduler: containers with the variables that it sets, and nothing else."""

from __future__ import annotations

import ipaddress
import json
import time
from collections.abc import Callable

import pytest

from tests.distributed.jobs import assert_trained_together, program
from tests.support.cluster import BOUND, Cluster
from tests.support.docker import docker, inspect

HOSTS = ("node1", "node2", "node3")
TORCH = {"sagemaker_torch_distributed_enabled": "true"}

Variables = dict[str, str]


def trainjob(rank: int, addresses: list[str], each: int) -> Variables:
    return {
        "PET_NNODES": str(len(addresses)),
        "PET_NPROC_PER_NODE": str(each),
        "PET_NODE_RANK": str(rank),
        "PET_MASTER_ADDR": "node1",
        "PET_MASTER_PORT": "29500",
        "JOB_COMPLETION_INDEX": str(rank),
    }


def pytorchjob(rank: int, addresses: list[str], each: int) -> Variables:
    return {
        "MASTER_ADDR": "node1",
        "MASTER_PORT": "23456",
        "WORLD_SIZE": str(len(addresses) * each),
        "RANK": str(rank),
        "PET_NPROC_PER_NODE": str(each),
        "PET_NODE_RANK": str(rank),
        "PET_NNODES": str(len(addresses)),
    }


def elastic(rank: int, addresses: list[str], each: int) -> Variables:
    return {
        "PET_NNODES": f"{len(addresses)}:{len(addresses) + 1}",
        "PET_NPROC_PER_NODE": str(each),
        "PET_RDZV_BACKEND": "c10d",
        "PET_RDZV_ENDPOINT": "node1:29400",
        "PET_RDZV_ID": "job",
    }


def volcano(rank: int, addresses: list[str], each: int) -> Variables:
    shared = {"MASTER_ADDR": "node1", "MASTER_PORT": "23456"}
    return {**shared, "WORLD_SIZE": str(len(addresses)), "RANK": str(rank)}


def batch(rank: int, addresses: list[str], each: int) -> Variables:
    leader = {"AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS": addresses[0]} if rank else {}
    return {
        "AWS_BATCH_JOB_NUM_NODES": str(len(addresses)),
        "AWS_BATCH_JOB_MAIN_NODE_INDEX": "0",
        "AWS_BATCH_JOB_NODE_INDEX": str(rank),
        "PET_NPROC_PER_NODE": str(each),
        **leader,
    }


def skypilot(rank: int, addresses: list[str], each: int) -> Variables:
    return {
        "SKYPILOT_NUM_NODES": str(len(addresses)),
        "SKYPILOT_NODE_RANK": str(rank),
        "SKYPILOT_NODE_IPS": "\n".join(addresses),
        "SKYPILOT_NUM_GPUS_PER_NODE": "0",
        "PET_NPROC_PER_NODE": str(each),
    }


def slurm(rank: int, addresses: list[str], each: int) -> Variables:
    return {
        "SLURM_JOB_ID": "42",
        "SLURM_NNODES": str(len(addresses)),
        "SLURM_NTASKS": str(len(addresses)),
        "SLURM_NODEID": str(rank),
        "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": "0",
        "SLURM_JOB_NODELIST": f"node[1-{len(addresses)}]",
        "PET_NPROC_PER_NODE": str(each),
    }


class Hosts(Cluster):
    """Containers that each have the variables of one host of a scheduler."""

    def start_under(self, scheduler: Callable[..., Variables], size: int, each: int, *options: str) -> None:
        addresses = self.addresses(size)
        for rank, address in enumerate(addresses):
            self.start_host(HOSTS[rank], *options, **scheduler(rank, addresses, each))
            found = inspect(self.containers[HOSTS[rank]].name)["NetworkSettings"]["Networks"]
            assert found[self.network]["IPAddress"] == address

    def addresses(self, size: int) -> list[str]:
        """The addresses of the network's first containers: they count on from its gateway."""
        (network,) = json.loads(docker("network", "inspect", self.network).stdout)
        gateway = ipaddress.ip_address(network["IPAM"]["Config"][0]["Gateway"])
        return [str(gateway + number) for number in range(1, size + 1)]

    def start_host(self, host: str, *options: str, **variables: str) -> None:
        if host not in self.hosts:
            self.add(host)
        environment = (f"--env={name}={value}" for name, value in variables.items())
        self.run(host, *self.mounts(host), f"--hostname={host}", *options, *environment)


@pytest.fixture
def job(torch_image: str, cluster: Callable[..., Hosts]) -> Hosts:
    return cluster(torch_image, Hosts)


LONG = pytest.mark.long


@pytest.mark.parametrize(
    ("scheduler", "size", "each"),
    [
        (trainjob, 2, 2),
        pytest.param(trainjob, 3, 1, marks=LONG),
        pytest.param(pytorchjob, 2, 2, marks=LONG),
        pytest.param(pytorchjob, 3, 1, marks=LONG),
        (volcano, 2, 1),
        pytest.param(volcano, 3, 1, marks=LONG),
        (batch, 2, 1),
        pytest.param(batch, 3, 1, marks=LONG),
        pytest.param(batch, 2, 2, marks=LONG),
        pytest.param(skypilot, 2, 2, marks=LONG),
        pytest.param(skypilot, 3, 1, marks=LONG),
        pytest.param(slurm, 2, 2, marks=LONG),
        pytest.param(slurm, 3, 1, marks=LONG),
    ],
)
def test_all_hosts_train_one_model(
    job: Hosts, scheduler: Callable[..., Variables], size: int, each: int
) -> None:
    job.start_under(scheduler, size, each)
    job.assert_success()
    assert_trained_together(job, *HOSTS[:size], processes=each)
    for number in range(size):
        assert f"optml: host {number + 1} of {size}, by " in job.containers[HOSTS[number]].log().stderr


@pytest.mark.long
@pytest.mark.parametrize("scheduler", [volcano, skypilot])
def test_torchrun_starts_where_the_job_asks_for_it(job: Hosts, scheduler: Callable[..., Variables]) -> None:
    job.add(*HOSTS[:2])
    for training in job.hosts.values():
        training.config("hyperparameters.json", TORCH)
    job.start_under(scheduler, 2, 2, "--env=SAGEMAKER_PROCESSES_PER_HOST=2")
    job.assert_success()
    assert_trained_together(job, *HOSTS[:2], processes=2)


@pytest.mark.long
@pytest.mark.parametrize("each", [1, 2])
def test_an_elastic_job(job: Hosts, each: int) -> None:
    job.start_under(elastic, 2, each)
    job.assert_success()
    found = [len(list((job.hosts[host].root / "output/data").glob("metrics-*.json"))) for host in HOSTS[:2]]
    assert found == [each, each]
    assert "optml: one of 2 to 3 hosts, by PET_NNODES" in job.containers["node1"].log().stderr


@pytest.mark.long
def test_an_elastic_job_goes_on_where_failed_pods_are_started_again(job: Hosts) -> None:
    job.start_under(elastic, 2, 1, "--env=STEPS=100", *program("endless.py"))
    job.wait_for("running")
    job.containers["node2"].kill("KILL")
    containers, deadline = job.containers.values(), time.monotonic() + BOUND
    while True:  # restartPolicy: OnFailure
        running = [container for container in containers if container.running]
        failed = [container for container in containers if container not in running and container.wait()]
        if not running and not failed:
            break
        for container in failed:
            docker("start", container.name)
        assert time.monotonic() < deadline, job.logs()
        time.sleep(1)
    assert job.containers["node2"].log().stdout.count("running") == 2


@pytest.mark.long
@pytest.mark.parametrize("scheduler", [trainjob, batch])
def test_a_host_that_is_killed_ends_the_others(job: Hosts, scheduler: Callable[..., Variables]) -> None:
    job.start_under(scheduler, 3, 1, *program("endless.py"))
    job.wait_for("running")
    job.containers["node2"].kill("KILL")
    assert 0 not in job.codes().values()


@pytest.mark.long
@pytest.mark.parametrize("scheduler", [trainjob, volcano, batch])
def test_a_host_does_not_train_alone_while_the_other_does_not_come(
    job: Hosts, scheduler: Callable[..., Variables]
) -> None:
    job.start_host("node1", **scheduler(0, job.addresses(2), 1))
    job.wait_for("optml: $", "node1")
    time.sleep(10)
    first = job.containers["node1"]
    assert first.running, job.logs()
    first.kill("TERM")
    assert first.wait(BOUND) != 0
    assert "epoch" not in first.log().stdout
    assert not job.hosts["node1"].success


@pytest.mark.long
def test_two_schedulers_that_disagree_end_the_job(job: Hosts) -> None:
    addresses = job.addresses(3)
    job.start_host("node1", **(trainjob(0, addresses, 1) | skypilot(0, addresses[:2], 1)))
    assert job.containers["node1"].wait(BOUND) == 1
    assert job.hosts["node1"].failure.startswith("host 1 of 3, by PET_NNODES, but host 1 of 2, by SkyPilot;")


def jax(rank: int, addresses: list[str], each: int) -> Variables:
    shared = {"JAX_NUM_PROCESSES": str(len(addresses)), "JAX_COORDINATOR_ADDRESS": "node1:6666"}
    return {**shared, "JAX_PROCESS_ID": str(rank)}


def xgboost(rank: int, addresses: list[str], each: int) -> Variables:
    shared = {"DMLC_TRACKER_URI": "node1", "DMLC_TRACKER_PORT": "29500"}
    return {**shared, "DMLC_NUM_WORKER": str(len(addresses)), "DMLC_TASK_ID": str(rank)}


@pytest.mark.parametrize("scheduler", [jax, pytest.param(xgboost, marks=LONG)])
@pytest.mark.image("cpu-train")
@pytest.mark.one_variant
def test_programs_of_jax_and_xgboost_meet_by_variables_of_their_own(
    image: str, cluster: Callable[..., Hosts], scheduler: Callable[..., Variables]
) -> None:
    job = cluster(image, Hosts)
    job.start_under(scheduler, 3, 1, *program("meets.py"))
    job.assert_success()
    for rank, host in enumerate(HOSTS):
        found = job.output(host, "found.json")
        assert found["sum of ranks"] == 3
        assert scheduler(rank, [*HOSTS], 1).items() <= found["environment"].items()
        assert (found["environment"]["SM_HOST_COUNT"], found["environment"]["MASTER_ADDR"]) == ("3", "node1")
