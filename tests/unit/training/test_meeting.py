"""The rendezvous over real sockets: only hosts that prove that they know the job are accepted."""

from __future__ import annotations

import contextlib
import gc
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from optml.report import UserError
from optml.training import keys, rendezvous

FIRST = "127.0.0.1"
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # a host leaves its connections open
KEY, ANOTHER = b"of the job", b"of another job"


@pytest.fixture
def first(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bytes], rendezvous.FirstHost]]:
    """The first host of two, on a free port."""
    hosts: list[rendezvous.FirstHost] = []
    with socket.create_server((FIRST, 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setattr(rendezvous, "PORT", port)
    monkeypatch.setattr(rendezvous, "PATIENCE", 60.0)  # so that a failing test ends sooner

    def create(key: bytes = KEY) -> rendezvous.FirstHost:
        hosts.append(rendezvous.FirstHost(FIRST, [FIRST, "b"], key))
        return hosts[0]

    yield create
    for host in hosts:
        host._server.close()
        for guest in (*host._here.values(), *host._guests.values()):
            guest.link.close()
    gc.collect()  # the other ends, while the warning is ignored


def call(name: str, key: bytes, end: str = "") -> socket.socket | None:
    return rendezvous.OtherHost(name, [FIRST, name], key)._call(end)


def say(words: bytes) -> socket.socket:
    link = socket.create_connection((FIRST, rendezvous.PORT), timeout=30)
    link.sendall(words)
    return link


def is_cut_off(link: socket.socket) -> None:
    """Wait for the end of a connection, after the challenge."""
    try:
        while link.recv(1 << 12):
            pass
    except ConnectionResetError:
        pass  # with unread data
    link.close()


def test_strangers_are_rejected_and_the_host_of_the_job_is_accepted(first, capfd, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(rendezvous, "_INTRODUCTION", 300.0)  # no timeout ends them
    host = first()
    with ThreadPoolExecutor(4) as threads:
        joined = threads.submit(host.join)
        strangers = [say(words) for words in (b"GET / HTTP/1.1\r\n\r\n", b"\xff\n", b"b x y\n", b"x" * 5000)]
        for stranger in strangers:
            is_cut_off(stranger)
        assert call("b", ANOTHER) is None  # knows another job
        assert call("c", KEY) is None  # knows the job, but is not one of its hosts
        assert not joined.done()
        link = rendezvous.OtherHost("b", [FIRST, "b"], KEY).join()[FIRST]
        links = joined.result(30)
    assert list(links) == ["b"]
    links["b"].sendall(b"!")
    assert link.recv(1) == b"!"
    link.close()
    links["b"].close()
    assert capfd.readouterr().err.count("a connection from 127.0.0.1 is not of this job") == 6


def test_a_silent_connection_is_not_waited_for(first, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(rendezvous, "_INTRODUCTION", 0.5)
    host = first()
    with ThreadPoolExecutor(1) as threads, say(b"") as silent:
        joined = threads.submit(host.join)
        is_cut_off(silent)
        monkeypatch.setattr(rendezvous, "_INTRODUCTION", 30.0)
        link = call("b", KEY)
        for each in (link, *joined.result(30).values()):
            assert each
            each.close()


def test_missing_hosts_are_named(first, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(rendezvous, "PATIENCE", 0.1)
    with pytest.raises(UserError, match=r"no sign of b in 0 s; see the logs of these hosts"):
        first().join()
    monkeypatch.setattr(rendezvous, "PORT", 1)
    with pytest.raises(UserError, match=r"host 127.0.0.1 does not answer on port 1; see its log"):
        rendezvous.OtherHost("b", [FIRST, "b"], KEY).join()
    with pytest.raises(UserError, match=r"no address for absent.invalid after 0 s; check that every host"):
        rendezvous.OtherHost("b", ["absent.invalid", "b"], KEY).join()


@pytest.mark.parametrize("end", ["b 143", "b 7"])
def test_the_end_of_a_host_that_does_not_start_ends_the_rendezvous(first, end: str) -> None:  # type: ignore[no-untyped-def]
    host = first()
    with ThreadPoolExecutor(1) as threads:
        joined = threads.submit(host.join)
        assert call("b", KEY, end)
        with pytest.raises(UserError, match=f"host b ended with code {end[2:]} before its program started"):
            joined.result(30)


def test_a_first_host_that_is_still_preparing_learns_of_the_end_of_another(first, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(rendezvous, "_INTRODUCTION", 0.2)
    host = first()
    with ThreadPoolExecutor(1) as threads:
        announced = threads.submit(rendezvous.OtherHost("b", [FIRST, "b"], KEY).announce, 3, 0.2)
        time.sleep(1)
        monkeypatch.setattr(rendezvous, "_INTRODUCTION", 30.0)
        with pytest.raises(UserError, match="host b ended with code 3 before its program started"):
            host.join()
        announced.result(30)


def test_the_end_of_the_first_host_reaches_the_other(first) -> None:  # type: ignore[no-untyped-def]
    host = first()
    with ThreadPoolExecutor(1) as threads:
        announced = threads.submit(host.announce, 3, 30.0)
        with pytest.raises(UserError, match=r"host 127.0.0.1 ended with code 3 before its program started"):
            call("b", KEY)
        announced.result(30)


@pytest.mark.parametrize(
    "answers",
    [
        [b"challenge\n", b"\n"],
        [b"challenge\n", b"127.0.0.1 3\n"],
        [b"challenge\n", b"127.0.0.1 3 proof\n"],
        [b"challenge\n", keys.proof(ANOTHER, "challenge", "").encode() + b"\n"],
        [b"\xff\xfe\n", b"\xff\n"],
        [b"x" * 5000],
    ],
)
def test_a_first_host_without_a_valid_proof_is_rejected(first, answers: list[bytes]) -> None:  # type: ignore[no-untyped-def]
    with socket.create_server((FIRST, rendezvous.PORT)) as server, ThreadPoolExecutor(1) as threads:
        called = threads.submit(call, "b", KEY)
        link, _ = server.accept()
        link.settimeout(20)
        with link, contextlib.suppress(ConnectionError):
            for answer in answers:
                link.sendall(answer)
                link.recv(1 << 12)  # its introduction, or its end
        assert called.result(30) is None
