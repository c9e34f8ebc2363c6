"""What mpi-train adds to cpu-train: Open MPI and OpenSSH, and no key."""

from __future__ import annotations

from testinfra.host import Host


def test_what_an_mpi_job_starts_is_there(host: Host) -> None:
    for program in ("mpirun", "ssh", "openssl", "/usr/sbin/sshd"):
        assert host.exists(program)


def test_no_key_of_a_host_or_a_user_is_baked(host: Host) -> None:
    assert (
        host.check_output("find / -xdev \\( -name 'ssh_host_*_key*' -o -name 'id_*' -path '*/.ssh/*' \\)")
        == ""
    )


def test_mpirun_runs_ranks_on_this_host(host: Host) -> None:
    ranks = host.check_output("mpirun --allow-run-as-root --oversubscribe -np 2 hostname")
    assert len(ranks.splitlines()) == 2
