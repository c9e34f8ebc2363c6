"""The messages between hosts, as tables of lines: no socket, no clock."""

from __future__ import annotations

import pytest

from optml.training import keys, rendezvous
from optml.training.peers import Peers
from tests.unit.training.conftest import a_job

HUNG_UP = None
A_B_C = ["a", "b", "c"]


class Host(Peers):
    """A host whose connections are a list of what is sent."""

    def __init__(self, current: str, links: list[str], follows: str = "") -> None:
        super().__init__(current, {link: number for number, link in enumerate(links)}, follows)
        self.sent: list[tuple[str, str]] = []

    def _send(self, host: str, line: str) -> None:
        self.sent.append((host, line))


@pytest.mark.parametrize(
    ("link", "line", "lost", "passed_on"),
    [
        ("b", "b 0", None, []),
        ("b", "b 3", "host b ended with code 3", [("c", "b 3")]),
        ("b", HUNG_UP, "host b vanished", [("c", "b vanished")]),
        ("b", "b stop 15", None, []),
        ("b", "", None, []),
        ("", "c A=1;orted -x", None, [("c", "a start A=1;orted -x")]),  # from mpirun's agent
    ],
)
def test_the_first_host_receives_and_forwards(
    link: str, line: str | None, lost: str | None, passed_on: list[tuple[str, str]]
) -> None:
    first = Host("a", ["b", "c"])
    first.hang_up(link) if line is HUNG_UP else first.hear(link, line)
    assert (first.lost, first.sent) == (lost, passed_on)
    assert first.stopped == (15 if line == "b stop 15" else 0)


@pytest.mark.parametrize(
    ("follows", "lines", "lost", "code_of_7", "code_of_0"),
    [
        ("", [], None, 7, 0),
        ("", ["a 0"], None, 7, 0),
        ("", ["c vanished"], "host c vanished", 7, 1),
        ("", ["c 3", "c vanished"], "host c ended with code 3", 7, 1),
        ("a", ["a 0"], "host a ended with code 0", 0, 0),
        ("a", ["a 4"], "host a ended with code 4", 4, 4),
        ("a", ["a vanished"], "host a vanished", 7, 1),
    ],
)
def test_another_host_and_its_exit_code(
    follows: str, lines: list[str], lost: str | None, code_of_7: int, code_of_0: int
) -> None:
    host = Host("b", ["a"], follows)
    for line in lines:
        host.hear("a", line)
    assert host.lost == lost
    assert (host.code(7), host.code(0)) == (code_of_7, code_of_0)


def test_a_host_that_has_reported_its_end_does_not_vanish() -> None:
    first = Host("a", ["b"])
    first.hear("b", "b 0")
    first.hang_up("b")
    assert first.lost is None


@pytest.mark.parametrize("end", ["", "b 143"])
def test_only_a_host_that_knows_the_job_can_introduce_itself(end: str) -> None:
    key, stranger = b"of the job", b"of another job"
    line = rendezvous.introduce(key, "challenge", "b", "ours", end) + "\n"
    assert rendezvous.introduction(key, "challenge", line) == ("b", "ours", end)
    assert rendezvous.introduction(stranger, "challenge", line) == ("", "", "")
    assert rendezvous.introduction(key, "another challenge", line) == ("", "", "")
    assert rendezvous.introduction(key, "challenge", line.replace("b", "c", 1)) == ("", "", "")
    assert rendezvous.introduction(key, "challenge", f"{line.strip()}7\n") == ("", "", "")
    for nonsense in ("\n", "b\n", "b b b b b\n", "b \ufffd \ufffd\n"):
        assert rendezvous.introduction(key, "challenge", nonsense) == ("", "", "")


def test_hosts_of_a_job_have_one_key_and_other_jobs_another(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = {"hosts": A_B_C, "arn": "arn"}
    # Even a host that cannot read its hyperparameters has the key.
    assert keys.derive(a_job(**hosts, current_host="a")) == keys.derive(
        a_job(**hosts, hyperparameters={"x": 1})
    )
    assert keys.derive(a_job(**hosts)) != keys.derive(a_job(**{**hosts, "arn": "other"}))
    before = keys.derive(a_job(**hosts))
    monkeypatch.setenv("SAGEMAKER_JOB_SECRET", "mine")
    assert keys.derive(a_job(**hosts)) != before
