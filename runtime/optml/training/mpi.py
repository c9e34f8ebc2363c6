"""Open MPI on one or several hosts, without ssh: its daemons are started over the hosts' connections.

For each other host, mpirun on the first one runs an agent with the host's name and a shell command, as it
would run ssh. Our agent writes both to a FIFO, PID 1 forwards them (`peers.py`), and the command becomes the
other host's program. So each host gives its ranks its own environment, none of which crosses the network,
and the hosts have been authenticated at the rendezvous.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile

from ..machine import read
from ..report import UserError
from .job import Job, number
from .program import Program, which

# One at a time, because a long line may reach the FIFO in pieces.
_AGENT = """#!/bin/sh
host=$1
shift
case {hosts} in
*" $host "*) ;;
*) echo "$host is not a host of this job" >&2; exit 1 ;;
esac
until mkdir {directory}/busy 2> /dev/null; do sleep 0.1; done
printf '%s %s\\n' "$host" "$*" > {directory}/orders
rmdir {directory}/busy
"""


def rank(program: Program) -> list[str]:
    """The command line of one rank: through mpi4py, if installed, so that an exception aborts all ranks."""
    if program.kind in ("script", "module"):
        found = subprocess.run([program.python, "-c", "import mpi4py"], capture_output=True)
        if found.returncode == 0:
            return [program.python, "-m", "mpi4py", *program.argv[1:]]
    return program.argv


def mpirun(
    job: Job, argv: list[str], processes: int, environment: dict[str, str]
) -> tuple[list[str], dict[str, str], str]:
    """The command line and environment of mpirun on the first host, and the FIFO of its agent, if any.

    `argv` is one rank, `processes` the number per host. Raises UserError if mpirun is missing.
    """
    # mpirun knows its own host only by the system's hostname, and would reach any other by ssh.
    hosts = [os.uname().nodename, *job.distribution_hosts[1:]]
    flags = options(job, hosts, processes)
    orders = ""
    # Under the names of Open MPI 4 and of 5, which launches through PRRTE.
    settings = {
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "PRTE_ALLOW_RUN_AS_ROOT": "1",
        "PRTE_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    }
    if len(hosts) > 1:
        agent, orders = _agent(hosts[1:])
        settings |= {
            "OMPI_MCA_plm_rsh_agent": agent,
            "PRTE_MCA_plm_ssh_agent": agent,
            # The first host starts all daemons itself, and they stay children of PID 1.
            "OMPI_MCA_plm_rsh_no_tree_spawn": "1",
            "PRTE_MCA_plm_ssh_no_tree_spawn": "1",
            "OMPI_MCA_orte_leave_session_attached": "1",
            "OMPI_MCA_oob_tcp_if_include": job.network_interface,
            "OMPI_MCA_btl_tcp_if_include": job.network_interface,
        }
        if _known_to_prrte(job.network_interface):
            settings["PRTE_MCA_prte_if_include"] = job.network_interface
    return [need("mpirun"), *flags, *argv], {**settings, **environment}, orders


def options(job: Job, hosts: list[str], processes: int) -> list[str]:
    """The options on mpirun's command line. Raises UserError if a parameter of the job is wrong."""
    parameters = job.framework_parameters
    ranks = parameters.get("sagemaker_mpi_num_processes") or processes * len(hosts)
    own = str(parameters.get("sagemaker_mpi_custom_mpi_options") or "")
    try:
        own_options = shlex.split(own)
    except ValueError as error:
        raise UserError(f"sagemaker_mpi_custom_mpi_options is {own!r}: {error}; correct it") from error
    return [
        *["-np", str(number("sagemaker_mpi_num_processes", ranks))],
        *["--host", ",".join(f"{host}:{processes}" for host in hosts)],
        *own_options,
    ]


def _known_to_prrte(interface: str) -> bool:
    """PRRTE keeps an interface's index in 16 bits, and does not find one with a higher index by name.

    A machine that has had many containers has such; there PRRTE uses any interface that reaches the others.
    """
    number = read(f"/sys/class/net/{interface}/ifindex").strip()
    return not number or int(number) < 1 << 15


def daemon(order: str) -> list[str]:
    """The command line on another host: mpirun's order, which must stay in the foreground."""
    return ["/bin/sh", "-c", order.replace(" --daemonize ", " ")]


def _agent(hosts: list[str]) -> tuple[str, str]:
    """The agent for mpirun, and the FIFO to which it writes lines `HOST COMMAND`."""
    directory = tempfile.mkdtemp(prefix="optml-mpi-")
    os.mkfifo(f"{directory}/orders", 0o600)
    with open(f"{directory}/agent", "w") as file:
        file.write(_AGENT.format(hosts=shlex.quote(f" {' '.join(hosts)} "), directory=directory))
    return f"/bin/sh {directory}/agent", f"{directory}/orders"


def need(command: str) -> str:
    path = which(command)
    if not path:
        raise UserError(
            f"MPI needs {command}, which is not here; add to the Dockerfile: RUN apt-get update && apt-get"
            " install --yes openmpi-bin"
        )
    return path
