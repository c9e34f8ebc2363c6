"""torchrun on several hosts: gloo, a real all-reduce, a real training, and real trouble."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.distributed.jobs import assert_trained_together, program
from tests.support.cluster import Cluster

HYPERPARAMETERS = {"sagemaker_torch_distributed_enabled": "true", "epochs": "40"}
HOSTS = ("algo-1", "algo-2", "algo-3")


@pytest.fixture
def job(torch_image: str, cluster: Callable[[str], Cluster]) -> Cluster:
    return cluster(torch_image)


@pytest.mark.parametrize(("size", "processes"), [(2, 2), pytest.param(4, 1, marks=pytest.mark.long)])
def test_hosts_train_one_model_from_resourceconfig_alone(job: Cluster, size: int, processes: int) -> None:
    hosts = [f"algo-{number}" for number in range(1, size + 1)]
    job.configure(HYPERPARAMETERS, *hosts)
    job.start(options=(f"--env=SAGEMAKER_PROCESSES_PER_HOST={processes}",))
    job.assert_success()
    assert_trained_together(job, *hosts, processes=processes)


@pytest.mark.long
def test_the_example_leaves_no_thread_of_its_group(job: Cluster) -> None:
    job.configure(HYPERPARAMETERS, "algo-1")
    job.start(options=(*program("leaves_nothing.py"), "--env=SAGEMAKER_PROCESSES_PER_HOST=2"))
    job.assert_success()


@pytest.mark.parametrize(
    ("end", "told"),
    [("raise SystemExit(3)", "exited with code 3"), ("os.abort()", "was killed by signal 6 (SIGABRT)")],
)
def test_a_rank_that_ends_without_an_exception_is_named(job: Cluster, end: str, told: str) -> None:
    job.configure({**HYPERPARAMETERS, "end": end}, "algo-1")
    job.start(options=(*program("ends.py"), "--env=SAGEMAKER_PROCESSES_PER_HOST=2"))
    assert job.codes() == {"algo-1": 1}
    assert job.hosts["algo-1"].failure.startswith(f"rank 1 {told}\nprograms/ends.py exited with code 1\n")


@pytest.mark.long
def test_hosts_are_waited_for_and_a_missing_interface_is_replaced(job: Cluster) -> None:
    hosts = ("algo-1", "algo-2")
    job.configure(HYPERPARAMETERS, *hosts, network_interface_name="ethwe")  # which no container has
    job.start("algo-2")
    job.wait_for("training environment", "algo-2")
    time.sleep(6)
    job.start("algo-1")
    job.assert_success()
    assert_trained_together(job, *hosts)
    for host in hosts:
        assert "eth0 (there is no interface ethwe here)" in job.containers[host].log().stderr


@pytest.mark.parametrize(
    ("trouble", "victim"),
    [
        ("killed", "algo-1"),
        pytest.param("killed", "algo-3", marks=pytest.mark.long),
        pytest.param("cut off", "algo-3", marks=pytest.mark.long),
    ],
)
def test_a_host_that_vanishes_ends_the_others_and_is_named(job: Cluster, trouble: str, victim: str) -> None:
    job.configure(HYPERPARAMETERS, *HOSTS)
    job.start(options=program("endless.py"))
    job.wait_for("running")
    job.lose(victim, trouble)
    assert 0 not in job.codes().values()
    for host in {*HOSTS} - {victim}:
        assert job.hosts[host].failure.startswith(f"host {victim} vanished")
    if trouble == "cut off":
        assert "vanished" in job.hosts[victim].failure


@pytest.mark.parametrize("victim", ["algo-1", "algo-2"])
def test_a_host_that_fails_after_all_have_met_ends_the_others_and_is_named(job: Cluster, victim: str) -> None:
    job.configure(HYPERPARAMETERS, "algo-1", "algo-2")
    (other,) = {"algo-1", "algo-2"} - {victim}
    job.start(victim, options=("--env=SAGEMAKER_TRAINING_USER=nobody-of-that-name",))
    job.start(other, options=program("endless.py"))
    assert 0 not in job.codes().values()
    assert "nobody-of-that-name" in job.hosts[victim].failure
    assert job.hosts[other].failure.startswith(f"host {victim} ended with code 1;")
    assert "Traceback" not in job.logs()


def test_a_rank_that_fails_ends_all(job: Cluster) -> None:
    job.configure(HYPERPARAMETERS, *HOSTS)
    job.start(options=(*program("endless.py"), "--env=FAILING_RANK=1"))
    assert 0 not in job.codes().values(), job.logs()
    # The reason may begin with another host, which lost its peer and ended first.
    assert "ValueError: my own words" in job.hosts["algo-2"].failure


@pytest.mark.long
def test_only_the_hosts_of_the_distribution_groups_train_together(job: Cluster) -> None:
    groups = {"feed": ["algo-1"], "train": ["algo-2", "algo-4"], "watch": ["algo-3"]}
    described = [
        {"instance_group_name": name, "instance_type": "ml.m5.large", "hosts": hosts}
        for name, hosts in groups.items()
    ]
    hyperparameters = {**HYPERPARAMETERS, "sagemaker_distribution_instance_groups": '["train"]'}
    hosts = [f"algo-{number}" for number in range(1, 5)]
    for name, members in groups.items():
        for host in members:
            job.configure(hyperparameters, host)
            resources = {"current_host": host, "hosts": hosts, "instance_groups": described}
            job.hosts[host].config("resourceconfig.json", {**resources, "current_group_name": name})
    job.start(options=program("by_group.py"))
    job.assert_success()
    assert_trained_together(job, "algo-2", "algo-4")
    for host in ("algo-1", "algo-3"):  # they run the program, too, but alone
        environment = job.output(host, "environment.json")
        assert environment["SM_CURRENT_HOST"] == host
        assert environment["SM_DISTRIBUTION_INSTANCE_GROUPS"] == '["train"]'
        assert environment["MASTER_ADDR"] == "algo-2"
