"""Golden table: the variables of the user's program."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from optml import paths
from optml.training import jsontext
from optml.training.environment import environment, written
from optml.training.job import Channel
from tests.unit.training.conftest import a_job, a_program


def variables(inherited: dict[str, str] | None = None, **fields: object) -> dict[str, str]:
    return environment(a_job(**fields), a_program(), ["--epochs", "3"], inherited or {})


ALWAYS = """
SM_HOSTS SM_NETWORK_INTERFACE_NAME SM_HPS SM_USER_ENTRY_POINT SM_FRAMEWORK_PARAMS SM_RESOURCE_CONFIG
SM_INPUT_DATA_CONFIG SM_OUTPUT_DATA_DIR SM_OUTPUT_DIR SM_OUTPUT_INTERMEDIATE_DIR SM_CHANNELS SM_CURRENT_HOST
SM_MODULE_NAME SM_MODULE_DIR SM_LOG_LEVEL SM_FRAMEWORK_MODULE SM_INPUT_DIR SM_INPUT_CONFIG_DIR SM_NUM_CPUS
SM_NUM_GPUS SM_NUM_NEURONS SM_MODEL_DIR SM_TRAINING_ENV SM_USER_ARGS SM_CURRENT_INSTANCE_TYPE
SM_CURRENT_INSTANCE_GROUP SM_CURRENT_INSTANCE_GROUP_HOSTS SM_INSTANCE_GROUPS SM_INSTANCE_GROUPS_DICT
SM_DISTRIBUTION_INSTANCE_GROUPS SM_IS_HETERO SAGEMAKER_JOB_NAME CURRENT_HOST SAGEMAKER_REGION MASTER_ADDR
MASTER_PORT SM_INPUT_DATA_DIR SM_OUTPUT_FAILURE SM_MASTER_ADDR SM_MASTER_PORT SM_HOST_COUNT
SM_CURRENT_HOST_RANK SM_SOURCE_DIR SM_ENTRY_SCRIPT
"""


@pytest.mark.parametrize("name", ALWAYS.split())
def test_is_always_set(name: str) -> None:
    assert name in variables()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SM_HPS", '{"batch-size":32,"lr":3.1}'),
        ("SM_HP_BATCH-SIZE", "32"),
        ("SM_HP_BATCH_SIZE", "32"),
        ("SM_HP_LR", "3.10"),
        ("SM_HOSTS", '["algo-1","algo-2"]'),
        ("SM_CURRENT_HOST", "algo-2"),
        ("SM_CURRENT_HOST_RANK", "1"),
        ("SM_HOST_COUNT", "2"),
        ("SM_CHANNELS", '["test","train"]'),
        ("SM_CHANNEL_TRAIN", "/opt/ml/input/data/train"),
        ("SM_USER_ARGS", '["--epochs","3"]'),
        ("SM_USER_ENTRY_POINT", "train.py"),
        ("SM_MODULE_NAME", "train"),
        ("SM_MODULE_DIR", "s3://bucket/code.tar.gz"),
        ("SM_FRAMEWORK_MODULE", ""),
        ("SM_FRAMEWORK_PARAMS", '{"sagemaker_mpi_enabled":true}'),
        ("SM_IS_HETERO", "false"),
        ("SM_NUM_CPUS", "2"),
        ("SM_MODEL_DIR", "/opt/ml/model"),
        ("SM_OUTPUT_FAILURE", "/opt/ml/output/failure"),
        ("MASTER_ADDR", "algo-1"),
        ("SAGEMAKER_JOB_NAME", "job-1"),
        ("PYTHONPATH", f"/opt/ml/code:{paths.LIB}"),
    ],
)
def test_value(name: str, value: str) -> None:
    channels = {
        name: Channel(name=name, path=f"/opt/ml/input/data/{name}", mode="File", content_type=None)
        for name in ("test", "train")
    }
    found = variables(
        name="job-1",
        hyperparameters={"batch-size": 32, "lr": jsontext.decode("3.10")},
        framework_parameters={"sagemaker_mpi_enabled": True, "sagemaker_program": "train.py"},
        hosts=["algo-1", "algo-2"],
        current_host="algo-2",
        channels=channels,
        submit_directory="s3://bucket/code.tar.gz",
    )
    assert found[name] == value


def test_heterogeneous_cluster() -> None:
    groups = {
        name: {"instance_group_name": name, "instance_type": "ml.x", "hosts": hosts}
        for name, hosts in {"data": ["algo-1"], "gpu": ["algo-2", "algo-3"]}.items()
    }
    found = variables(
        hosts=["algo-1", "algo-2", "algo-3"],
        current_host="algo-3",
        instance_group="gpu",
        instance_groups=groups,
        distribution_groups=["gpu"],
    )
    assert found["SM_IS_HETERO"] == "true"
    assert found["SM_CURRENT_INSTANCE_GROUP"] == "gpu"
    assert found["SM_CURRENT_INSTANCE_GROUP_HOSTS"] == '["algo-2","algo-3"]'
    assert found["SM_INSTANCE_GROUPS"] == '["data","gpu"]'
    assert json.loads(found["SM_INSTANCE_GROUPS_DICT"]) == groups
    assert found["SM_DISTRIBUTION_INSTANCE_GROUPS"] == '["gpu"]'
    assert found["MASTER_ADDR"] == "algo-2"
    assert found["SM_CURRENT_HOST_RANK"] == "2"


def test_one_group_is_not_a_heterogeneous_cluster() -> None:
    group = {"instance_group_name": "gpu", "instance_type": "ml.x", "hosts": ["algo-1"]}
    assert variables(instance_group="gpu", instance_groups={"gpu": group})["SM_IS_HETERO"] == "false"


@pytest.mark.parametrize("host", ["algo-1", "algo-2"])
def test_one_host_is_the_master(host: str) -> None:
    told = json.loads(variables(hosts=["algo-1", "algo-2"], current_host=host)["SM_TRAINING_ENV"])
    assert (told["master_hostname"], told["is_master"]) == ("algo-1", host == "algo-1")


@pytest.mark.parametrize(("topology", "there"), [(None, False), ([{"x": 1}], True)])
def test_topology_only_if_there_is_one(topology: object, there: bool) -> None:
    assert ("SM_TOPOLOGY" in variables(resource_config={"topology": topology})) is there


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        ("x y", "x y"),
        (True, "true"),
        ([1, "x"], '[1,"x"]'),
        ({"b": 1, "a": "é"}, '{"a":"\\u00e9","b":1}'),
    ],
)
def test_written(value: object, text: str) -> None:
    assert written(value) == text


def test_what_the_user_set_is_kept() -> None:
    own = {"MASTER_ADDR": "elsewhere", "NCCL_SOCKET_IFNAME": "ib0", "SM_MODEL_DIR": "/elsewhere"}
    found = variables(own)
    assert {name: found[name] for name in own} == own


def test_the_code_comes_before_the_users_pythonpath() -> None:
    assert variables({"PYTHONPATH": "/mine"})["PYTHONPATH"] == f"/opt/ml/code:/mine:{paths.LIB}"


def test_what_no_environment_can_hold_is_left_out() -> None:
    found = variables(hyperparameters={"a=b": 1, "long": "x" * (128 << 10)})
    assert "SM_HP_A=B" not in found
    assert "SM_HP_LONG" not in found
    assert "SM_HPS" not in found  # it contains the long one


def test_an_exactly_spelled_name_takes_precedence() -> None:
    for hyperparameters in ({"a_b": "exact", "a-b": "dash"}, {"a-b": "dash", "a_b": "exact"}):
        found = variables(hyperparameters=hyperparameters)
        assert (found["SM_HP_A_B"], found["SM_HP_A-B"]) == ("exact", "dash")


def test_the_log_names_what_the_container_overrides(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert variables({"SM_HP_A": "99", "SM_HP_B": "2"}, hyperparameters={"a": 1, "b": 2})["SM_HP_A"] == "99"
    log = capfd.readouterr().err
    assert log == "optml: set in the container, so the job's own values do not replace them: SM_HP_A\n"


def test_the_longest_variable_that_the_kernel_accepts_is_set() -> None:
    longest = (128 << 10) - len("SM_HP_E=") - 1
    assert "SM_HP_E" in variables(hyperparameters={"e": "x" * longest})
    assert "SM_HP_E" not in variables(hyperparameters={"e": "x" * (longest + 1)})
    assert "SM_HP_E" not in variables(hyperparameters={"e": "é" * (longest // 2 + 1)})


def test_a_python_with_our_pth_file_gets_no_extra_path(tmp_path: Path) -> None:
    program = a_program(python=f"{tmp_path}/bin/python3")
    site = tmp_path / "lib/python3.13/site-packages"
    site.mkdir(parents=True)
    assert environment(a_job(), program, [], {})["PYTHONPATH"] == f"/opt/ml/code:{paths.LIB}"
    (site / "optml.pth").write_text("/opt/optml/lib")
    assert environment(a_job(), program, [], {})["PYTHONPATH"] == "/opt/ml/code"
