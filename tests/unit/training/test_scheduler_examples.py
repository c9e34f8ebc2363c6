"""The manifests of examples/schedulers: each scheduler starts two hosts with two processes each."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from optml.training import cluster
from optml.training.launchers import launch
from tests.support.manifests import load
from tests.support.matrix import ROOT
from tests.unit.training.conftest import a_job, a_program

EXAMPLES = ROOT / "examples/schedulers"


def manifest(name: str) -> Any:
    """The first resource of a file."""
    return next(yaml.safe_load_all((EXAMPLES / name).read_text()))


def trainjob() -> dict[str, str]:
    """As kubeflow/trainer's plugins/torch/torch.go does: the job's settings override those of its runtime."""
    job, runtime = yaml.safe_load_all((EXAMPLES / "trainjob.yaml").read_text())
    reference, name, trainer = job["spec"]["runtimeRef"], job["metadata"]["name"], job["spec"]["trainer"]
    assert (reference["kind"], reference["name"]) == (runtime["kind"], runtime["metadata"]["name"])
    assert "torch" in runtime["spec"]["mlPolicy"]
    (node,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    (container,) = node["template"]["spec"]["template"]["spec"]["containers"]
    # A command in either of them would replace the image's entry point.
    assert (node["name"], container["name"], container["args"]) == ("node", "node", ["train"])
    assert not {"command", "args"} & trainer.keys() and "command" not in container
    return {
        "PET_NNODES": str(trainer["numNodes"]),
        "PET_NPROC_PER_NODE": str(trainer["numProcPerNode"]),
        "PET_NODE_RANK": "1",
        "PET_MASTER_ADDR": f"{name}-node-0-0.{name}",
        "PET_MASTER_PORT": "29500",
    }


def pytorchjob() -> dict[str, str]:
    """As the training operator's pkg/controller.v1/pytorch/envvar.go does."""
    job = manifest("pytorchjob.yaml")
    replicas = job["spec"]["pytorchReplicaSpecs"]
    hosts, each = sum(spec["replicas"] for spec in replicas.values()), job["spec"]["nprocPerNode"]
    for spec in replicas.values():
        (container,) = spec["template"]["spec"]["containers"]
        assert (container["name"], container["args"]) == ("pytorch", ["train"])
    return {
        "MASTER_ADDR": f"{job['metadata']['name']}-master-0",
        "MASTER_PORT": "23456",
        "WORLD_SIZE": str(hosts * int(each)),
        "RANK": "1",
        "PET_NPROC_PER_NODE": each,
        "PET_NODE_RANK": "1",
        "PET_NNODES": str(hosts),
    }


def batch() -> dict[str, str]:
    """https://docs.aws.amazon.com/batch/latest/userguide/mnp-env-vars.html"""
    nodes = json.loads((EXAMPLES / "batch.json").read_text())["nodeProperties"]
    (group,) = nodes["nodeRangeProperties"]
    assert (group["targetNodes"], group["container"]["command"]) == ("0:", ["train"])
    return {
        "AWS_BATCH_JOB_NUM_NODES": str(nodes["numNodes"]),
        "AWS_BATCH_JOB_NODE_INDEX": "1",
        "AWS_BATCH_JOB_MAIN_NODE_INDEX": str(nodes["mainNode"]),
        "AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS": "10.0.0.1",
        **{each["name"]: each["value"] for each in group["container"]["environment"]},
    }


def skypilot() -> dict[str, str]:
    """https://docs.skypilot.co/en/stable/running-jobs/distributed-jobs.html"""
    task = manifest("skypilot.yaml")
    assert task["run"] == "train"
    nodes = task["num_nodes"]
    return {
        "SKYPILOT_NUM_NODES": str(nodes),
        "SKYPILOT_NODE_RANK": "1",
        "SKYPILOT_NODE_IPS": "\n".join(f"10.0.0.{number}" for number in range(1, nodes + 1)),
        **task["envs"],
    }


def slurm() -> dict[str, str]:
    """https://slurm.schedmd.com/srun.html#SECTION_OUTPUT-ENVIRONMENT-VARIABLES"""
    script = (EXAMPLES / "job.sbatch").read_text()
    options = dict(re.findall(r"^#SBATCH --(\S+)=(\S+)$", script, re.M))
    nodes = int(options["nodes"])
    return {
        "SLURM_JOB_ID": "7",
        "SLURM_NNODES": str(nodes),
        "SLURM_NTASKS": str(nodes * int(options["ntasks-per-node"])),
        "SLURM_NODEID": "1",
        "SLURM_PROCID": "1",
        "SLURM_JOB_NODELIST": f"n[1-{nodes}]",
        **dict(re.findall(r"^export (\S+)=(\S+)$", script, re.M)),
    }


@pytest.mark.parametrize("environment", [trainjob, pytorchjob, batch, skypilot, slurm])
def test_torchrun_starts_two_processes_on_each_of_two_hosts(environment: Any) -> None:
    environ = environment()
    place = cluster.find({}, environ, 0)
    assert place and (len(place.hosts), place.rank) == (2, 1)
    job = a_job(hosts=place.hosts, current_host=place.hosts[1], cluster=place)
    variables = {"MASTER_ADDR": place.hosts[0], "MASTER_PORT": place.port, **environ}
    launched = launch(job, a_program(), [], variables)
    assert launched.engine == "torchrun"
    assert launched.environment["PET_NPROC_PER_NODE"] == "2"
    assert not [word for word in launched.argv if word.startswith("--nproc")]


def test_volcano_starts_one_process_on_each_pod() -> None:
    """As Volcano's plugin for pytorch does: the master is rank 0, and the workers follow."""
    spec = manifest("volcano.yaml")["spec"]
    replicas = {task["name"]: task["replicas"] for task in spec["tasks"]}
    assert replicas.keys() == {"master", "worker"}
    size = sum(replicas.values())
    assert spec["minAvailable"] == size
    environ = {"MASTER_ADDR": "m", "MASTER_PORT": "23456", "WORLD_SIZE": str(size), "RANK": "1"}
    place = cluster.find({}, environ, 0)
    assert str(place) == "host 2 of 2, by WORLD_SIZE"


def test_the_indexed_job_names_as_many_hosts_as_it_has_pods() -> None:
    job = load(EXAMPLES.parent / "kubernetes/distributed-torch.yaml")
    hosts = json.loads(job["ConfigMap"]["data"]["resourceconfig.json"])["hosts"]
    assert len(hosts) == job["Job"]["spec"]["completions"]
    for index, host in enumerate(hosts):
        place = cluster.find({"hosts": hosts}, {"JOB_COMPLETION_INDEX": str(index)}, 0)
        assert place and place.hosts[place.rank] == host


def test_mpirun_of_the_mpijob_starts_a_rank_for_each_slot() -> None:
    spec = manifest("mpijob.yaml")["spec"]
    launcher, worker = spec["mpiReplicaSpecs"]["Launcher"], spec["mpiReplicaSpecs"]["Worker"]
    (container,) = launcher["template"]["spec"]["containers"]
    size = worker["replicas"] * spec["slotsPerWorker"]
    assert container["args"] == ["mpirun", "-n", str(size), "-x", "PATH", "train"]
    environ = {"OMPI_COMM_WORLD_SIZE": str(size), "OMPI_COMM_WORLD_RANK": "1"}
    assert str(cluster.find({}, environ, 0)) == "host 2 of 2, by mpirun"
