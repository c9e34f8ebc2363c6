"""Open MPI over ssh: the first host runs mpirun, the others an sshd that only the first one may use.

What keeps strangers out is, first, the network of the job, which should hold nobody else. On it, sshd takes
connections of one key from one address, the first host's, as long as the job runs. The hosts share nothing
but the job's configuration, so the keys are derived from that: its ARN, name, hosts and hyperparameters.
Whoever knows all of these can derive them, too, unless the user mixes in a secret of the job's own,
SAGEMAKER_MPI_SECRET. No key is in an image, and none outlives the containers of its job.

Each host gives its ranks its own environment, but for credentials of AWS.
"""

from __future__ import annotations

import base64
import os
import shlex
import struct
import subprocess
import tempfile

from ..report import UserError
from .job import number
from .keys import SECRET, seed
from .network import addresses
from .program import which

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .job import Job
    from .program import Program

PORT = 7779

# Not for a file: who may read it is not ours to say.
_WITHHELD = ("AWS_", SECRET)
_NOT_WITHHELD = ("AWS_REGION", "AWS_DEFAULT_REGION")
_KEY_TYPE = b"ssh-ed25519"


def rank(program: Program) -> list[str]:
    """The command line of one rank. An exception must abort all ranks: mpi4py sees to it, where it is."""
    if program.kind in ("script", "module"):
        found = subprocess.run([program.python, "-c", "import mpi4py"], capture_output=True)
        if found.returncode == 0:
            return [program.python, "-m", "mpi4py", *program.argv[1:]]
    return program.argv


def mpirun(
    job: Job, argv: list[str], processes: int, environment: dict[str, str]
) -> tuple[list[str], dict[str, str]]:
    """The command line and environment of mpirun on the first host.

    `argv` is one rank, `processes` how many a host has. Raises UserError where a part of it is missing here.
    """
    parameters = job.framework_parameters
    # mpirun knows itself by the name of the system alone, and would call any other by ssh.
    hosts = [os.uname().nodename, *job.distribution_hosts[1:]]
    ranks = parameters.get("sagemaker_mpi_num_processes")
    options = [
        *["-np", str(number("sagemaker_mpi_num_processes", ranks or processes * len(hosts)))],
        *["--host", ",".join(f"{host}:{processes}" for host in hosts)],
        *_own_options(str(parameters.get("sagemaker_mpi_custom_mpi_options") or "")),
    ]
    # As variables, under the names of Open MPI 4 and of 5, which leaves the launching to PRRTE.
    settings = {
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "PRTE_ALLOW_RUN_AS_ROOT": "1",
        "PRTE_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    }
    if len(hosts) > 1:
        agent = f"{_need('ssh')} -F {_ssh_config(job)}"
        settings |= {
            "OMPI_MCA_plm_rsh_agent": agent,
            "PRTE_MCA_plm_ssh_agent": agent,
            # The first host reaches all others itself: they take no connection but its own.
            "OMPI_MCA_plm_rsh_no_tree_spawn": "1",
            "PRTE_MCA_plm_ssh_no_tree_spawn": "1",
            "OMPI_MCA_oob_tcp_if_include": job.network_interface,
            "PRTE_MCA_prte_if_include": job.network_interface,
            "OMPI_MCA_btl_tcp_if_include": job.network_interface,
        }
    return [_need("mpirun"), *options, *argv], {**settings, **environment}


def _own_options(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UserError(f"sagemaker_mpi_custom_mpi_options is {text!r}: {error}; correct it") from error


def sshd(job: Job, environment: dict[str, str]) -> list[str]:
    """The command line of the sshd of another host. Raises UserError where a part of it is missing here."""
    return [_need("sshd"), "-D", "-e", "-f", _sshd_config(job, environment)]


def _need(command: str) -> str:
    path = which(command) or (f"/usr/sbin/{command}" if os.path.exists(f"/usr/sbin/{command}") else None)
    if not path:
        raise UserError(
            f"MPI needs {command}, which is not here; add to the Dockerfile: RUN apt-get update && apt-get"
            " install --yes openmpi-bin openssh-client openssh-server openssl && rm /etc/ssh/ssh_host_*"
        )
    return path


def _ssh_config(job: Job) -> str:
    directory = tempfile.mkdtemp(prefix="optml-mpi-")
    _write(f"{directory}/key", _private_key(job, "user"))
    _write(f"{directory}/known_hosts", f"* {_public_key(job, 'host')}\n")
    return _write(
        f"{directory}/config",
        f"Host *\n  Port {PORT}\n  User {_user()}\n  IdentityFile {directory}/key\n  IdentitiesOnly yes\n"
        f"  UserKnownHostsFile {directory}/known_hosts\n  GlobalKnownHostsFile /dev/null\n"
        "  StrictHostKeyChecking yes\n  BatchMode yes\n  LogLevel ERROR\n"
        # Until the other host's sshd is up.
        "  ConnectionAttempts 120\n  ConnectTimeout 10\n  ServerAliveInterval 5\n  ServerAliveCountMax 3\n",
    )


def _sshd_config(job: Job, environment: dict[str, str]) -> str:
    directory = tempfile.mkdtemp(prefix="optml-mpi-")
    _write(f"{directory}/key", _private_key(job, "host"))
    _write(f"{directory}/authorized_keys", f"{_public_key(job, 'user')}\n")
    try:
        os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
    except OSError as error:
        raise UserError(f"sshd needs /run/sshd: {error.strerror}; mount a tmpfs on /run") from error
    allowed = " ".join(f"{_user()}@{address}" for address in sorted(addresses(job.master)))
    return _write(
        f"{directory}/config",
        f"Port {PORT}\nPidFile none\nHostKey {directory}/key\n"
        f"AuthorizedKeysFile {directory}/authorized_keys\n"
        f"AllowUsers {allowed}\nPermitRootLogin prohibit-password\nPasswordAuthentication no\n"
        "KbdInteractiveAuthentication no\nDisableForwarding yes\nPermitTTY no\n"
        "UsePAM no\nStrictModes no\nLogLevel ERROR\nMaxStartups 100\n"
        f"SetEnv {_set_env(environment)}\n",
    )


def _set_env(environment: dict[str, str]) -> str:
    """The variables of the ranks, as sshd_config wants them: on one line."""
    words = []
    for name, value in environment.items():
        withheld = name.startswith(_WITHHELD) and name not in _NOT_WITHHELD
        if not withheld and "\n" not in value:
            quoted = value.replace("\\", "\\\\").replace('"', '\\"')
            words.append(f'"{name}={quoted}"')
    return " ".join(words)


def _user() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        raise UserError(
            f"ssh needs a user in /etc/passwd, and uid {os.geteuid()} is none; run as root or ml"
        ) from None


def _write(path: str, text: str) -> str:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    return path


def _seed(job: Job, role: str) -> bytes:
    return seed(job, role, job.name, job.hyperparameters)


def _public_bytes(job: Job, role: str) -> bytes:
    # The fixed start of a PKCS #8 key of Ed25519 (RFC 8410), then the seed.
    key = bytes.fromhex("302e020100300506032b657004220420") + _seed(job, role)
    command = [_need("openssl"), "pkey", "-inform", "DER", "-pubout", "-outform", "DER"]
    return subprocess.run(command, input=key, capture_output=True, check=True).stdout[-32:]


def _public_key(job: Job, role: str) -> str:
    blob = _string(_KEY_TYPE) + _string(_public_bytes(job, role))
    return f"{_KEY_TYPE.decode()} {base64.b64encode(blob).decode()}"


def _private_key(job: Job, role: str) -> str:
    """The file that ssh-keygen would write. Format: PROTOCOL.key of OpenSSH."""
    public = _public_bytes(job, role)
    secret = _seed(job, role) + public
    private = bytes(8) + b"".join(map(_string, (_KEY_TYPE, public, secret, b"optml")))
    private += bytes(range(1, 9))[: -len(private) % 8]
    blob = _string(_KEY_TYPE) + _string(public)
    head = b"openssh-key-v1\0" + b"".join(map(_string, (b"none", b"none", b""))) + struct.pack(">I", 1)
    text = base64.b64encode(head + _string(blob) + _string(private)).decode()
    lines = [text[start : start + 70] for start in range(0, len(text), 70)]
    return "\n".join(["-----BEGIN OPENSSH PRIVATE KEY-----", *lines, "-----END OPENSSH PRIVATE KEY-----", ""])


def _string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data
