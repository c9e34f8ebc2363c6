"""The job, as read from the platform's files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from optml import paths
from optml.training import aws
from optml.training.job import read
from tests.unit.training.conftest import RUNTIME, Ml, a_job

PRINT = "import sys; sys.path.insert(0, sys.argv[1]); import optml; print({})"


def ask(ml: Ml, expression: str, **variables: str) -> str:
    """The value of an expression in user code."""
    command = [sys.executable, "-c", PRINT.format(expression), str(RUNTIME.parents[1])]
    return subprocess.run(
        command, env=ml.environment(**variables), check=True, capture_output=True, text=True
    ).stdout.strip()


def test_without_files_the_job_has_one_host(ml: Ml) -> None:
    assert (
        ask(ml, "optml.job().hosts, optml.job().current_host, optml.job().rank")
        == "['localhost'] localhost 0"
    )


def test_hyperparameters_are_split_and_decoded(ml: Ml) -> None:
    ml.config(
        "hyperparameters.json",
        {
            "epochs": "3",
            "sagemaker_program": '"train.py"',
            "sagemaker_region": "eu-west-1",
            "_tuning_objective_metric": "loss",
            "default_user_module_name": "x",
        },
    )
    assert ask(ml, "optml.job().hyperparameters") == "{'epochs': 3}"
    assert ask(ml, "optml.job().program") == "train.py"
    assert ask(ml, "optml.job().region") == "eu-west-1"


@pytest.mark.parametrize(
    ("expression", "variable", "value", "expected"),
    [
        ("program", "SAGEMAKER_PROGRAM", "other.py", "other.py"),
        ("submit_directory", "SAGEMAKER_SUBMIT_DIRECTORY", "s3://b/k", "s3://b/k"),
        ("log_level", "SAGEMAKER_CONTAINER_LOG_LEVEL", "10", "10"),
        ("log_level", "SAGEMAKER_CONTAINER_LOG_LEVEL", "error", "40"),
        ("log_level", "SAGEMAKER_CONTAINER_LOG_LEVEL", "nonsense", "20"),
        ("region", "SAGEMAKER_REGION", "eu-north-1", "eu-north-1"),
        ("region", "AWS_REGION", "us-west-2", "us-west-2"),
        ("name", "TRAINING_JOB_NAME", "job-7", "job-7"),
    ],
)
def test_the_environment_overrides_the_hyperparameter(
    ml: Ml, expression: str, variable: str, value: str, expected: str
) -> None:
    ml.config("hyperparameters.json", {"sagemaker_program": "a.py", "sagemaker_container_log_level": "30"})
    assert ask(ml, f"optml.job().{expression}", **{variable: value}) == expected


@pytest.mark.parametrize("names", [("resourceconfig.json",), ("resourceConfig.json",)])
def test_both_spellings_of_the_resource_config(ml: Ml, names: tuple[str, ...]) -> None:
    ml.config(names[0], {"current_host": "algo-2", "hosts": ["algo-1", "algo-2"]})
    assert ask(ml, "optml.job().current_host") == "algo-2"


REGIONS = {"SAGEMAKER_REGION": "eu-west-1", "AWS_REGION": "eu-west-2", "sagemaker_region": "eu-west-3"}


@pytest.mark.parametrize("first", range(4))
def test_aws_clients_use_the_region_of_the_job(ml: Ml, monkeypatch: pytest.MonkeyPatch, first: int) -> None:
    given = dict([*REGIONS.items()][first:])
    ml.config("hyperparameters.json", {name: f'"{given[name]}"' for name in given if name.islower()})
    variables = {name: given.get(name, "") for name in REGIONS if name.isupper()}
    region = next(iter(given.values()), "")
    assert ask(ml, "optml.job().region", **variables) == region
    monkeypatch.setattr(paths, "CONFIG", f"{ml.root}/input/config")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-north-1")
    for name, text in variables.items():
        monkeypatch.setenv(name, text)
    assert aws.client().meta.region_name == (region or "eu-north-1")
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    assert aws.client().meta.region_name == (region or "us-east-1")
    assert aws.client(region="eu-south-1").meta.region_name == "eu-south-1"


def test_the_lower_case_resource_config_wins(ml: Ml) -> None:
    ml.config("resourceconfig.json", {"current_host": "lower", "hosts": ["lower"]})
    ml.config("resourceConfig.json", {"current_host": "camel", "hosts": ["camel"]})
    assert ask(ml, "optml.job().current_host") == "lower"


@pytest.mark.parametrize("hosts", ['"algo-1"', '{"algo-1": 1}', '["algo-1", 2]', "["])
def test_invalid_hosts_in_the_environment_are_ignored(ml: Ml, hosts: str) -> None:
    assert ask(ml, "optml.job().hosts", SM_HOSTS=hosts, SM_CURRENT_HOST="algo-1") == "['localhost']"


@pytest.mark.parametrize(
    ("config", "index", "expected"),
    [
        ({"hosts": ["a", "b"]}, "1", "b"),
        ({"hosts": ["a"]}, "", "a"),
        ({"hosts": ["a", "b"], "current_host": "a"}, "1", "a"),
        ({}, "7", "localhost"),  # each pod is a job of its own
    ],
)
def test_the_index_of_a_kubernetes_pod_names_the_host(
    ml: Ml, config: dict[str, object], index: str, expected: str
) -> None:
    ml.config("resourceconfig.json", config)
    assert ask(ml, "optml.job().current_host", JOB_COMPLETION_INDEX=index) == expected


def test_several_hosts_without_a_current_host_are_an_error(ml: Ml) -> None:
    """Each would assume it is the first, train alone, and report success."""
    ml.config("resourceconfig.json", {"hosts": ["a", "b"]})
    ml.code("train.py", "")
    assert ml.train().returncode == 1
    assert (
        "names 2 hosts, but neither current_host in it nor JOB_COMPLETION_INDEX says which of them this is"
        in ml.failure
    )


@pytest.mark.parametrize("index", ["2", "9" * 5000])
def test_a_pod_without_a_host_is_an_error(ml: Ml, index: str) -> None:
    ml.config("resourceconfig.json", {"hosts": ["a", "b"]})
    with pytest.raises(subprocess.CalledProcessError) as failed:
        ask(ml, "optml.job()", JOB_COMPLETION_INDEX=index)
    assert f"names 2 hosts, and none for JOB_COMPLETION_INDEX {index}" in failed.value.stderr


def test_a_missing_interface_is_replaced(ml: Ml) -> None:
    ml.config(
        "resourceconfig.json", {"current_host": "a", "hosts": ["a"], "network_interface_name": "ethwe-none"}
    )
    assert ask(ml, "optml.job().network_interface") != "ethwe-none"


def test_channels_are_paths(ml: Ml) -> None:
    ml.config("inputdataconfig.json", {"train": {"TrainingInputMode": "Pipe", "ContentType": "text/csv"}})
    path = str(ml.root / "input/data/train")
    assert ask(ml, "__import__('os').path.join(optml.job().channels['train'], 'x')") == f"{path}/x"
    assert ask(ml, "optml.job().channels['train'].mode") == "Pipe"


def test_without_a_config_the_directories_are_the_channels(ml: Ml) -> None:
    (ml.root / "input/data/train").mkdir()
    (ml.root / "input/data/train-manifest").write_text("")
    assert ask(ml, "list(optml.job().channels)") == "['train']"


def test_the_job_is_frozen() -> None:
    with pytest.raises(AttributeError, match="read-only"):
        a_job().name = "other"  # type: ignore[misc]


def test_env_prints_json_without_secrets(ml: Ml) -> None:
    ml.config(
        "hyperparameters.json",
        {"epochs": "3", "api_key": "s3cr3t", "nested": '{"db_password": "hunter2"}', "note": "by hunter2"},
    )
    done = subprocess.run(
        [sys.executable, str(RUNTIME), "env"],
        env=ml.environment(),
        check=True,
        capture_output=True,
        text=True,
    )
    printed = json.loads(done.stdout)
    assert printed["hyperparameters"]["epochs"] == 3
    assert printed["model_dir"] == str(ml.root / "model")
    assert "s3cr3t" not in done.stdout and "hunter2" not in done.stdout


def test_a_module_of_the_users_does_not_shadow_the_standard_library(ml: Ml) -> None:
    ml.code("json.py", "raise SystemExit('not this one')")
    done = subprocess.run(
        [sys.executable, "-m", "optml", "env"],
        env=ml.environment(PYTHONPATH=str(RUNTIME.parents[1])),
        cwd=ml.root / "code",
        capture_output=True,
        text=True,
    )
    assert json.loads(done.stdout)["model_dir"] == str(ml.root / "model"), done.stderr


def test_env_masks_a_secret_under_another_name(ml: Ml) -> None:
    ml.config("hyperparameters.json", {"api_key": "s3cr3t", "url": "http://x/?k=s3cr3t"})
    command = [sys.executable, str(RUNTIME), "env"]
    environment = ml.environment(DB_PASSWORD="hunter2", TRAINING_JOB_NAME="of-hunter2")
    printed = json.loads(subprocess.run(command, env=environment, check=True, capture_output=True).stdout)
    assert (printed["name"], printed["hyperparameters"]["url"]) == ("of-******", "http://x/?k=******")


def test_import_optml_reads_nothing_and_needs_no_other_package(ml: Ml) -> None:
    ml.config("hyperparameters.json", "not json")
    assert ask(ml, "'json' in sys.modules or 'optml.training.job' in sys.modules") == "False"


@pytest.mark.parametrize(
    ("value", "groups"),
    [("true", ["homogeneousCluster"]), ("1", ["homogeneousCluster"]), ("false", []), ("", [])],
)
def test_a_distribution_has_groups_if_it_is_on(ml: Ml, value: str, groups: list[str]) -> None:
    ml.config("hyperparameters.json", {"sagemaker_mpi_enabled": value})
    assert ask(ml, "optml.job().distribution_groups") == str(groups)


def test_a_distribution_that_is_neither_on_nor_off_is_refused(ml: Ml) -> None:
    ml.config("hyperparameters.json", {"sagemaker_mpi_enabled": "yes"})
    ml.code("train.py", "")
    done = ml.train()
    assert done.returncode == 1
    assert ml.failure == "hyperparameter 'sagemaker_mpi_enabled' is 'yes'; it must be true or false"


def test_a_directory_in_place_of_a_file_is_an_error(ml: Ml) -> None:
    (ml.root / "input/config/hyperparameters.json").mkdir()
    ml.train()
    assert ml.failure.startswith(f"{ml.root}/input/config/hyperparameters.json is a directory")


def test_gpus_that_cuda_does_not_expose_are_not_counted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("optml.machine.DEV", str(tmp_path))
    for name in ("nvidiactl", "nvidia0", "nvidia1", "nvidia2", "nvidia3"):
        (tmp_path / name).touch()
    assert read({"CUDA_VISIBLE_DEVICES": "2,3"}).gpus == 2
    assert read({}).gpus == 4


def test_a_relative_base_directory_is_the_same_for_the_program(ml: Ml) -> None:
    ml.code(
        "train.py",
        "import os; print(os.environ['SM_MODEL_DIR']); os.rmdir(os.environ['SM_OUTPUT_INTERMEDIATE_DIR'])",
    )
    command = [sys.executable, "-I", "-S", str(RUNTIME), "train"]
    environment = ml.environment() | {"SAGEMAKER_BASE_DIR": "ml"}
    done = subprocess.run(
        command, cwd=ml.root.parent, env=environment, capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, ml.success) == (f"{ml.root}/model\n", True), done.stderr
    assert not (ml.root / "code/ml").exists()
