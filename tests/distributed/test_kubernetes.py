"""The Kubernetes example: its job in containers set up like its pods."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.distributed.jobs import EXAMPLES
from tests.support.cluster import BOUND, Cluster
from tests.support.manifests import arguments, container_options, load

EXAMPLE = EXAMPLES / "kubernetes/distributed-torch.yaml"
RESOURCES = load(EXAMPLE)
JOB = RESOURCES["Job"]["spec"]
POD = JOB["template"]["spec"]
CONTAINER = POD["containers"][0]


def test_the_resources_name_each_other() -> None:
    job, service, config = (RESOURCES[kind]["metadata"]["name"] for kind in ("Job", "Service", "ConfigMap"))
    assert POD["subdomain"] == service
    assert RESOURCES["Service"]["spec"]["selector"] == {"batch.kubernetes.io/job-name": job}
    volumes = {volume["name"]: volume for volume in POD["volumes"]}
    assert volumes["config"]["configMap"]["name"] == config
    assert {mount["name"] for mount in CONTAINER["volumeMounts"]} == volumes.keys()


@pytest.fixture
def pods(torch_image: str, cluster: Callable[[str], Cluster]) -> Cluster:
    """A host for each pod, with the names, configuration and rights that Kubernetes would give it."""
    pods = cluster(torch_image)
    job, service = RESOURCES["Job"]["metadata"]["name"], RESOURCES["Service"]["metadata"]["name"]
    pods.add(*(f"{job}-{index}.{service}" for index in range(JOB["completions"])))
    for training in pods.hosts.values():
        for name, text in RESOURCES["ConfigMap"]["data"].items():
            training.config(name, text)
        (training.root / "failure").touch()
        for path in (training.root / "model", training.root / "failure"):
            path.chmod(0o777)
    return pods


def start(pods: Cluster, *hosts: str) -> None:
    for host in hosts:
        root = pods.hosts[host].root
        pods.run(
            host,
            *container_options(POD, config=root / "input/config", model=root / "model"),
            f"--volume={root}/failure:{CONTAINER['terminationMessagePath']}",
            f"--hostname={host.partition('.')[0]}",
            f"--env=JOB_COMPLETION_INDEX={[*pods.hosts].index(host)}",
            command=arguments(POD),
        )


def test_the_pods_train_one_model(pods: Cluster) -> None:
    start(pods, *pods.hosts)
    assert set(pods.codes().values()) == {0}, pods.logs()
    first, *others = pods.hosts
    assert "epoch 59 loss 0.0" in pods.containers[first].log().stdout
    assert (pods.hosts[first].root / "model/network.pt").exists()
    for rank, host in enumerate(others, 1):
        log = pods.containers[host].log().stderr
        assert f"--nnodes={JOB['completions']} --nproc-per-node=1 --node-rank={rank}" in log
        assert f"--master-addr={first}" in log


def test_the_reason_of_a_failure_is_the_termination_message(pods: Cluster) -> None:
    host = next(iter(pods.hosts))
    pods.hosts[host].config("hyperparameters.json", {"epochs": "many"})
    start(pods, host)
    assert pods.containers[host].wait(BOUND) == 2
    assert "argument --epochs: invalid int value: 'many'" in (pods.hosts[host].root / "failure").read_text()
