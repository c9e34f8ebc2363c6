"""Golden table: job and program → command line."""

from __future__ import annotations

from typing import Any

import pytest

from optml.report import UserError
from optml.training import launchers
from optml.training.launchers import launch
from tests.unit.training.conftest import a_job, a_program

TWO = {"hosts": ["algo-1", "algo-2"], "current_host": "algo-2"}
TORCH = {"framework_parameters": {"sagemaker_torch_distributed_enabled": True}}
VARIABLES = {"MASTER_ADDR": "algo-1", "MASTER_PORT": "7777"}
PROGRAMS = [
    (a_program(), ["/venv/python3", "train.py"]),
    (a_program(name="pkg/train.py", kind="module"), ["/venv/python3", "-m", "pkg.train"]),
    (a_program(name="a.b:main", kind="function"), ["/venv/python3", "-c", "import a.b; a.b.main()"]),
    (a_program(name="nvidia-smi", kind="command"), ["nvidia-smi"]),
]


def argv(job: dict[str, Any], program: Any = None, **variables: str) -> list[str]:
    return launch(a_job(**job), program or a_program(), ["--k", "v"], {**VARIABLES, **variables}).argv


@pytest.mark.parametrize(("program", "expected"), PROGRAMS)
def test_process(program: Any, expected: list[str]) -> None:
    assert argv({}, program) == [*expected, "--k", "v"]


@pytest.mark.parametrize("switch", ["sagemaker_torch_distributed_enabled", "sagemaker_pytorch_ddp_enabled"])
def test_torchrun(switch: str) -> None:
    assert argv({**TWO, "framework_parameters": {switch: True}}) == [
        *[
            "/venv/python3",
            "-m",
            "torch.distributed.run",
            "--nnodes=2",
            "--nproc-per-node=1",
            "--node-rank=1",
        ],
        *["--master-addr=algo-1", "--master-port=7777", "train.py", "--k", "v"],
    ]


@pytest.mark.parametrize(
    ("gpus", "variables", "expected"),
    [(0, {}, 1), (4, {}, 4), (4, {"SAGEMAKER_PROCESSES_PER_HOST": "2"}, 2)],
)
def test_processes_per_host(gpus: int, variables: dict[str, str], expected: int) -> None:
    assert f"--nproc-per-node={expected}" in argv({**TORCH, "gpus": gpus}, **variables)


@pytest.mark.parametrize("wanted", ["0", "-1", "many", "9" * 5000])
def test_processes_per_host_must_be_a_number(wanted: str) -> None:
    with pytest.raises(UserError, match="SAGEMAKER_PROCESSES_PER_HOST"):
        argv(TORCH, SAGEMAKER_PROCESSES_PER_HOST=wanted)


def test_torchrun_on_one_host_needs_no_name() -> None:
    assert "--master-addr=127.0.0.1" in argv(TORCH)


def test_torchrun_of_a_module_and_of_a_command() -> None:
    assert argv(TORCH, a_program(name="pkg/train.py", kind="module"))[-4:] == [
        "--module",
        "pkg.train",
        "--k",
        "v",
    ]
    assert argv(TORCH, a_program(name="./train", kind="command"))[-4:] == [
        "--no-python",
        "./train",
        "--k",
        "v",
    ]


def test_the_interface_is_a_default_for_torch() -> None:
    job = a_job(**TWO, **TORCH, network_interface="eth7")
    found = launch(job, a_program(), [], {**VARIABLES, "NCCL_SOCKET_IFNAME": "ib0"}).environment
    assert found["GLOO_SOCKET_IFNAME"] == "eth7"
    assert found["NCCL_SOCKET_IFNAME"] == "ib0"


def test_only_the_hosts_of_the_distribution_groups_run_it() -> None:
    groups = {
        name: {"instance_group_name": name, "instance_type": "x", "hosts": [host]}
        for name, host in {"data": "algo-1", "train": "algo-2"}.items()
    }
    job = {**TWO, **TORCH, "instance_groups": groups, "distribution_groups": ["train"]}
    assert "--nnodes=1" in argv(job)
    assert argv({**job, "current_host": "algo-1"}) == ["/venv/python3", "train.py", "--k", "v"]


@pytest.mark.parametrize("name", launchers._UNSUPPORTED)
def test_an_unsupported_distribution_is_refused_by_name(name: str) -> None:
    with pytest.raises(UserError, match=f"{name}.*torch_distributed_enabled"):
        argv({"framework_parameters": {name: True}})
