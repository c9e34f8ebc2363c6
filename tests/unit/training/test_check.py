"""`train --check` reports what would run and everything wrong, and starts nothing."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from optml import paths
from optml.training.check import examine
from tests.unit.training.conftest import Ml


def check(ml: Ml, code: int, *argv: str, **variables: str) -> dict[str, Any]:
    done = ml.train("--check", "--json", *argv, **variables)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert list((ml.root / "output").iterdir()) == [ml.root / "output/data"]  # no outcome: no job ran
    report: dict[str, Any] = json.loads(done.stdout)
    return report


@pytest.fixture
def job(ml: Ml) -> Ml:
    ml.code("train.py", f"open({str(ml.root / 'started')!r}, 'w')")
    ml.code("requirements.txt", "absent-package")
    ml.config("hyperparameters.json", {"epochs": "3", "api_key": "s3cr", "sagemaker_program": "train.py"})
    return ml


def test_what_would_run(job: Ml) -> None:
    report = check(job, 0, "--more", SAGEMAKER_HYPERPARAMETER_STYLE="json")
    assert report["wrong"] == []
    assert report["argv"][1:] == ["train.py", "--api_key", "******", "--epochs", "3", "--more"]
    assert (report["launcher"], report["installs"]) == ("process", ["requirements.txt"])
    assert (report["program"]["name"], report["program"]["kind"]) == ("train.py", "script")
    assert report["variables"]["SM_HP_EPOCHS"] == "3"
    assert json.loads(report["variables"]["SM_HPS"]) == {"api_key": "******", "epochs": 3}
    assert not (job.root / "started").exists()


def test_no_secret_is_printed(job: Ml) -> None:
    done = job.train("--check", DB_PASSWORD="hunter2", SAGEMAKER_PROGRAM="hunter2.py")
    assert done.returncode == 1
    assert "s3cr" not in done.stdout + done.stderr
    assert "hunter2" not in done.stdout + done.stderr
    assert "******" in done.stdout
    done = job.train("--check", "--token", "cli-s3c", "--more")
    assert "cli-s3c" not in done.stdout
    assert "--more" in done.stdout


@pytest.mark.parametrize("form", [(), ("--json",)], ids=["text", "json"])
@pytest.mark.parametrize(
    "variables",
    [
        {"SAGEMAKER_PROGRAM": "hunter2.py"},
        {"SAGEMAKER_SUBMIT_DIRECTORY": "s3://bucket/hunter2.tar.gz"},
        {"PET_NNODES": "hunter2"},
    ],
    ids=["program", "note", "no job"],
)
def test_no_part_of_the_report_contains_a_secret(
    job: Ml, variables: dict[str, str], form: tuple[str]
) -> None:
    job.code("hunter2.py", "")
    done = job.train("--check", *form, DB_PASSWORD="hunter2", **variables)
    assert "******" in done.stdout
    assert "hunter2" not in done.stdout + done.stderr


def test_a_lone_surrogate_in_a_secret_is_reported(job: Ml) -> None:
    job.config("hyperparameters.json", '{"api_key": "abcdef\\ud800ghi", "sagemaker_program": "train.py"}')
    reason = "hyperparameter 'api_key' holds a character that no argument can carry (NUL or a lone surrogate)"
    assert check(job, 1)["wrong"] == [reason]
    assert job.train("--check").stdout.endswith("Something is wrong.\n")
    assert job.train().returncode == 1
    assert job.failure == reason


MPI = {"sagemaker_mpi_enabled": "true"}


@pytest.mark.parametrize(
    ("variables", "parameters", "words"),
    [
        ({"SAGEMAKER_STOP_TIMEOUT": "2min"}, {}, "SAGEMAKER_STOP_TIMEOUT is '2min'"),
        ({"SAGEMAKER_SUBMIT_DIRECTORY": "s3://bucket/code.zip"}, {}, "code.zip' is not a .tar.gz"),
        ({"SAGEMAKER_SUBMIT_DIRECTORY": "s3:///code.tar.gz"}, {}, "'s3:///code.tar.gz' is no S3 address"),
        ({"SAGEMAKER_TRAINING_USER": "nobody"}, MPI, "SAGEMAKER_TRAINING_USER does not work with MPI"),
        ({}, {**MPI, "sagemaker_mpi_num_processes": "abc"}, "sagemaker_mpi_num_processes is 'abc'"),
        ({}, {**MPI, "sagemaker_mpi_custom_mpi_options": "-x 'A"}, 'custom_mpi_options is "-x \'A": No clos'),
        ({"SAGEMAKER_PROCESSES_PER_HOST": "0"}, MPI, "SAGEMAKER_PROCESSES_PER_HOST is '0'"),
        ({"CA_REPOSITORY_ARN": "nonsense"}, {}, "CA_REPOSITORY_ARN is 'nonsense'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_train_refuses_at_once_is_reported(
    job: Ml, variables: dict[str, str], parameters: dict[str, str], words: str
) -> None:
    if "CA_REPOSITORY_ARN" not in variables:
        (job.root / "code/requirements.txt").unlink()
    job.config("hyperparameters.json", {"sagemaker_program": "train.py", **parameters})
    wrong = check(job, 1, **variables)["wrong"]
    assert any(words in problem for problem in wrong)
    assert job.train(**variables).returncode == 1
    assert words in job.failure


def test_a_user_that_this_one_cannot_become_is_reported(job: Ml, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    monkeypatch.setenv("SAGEMAKER_TRAINING_USER", "nobody")
    monkeypatch.setattr(paths, "CONFIG", f"{job.root}/input/config")
    monkeypatch.setattr(paths, "CODE", f"{job.root}/code")
    wrong = examine([])["wrong"]
    assert any("cannot become SAGEMAKER_TRAINING_USER=nobody" in problem for problem in wrong), wrong


def test_everything_wrong_is_reported(job: Ml) -> None:
    hyperparameters = {
        "sagemaker_program": "absent.py",
        "sagemaker_parameter_server_enabled": "true",
        "sent": "x" * 3000,
        "big": "x" * (128 << 10),
        "nul": "a\0b",
    }
    job.config("hyperparameters.json", hyperparameters)
    wrong = check(job, 1, SAGEMAKER_TRAINING_USER="nobody-here")["wrong"]
    words = ["absent.py", "'sent' has 3000 characters", "'big' has 131072 bytes", "'nul' holds a character"]
    assert [word for word in words if not any(word in problem for problem in wrong)] == []
    job.config("hyperparameters.json", {**hyperparameters, "sagemaker_program": "train.py"})
    wrong = check(job, 1, SAGEMAKER_TRAINING_USER="nobody-here")["wrong"]
    words = [*words[1:], "parameter_server_enabled is not supported", "no such user"]
    assert [word for word in words if not any(word in problem for problem in wrong)] == []


def test_every_broken_file_is_named(job: Ml) -> None:
    job.config("hyperparameters.json", "{")
    job.config("inputdataconfig.json", "[]")
    wrong = check(job, 1)["wrong"]
    assert len(wrong) == 2
    assert "hyperparameters.json is not JSON" in wrong[0]
    assert "inputdataconfig.json holds an array" in wrong[1]


def test_remote_code_is_not_fetched(job: Ml) -> None:
    report = check(job, 0, SAGEMAKER_SUBMIT_DIRECTORY="s3://bucket/code.tar.gz")
    assert report["notes"] == ["the code comes from s3://bucket/code.tar.gz when the job runs: not examined"]
    assert report["argv"][1] == "train.py"


@pytest.mark.parametrize("parameter", ["sagemaker_torch_distributed_enabled", "sagemaker_mpi_enabled"])
def test_the_launcher(job: Ml, parameter: str) -> None:
    job.config("hyperparameters.json", {parameter: "true", "sagemaker_program": "train.py"})
    done = job.train("--check", "--json")
    report = json.loads(done.stdout)
    expected = "torchrun" if "torch" in parameter else "mpirun"
    assert report["launcher"] == expected
    assert [word for word in report["wrong"] if not word.startswith("MPI needs")] == []


def test_a_total_size_that_the_kernel_refuses_is_reported(job: Ml) -> None:
    job.config("hyperparameters.json", {f"h{number}": "x" * 2400 for number in range(1200)})
    wrong = check(job, 1)["wrong"]
    assert any("there are 1200 hyperparameters; SageMaker allows 100" in problem for problem in wrong)
    assert any("the longest is SM_HP_H" in problem for problem in wrong)


@pytest.mark.parametrize(
    ("hyperparameters", "wrong"),
    [
        ({"a": "x" * 2500}, []),
        ({"a": "x" * 2501}, ["hyperparameter 'a' has 2501 characters; SageMaker allows 2500"]),
        (dict.fromkeys(map(str, range(100)), "1"), []),
        (
            dict.fromkeys(map(str, range(101)), "1"),
            ["there are 101 hyperparameters; SageMaker allows 100"],
        ),
    ],
    ids=["2500 characters", "2501 characters", "100", "101"],
)
def test_the_limits_of_a_request(ml: Ml, hyperparameters: dict[str, str], wrong: list[str]) -> None:
    ml.code("train.py", "")
    ml.config("hyperparameters.json", hyperparameters)
    assert check(ml, int(bool(wrong)))["wrong"] == wrong


def test_a_variable_too_long_for_a_request_is_noted(job: Ml) -> None:
    notes = check(job, 0, LONG="x" * 513, SHORT="x" * 512)["notes"]
    assert notes == ["variable LONG has 513 characters; a request to SageMaker allows 512"]


def test_the_text_report(job: Ml) -> None:
    done = job.train("--check")
    assert done.returncode == 0
    assert "command    " in done.stdout
    assert done.stdout.endswith("Nothing was started. Nothing is wrong.\n")
