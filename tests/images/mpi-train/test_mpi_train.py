"""What mpi-train adds to cpu-train: Open MPI and OpenSSH, and no key."""

from __future__ import annotations

import re

from testinfra.host import Host


def test_what_an_mpi_job_starts_is_there(host: Host) -> None:
    for program in ("mpirun", "ssh", "/usr/sbin/sshd"):
        assert host.exists(program)


def test_no_key_of_a_host_or_a_user_is_baked(host: Host) -> None:
    assert host.check_output("find / -xdev -name 'ssh_host_*' -o -xdev -name .ssh") == ""


def test_mpirun_runs_ranks_on_this_host(host: Host) -> None:
    ranks = host.check_output("mpirun --allow-run-as-root --oversubscribe -np 2 hostname")
    assert len(ranks.splitlines()) == 2


def test_the_package_database_is_true(host: Host) -> None:
    # All programs and libraries of the installed packages are there: what was left out is not listed.
    packages = host.check_output("dpkg-query --show --showformat '${Package} '").split()
    assert not [name for name in packages if name.startswith(("libllvm", "libamd", "libz3"))]
    files = host.check_output(f"dpkg-query --listfiles {' '.join(packages)}").splitlines()
    binaries = [file for file in files if re.match(r"/usr/(s?bin|lib/[^/]*-linux-gnu)/[^/]+$", file)]
    assert len(binaries) > 500
    assert host.run(f"ls {' '.join(binaries)}").stderr == ""
