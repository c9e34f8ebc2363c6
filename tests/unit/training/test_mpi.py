"""The command line of mpirun, and the agent through which it starts its daemons on other hosts."""

from __future__ import annotations

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from optml.report import UserError
from optml.training import mpi
from tests.unit.training.conftest import a_job


def test_the_agent_passes_on_whole_lines_of_the_hosts_of_the_job_alone() -> None:
    hosts = [f"algo-{number}" for number in range(2, 10)]
    agent, orders = mpi._agent(hosts)
    fifo = os.open(orders, os.O_RDWR)
    long = "x" * 6000  # longer than what a pipe takes at once
    with ThreadPoolExecutor(len(hosts)) as threads:
        done = threads.map(lambda host: subprocess.run([*agent.split(), host, "a;b", '"c"', long]), hosts)
        lines = b""
        while lines.count(b"\n") < len(hosts):
            lines += os.read(fifo, 1 << 16)
    assert not any(each.returncode for each in done)
    assert sorted(lines.decode().splitlines()) == [f'{host} a;b "c" {long}' for host in hosts]
    stranger = subprocess.run([*agent.split(), "algo-1", "x"], capture_output=True, text=True)
    assert (stranger.returncode, stranger.stderr) == (1, "algo-1 is none of the hosts of this job\n")


def test_a_daemon_stays_in_the_foreground() -> None:
    assert mpi.daemon("A=1;/usr/bin/prted --daemonize --x y")[-1] == "A=1;/usr/bin/prted --x y"


def test_options_that_no_shell_would_take_are_named() -> None:
    job = a_job(framework_parameters={"sagemaker_mpi_custom_mpi_options": "-x 'A"})
    with pytest.raises(UserError, match=r"sagemaker_mpi_custom_mpi_options is .*: No closing quotation"):
        mpi.mpirun(job, ["train"], 1, {})


def test_a_number_of_ranks_that_is_none_is_refused() -> None:
    parameters = {"sagemaker_mpi_num_processes": "abc"}
    with pytest.raises(UserError, match="sagemaker_mpi_num_processes is 'abc'; it must be a number"):
        mpi.mpirun(a_job(framework_parameters=parameters), ["train"], 1, {})
