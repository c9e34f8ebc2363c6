"""The Kubernetes example: valid by the schemas of Kubernetes, and a job as its pods would see it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.distributed.conftest import EXAMPLES, Cluster

EXAMPLE = EXAMPLES / "kubernetes/distributed-torch.yaml"
RESOURCES: dict[str, dict[str, Any]] = {
    resource["kind"]: resource for resource in yaml.safe_load_all(EXAMPLE.read_text())
}
JOB = RESOURCES["Job"]["spec"]
POD = JOB["template"]["spec"]
CONTAINER = POD["containers"][0]


# Indexed Jobs give their pods stable names since 1.24.
@pytest.mark.parametrize("version", ["1.27", kubernetes_validate.latest_version()])
@pytest.mark.parametrize("kind", RESOURCES)
def test_every_resource_is_valid(kind: str, version: str) -> None:
    kubernetes_validate.validate(RESOURCES[kind], version, strict=True)


def test_the_resources_name_each_other() -> None:
    job, service, config = (RESOURCES[kind]["metadata"]["name"] for kind in ("Job", "Service", "ConfigMap"))
    assert POD["subdomain"] == service
    assert RESOURCES["Service"]["spec"]["selector"] == {"batch.kubernetes.io/job-name": job}
    volumes = {volume["name"]: volume for volume in POD["volumes"]}
    assert volumes["config"]["configMap"]["name"] == config
    assert {mount["name"] for mount in CONTAINER["volumeMounts"]} == volumes.keys()


@pytest.fixture
def pods(torch_image: str, cluster: Callable[[str], Cluster]) -> Cluster:
    """A container for each pod, with what Kubernetes gives it: names, environment, identity and mounts."""
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
    identity, hardening = POD["securityContext"], CONTAINER["securityContext"]
    places = {mount["name"]: mount["mountPath"] for mount in CONTAINER["volumeMounts"]}
    for host in hosts:
        root = pods.hosts[host].root
        pods.run(
            host,
            f"--volume={root}/input/config:{places['config']}:ro",
            f"--volume={root}/model:{places['model']}",
            f"--volume={root}/failure:{CONTAINER['terminationMessagePath']}",
            f"--user={identity['runAsUser']}:{identity['runAsGroup']}",
            *(f"--cap-drop={capability}" for capability in hardening["capabilities"]["drop"]),
            "--security-opt=no-new-privileges",
            f"--hostname={host.partition('.')[0]}",
            f"--env=JOB_COMPLETION_INDEX={[*pods.hosts].index(host)}",
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
    assert pods.containers[host].wait() == 2
    assert "argument --epochs: invalid int value: 'many'" in (pods.hosts[host].root / "failure").read_text()
