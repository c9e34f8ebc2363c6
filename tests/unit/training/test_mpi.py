"""The command line of mpirun, and the agent through which it starts its daemons on other hosts."""

from __future__ import annotations

import os
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from optml.report import UserError
from optml.training import mpi
from tests.unit.training.conftest import a_job


def test_the_agent_forwards_whole_lines_for_hosts_of_the_job_only() -> None:
    hosts = [f"algo-{number}" for number in range(2, 10)]
    agent, orders = mpi._agent(hosts)
    fifo = os.open(orders, os.O_RDWR)
    long = "x" * 6000  # longer than an atomic write to a pipe
    with ThreadPoolExecutor(len(hosts)) as threads:
        done = threads.map(lambda host: subprocess.run([*agent.split(), host, "a;b", '"c"', long]), hosts)
        lines = b""
        while lines.count(b"\n") < len(hosts):
            lines += os.read(fifo, 1 << 16)
    assert not any(each.returncode for each in done)
    assert sorted(lines.decode().splitlines()) == [f'{host} a;b "c" {long}' for host in hosts]
    stranger = subprocess.run([*agent.split(), "algo-1", "x"], capture_output=True, text=True)
    assert (stranger.returncode, stranger.stderr) == (1, "algo-1 is not a host of this job\n")


@pytest.mark.parametrize(("number", "known"), [(2, True), (32767, True), (32768, False), (37309, False)])
def test_an_interface_whose_index_prrte_cannot_hold_is_not_passed_to_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int, known: bool
) -> None:
    (tmp_path / "ifindex").write_text(f"{number}\n")
    real = open
    monkeypatch.setattr("builtins.open", lambda path, **_: real(tmp_path / os.path.basename(path)))
    assert mpi._known_to_prrte("eth0") is known


def test_a_daemon_stays_in_the_foreground() -> None:
    assert mpi.daemon("A=1;/usr/bin/prted --daemonize --x y")[-1] == "A=1;/usr/bin/prted --x y"


def test_options_that_cannot_be_parsed_are_named() -> None:
    job = a_job(framework_parameters={"sagemaker_mpi_custom_mpi_options": "-x 'A"})
    with pytest.raises(UserError, match=r"sagemaker_mpi_custom_mpi_options is .*: No closing quotation"):
        mpi.mpirun(job, ["train"], 1, {})


def test_an_invalid_number_of_ranks_is_refused() -> None:
    parameters = {"sagemaker_mpi_num_processes": "abc"}
    with pytest.raises(UserError, match="sagemaker_mpi_num_processes is 'abc'; it must be a number"):
        mpi.mpirun(a_job(framework_parameters=parameters), ["train"], 1, {})


@pytest.fixture
def fake_mpirun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    path = tmp_path / "mpirun"
    path.touch(mode=0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return str(path)


def test_mpirun_on_one_host_starts_no_daemons(fake_mpirun: str) -> None:
    argv, environment, orders = mpi.mpirun(a_job(), ["train", "--k"], 4, {"MINE": "1"})
    assert argv == [fake_mpirun, "-np", "4", "--host", f"{os.uname().nodename}:4", "train", "--k"]
    assert orders == ""
    assert environment["OMPI_ALLOW_RUN_AS_ROOT"] == environment["PRTE_ALLOW_RUN_AS_ROOT_CONFIRM"] == "1"
    assert environment["MINE"] == "1"
    assert not any("agent" in name for name in environment)


def test_mpirun_on_several_hosts_starts_its_daemons_through_the_agent(fake_mpirun: str) -> None:
    parameters = {
        "sagemaker_mpi_num_processes": "3",
        "sagemaker_mpi_custom_mpi_options": "-x 'A B' -v",
    }
    hosts = {"hosts": ["algo-1", "algo-2"], "network_interface": "eth7", "framework_parameters": parameters}
    own = {"OMPI_MCA_btl_tcp_if_include": "ib0"}
    argv, environment, orders = mpi.mpirun(a_job(**hosts), ["train"], 2, own)
    assert argv == [
        *[fake_mpirun, "-np", "3", "--host", f"{os.uname().nodename}:2,algo-2:2"],
        *["-x", "A B", "-v", "train"],
    ]
    assert stat.S_ISFIFO(os.stat(orders).st_mode)
    assert environment["OMPI_MCA_plm_rsh_agent"] == environment["PRTE_MCA_plm_ssh_agent"]
    assert (
        environment["OMPI_MCA_plm_rsh_no_tree_spawn"] == environment["PRTE_MCA_plm_ssh_no_tree_spawn"] == "1"
    )
    assert environment["OMPI_MCA_oob_tcp_if_include"] == environment["PRTE_MCA_prte_if_include"] == "eth7"
    assert environment["OMPI_MCA_btl_tcp_if_include"] == "ib0"  # what the user set is kept


def test_a_missing_mpirun_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/absent")
    with pytest.raises(UserError, match="MPI needs mpirun, which is not here; add to the Dockerfile"):
        mpi.mpirun(a_job(), ["train"], 1, {})
