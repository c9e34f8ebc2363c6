"""The keys of an MPI job: derived from what its hosts share, readable by OpenSSH."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from optml.report import UserError
from optml.training import mpi
from tests.unit.training.conftest import a_job

needs_ssh_keygen = pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="no ssh-keygen here")


@needs_ssh_keygen
def test_openssh_reads_the_private_key_and_finds_the_public_one_in_it(tmp_path: Path) -> None:
    job = a_job(arn="arn:aws:sagemaker:eu-west-1:1:training-job/x")
    mpi._write(f"{tmp_path}/key", mpi._private_key(job, "user"))
    done = subprocess.run(
        ["ssh-keygen", "-y", "-f", f"{tmp_path}/key"], capture_output=True, text=True, check=True
    )
    assert done.stdout.split()[:2] == mpi._public_key(job, "user").split()


def test_hosts_of_a_job_have_one_key_and_each_role_its_own() -> None:
    hosts = ["a", "b"]
    first, second = (a_job(arn="arn", hosts=hosts, current_host=host) for host in hosts)
    assert mpi._public_key(first, "user") == mpi._public_key(second, "user")
    assert mpi._public_key(first, "user") != mpi._public_key(first, "host")


@pytest.mark.parametrize(
    ("field", "value"), [("arn", "other"), ("name", "other"), ("hyperparameters", {"a": 1})]
)
def test_another_job_has_another_key(field: str, value: object) -> None:
    assert mpi._seed(a_job(), "user") != mpi._seed(a_job(**{field: value}), "user")


def test_a_secret_of_the_user_goes_into_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = mpi._seed(a_job(), "user")
    monkeypatch.setenv("SAGEMAKER_MPI_SECRET", "mine")
    assert mpi._seed(a_job(), "user") != before


def test_credentials_are_in_no_file_of_the_ranks() -> None:
    line = mpi._set_env(
        {
            "AWS_SECRET_ACCESS_KEY": "x",
            "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "x",
            "SAGEMAKER_MPI_SECRET": "x",
            "AWS_REGION": "eu",
            "SM_HPS": '{"a":"b"}',
            "TWO": "a\nb",
        }
    )
    assert line == '"AWS_REGION=eu" "SM_HPS={\\"a\\":\\"b\\"}"'


def test_options_that_no_shell_would_take_are_named() -> None:
    job = a_job(framework_parameters={"sagemaker_mpi_custom_mpi_options": "-x 'A"})
    with pytest.raises(UserError, match=r"sagemaker_mpi_custom_mpi_options is .*: No closing quotation"):
        mpi.mpirun(job, ["train"], 1, {})


def test_a_number_of_ranks_that_is_none_is_refused() -> None:
    parameters = {"sagemaker_mpi_num_processes": "abc"}
    with pytest.raises(UserError, match="sagemaker_mpi_num_processes is 'abc'; it must be a number"):
        mpi.mpirun(a_job(framework_parameters=parameters), ["train"], 1, {})
