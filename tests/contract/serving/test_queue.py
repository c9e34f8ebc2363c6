"""Waiting calls: each has a clock of its own, apart from running ones, and outlives the worker that dies."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import pytest
import requests

from .serving import FIND_WORKERS, Pinger, Server, eventually

pytestmark = pytest.mark.image("cpu-serve")

# Writes a line with the name of the call when its run begins and when it ends.
NARRATOR = """
import os, time

def model_fn(model_dir):
    return None

def predict_fn(data, model):
    os.write(2, f"begin {data[0]} {os.getpid()} end\\n".encode())
    time.sleep(data[1])
    os.write(2, f"done {data[0]} {os.getpid()} end\\n".encode())
    return data[0]
"""


def runs(server: Server, word: str) -> dict[str, str]:
    """The calls that have begun, or are done, each with the worker that ran it."""
    return dict(re.findall(rf"{word} (\w+) (\d+) end", server.log().output))


def call(server: Server, client: requests.Session, name: str, seconds: float) -> int:
    """The status of a call over the client's own connection."""
    return client.post(f"{server.url}/invocations", f'["{name}", {seconds}]', timeout=60).status_code


def clients_by_worker(server: Server, stack: ExitStack, count: int) -> list[list[requests.Session]]:
    """`count` clients, grouped by the worker that holds their connection, the largest group first."""
    clients: dict[str, list[requests.Session]] = {}
    for number in range(count):
        client = stack.enter_context(requests.Session())
        client.headers["Content-Type"] = "application/json"
        assert call(server, client, f"n{number}", 0) == 200
        server.wait_for_log(f"done n{number} ")
        clients.setdefault(runs(server, "done")[f"n{number}"], []).append(client)
    return sorted(clients.values(), key=len, reverse=True)


def ask(server: Server, name: str, seconds: float) -> int | str:
    try:
        return server.invoke(f'["{name}", {seconds}]', timeout=60).status_code
    except requests.RequestException as error:
        return type(error).__name__


@pytest.mark.heavy
def test_a_burst_that_waits_longer_than_the_timeout_replaces_no_worker(image: str, ml: Path) -> None:
    settings = {"SAGEMAKER_MODEL_SERVER_WORKERS": 2, "SAGEMAKER_MODEL_SERVER_TIMEOUT": 4}
    with Server(image, ml, NARRATOR, **settings) as server, ThreadPoolExecutor(24) as pool:
        eventually(lambda: len(server.workers()) == 2)
        before = server.workers()
        with Pinger(server) as pinger:
            answers = Counter(pool.map(lambda number: ask(server, f"c{number}", 0.7), range(24)))
        assert set(answers) == {200, 504}, answers
        assert set(pinger.answers) == {200}, pinger.answers
        assert server.workers() == before
        assert "is replaced" not in server.log().output
        # A call that has run out of time is not begun. In vain are at most the last calls of each worker, and
        # the next ones where the machine was too busy to send all calls at once.
        assert len(runs(server, "begin")) <= answers[200] + 4


def test_the_replacement_does_not_wait_for_the_drain(image: str, ml: Path) -> None:
    settings = {
        "SAGEMAKER_MODEL_SERVER_WORKERS": 1,
        "SAGEMAKER_MODEL_SERVER_THREADS": 2,
        "SAGEMAKER_MODEL_SERVER_TIMEOUT": 4,
    }
    with Server(image, ml, NARRATOR, **settings) as server, ThreadPoolExecutor(2) as pool:
        stuck = pool.submit(ask, server, "stuck", 600)
        time.sleep(2.5)
        long = pool.submit(ask, server, "long", 3.6)
        assert stuck.result() == 504
        eventually(lambda: server.ping() == 200)
        assert ask(server, "next", 0) == 200
        assert not long.done()  # the worker being replaced is still at it
        assert long.result() == 200
        assert runs(server, "done")["next"] != runs(server, "done")["long"]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_worker_loses_what_it_ran_and_nothing_else(image: str, ml: Path, workers: int) -> None:
    calls, kills = 16 * workers, 3
    with (
        Server(image, ml, NARRATOR, SAGEMAKER_MODEL_SERVER_WORKERS=workers) as server,
        ThreadPoolExecutor(calls) as pool,
    ):
        eventually(lambda: len(server.workers()) == workers)
        answers = {f"c{number}": pool.submit(ask, server, f"c{number}", 0.4) for number in range(calls)}

        def over() -> bool:
            return all(answer.done() for answer in answers.values())

        for _ in range(kills):
            began = len(runs(server, "begin"))
            eventually(lambda began=began: over() or len(runs(server, "begin")) > began)  # type: ignore[misc]
            if over():  # before all the kills
                break
            victim = server.workers()[0]
            server.kill_process(victim)
            eventually(lambda victim=victim: victim not in server.workers())  # type: ignore[misc]
            eventually(lambda: server.ping() == 200 and len(server.workers()) == workers)
        statuses = {name: answer.result() for name, answer in answers.items()}
        begun, done = runs(server, "begin"), runs(server, "done")
        lost = {name for name, status in statuses.items() if status != 200}
        # A kill may also hit a call just before its first line or just after its last, but never two calls.
        assert begun.keys() - done.keys() <= lost, (statuses, begun, done)
        assert 0 < len(lost) <= kills, (statuses, begun, done)
        eventually(lambda: server.invoke(b'["after", 0]').status_code == 200)


@pytest.mark.parametrize("keeps", [False, True], ids=["first", "later"])
def test_a_call_that_is_still_on_its_way_survives_the_worker(image: str, ml: Path, keeps: bool) -> None:
    body = b'["half", 0]'
    head = f"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with (
        Server(image, ml, NARRATOR, SAGEMAKER_MODEL_SERVER_WORKERS=1) as server,
        socket.create_connection((server.address, 8080), timeout=30) as client,
    ):
        if keeps:
            for part in (head, body):
                client.sendall(part)
                time.sleep(0.3)
            assert client.recv(1000).startswith(b"HTTP/1.1 200 ")
        client.sendall(head + body[:4])
        time.sleep(0.3)
        [victim] = server.workers()
        server.kill_process(victim)
        eventually(lambda: server.ping() == 200 and server.workers() not in ([], [victim]))
        client.sendall(body[4:])
        assert client.recv(1000).startswith(b"HTTP/1.1 200 ")


# Kills a random worker whenever all are there, as often as its argument says, and prints each victim.
KILLER = f"""{FIND_WORKERS}
import random, signal, sys, time

for _ in range(int(sys.argv[1])):
    while len(found := list(workers())) < 2:
        time.sleep(0.02)
    time.sleep(random.uniform(0.2, 0.4))  # it has loaded by now, or dies while loading
    victim = random.choice(found)
    os.kill(victim, signal.SIGKILL)
    print(victim)
    while victim in workers():
        time.sleep(0.01)
"""
HELD = """
import os
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        if pid == "1" or open(f"/proc/{pid}/comm").read() == "standby\\n":
            status = dict(line.split(":", 1) for line in open(f"/proc/{pid}/status"))
            print(len(os.listdir(f"/proc/{pid}/fd")), status["VmRSS"].split()[0])
    except OSError:
        pass
"""


def held(server: Server) -> list[tuple[int, int]]:
    """Open files and memory in KiB of the supervisor and of the standby."""
    pairs = (line.split() for line in server.exec("python3", "-c", HELD).stdout.splitlines())
    return [(int(files), int(memory)) for files, memory in pairs]


@pytest.mark.heavy
@pytest.mark.parametrize("kills", [10, pytest.param(100, marks=pytest.mark.long)])
def test_kills_under_overload_lose_what_ran_and_hold_nothing(image: str, ml: Path, kills: int) -> None:
    settings = {
        "SAGEMAKER_MODEL_SERVER_WORKERS": 2,
        "SAGEMAKER_MODEL_SERVER_TIMEOUT": 30,
        "PROCESS_MAX_START_RETRIES": 1000,
    }
    statuses: dict[str, int | str] = {}
    over = threading.Event()

    def call_on(client: int) -> None:
        for number in count():
            if over.is_set():
                return
            statuses[f"c{client}x{number}"] = ask(server, f"c{client}x{number}", 0.03)

    with Server(image, ml, NARRATOR, **settings) as server, ThreadPoolExecutor(16) as pool:
        eventually(lambda: len(server.workers()) == 2)
        clients = [pool.submit(call_on, client) for client in range(16)]
        try:
            time.sleep(1)
            before = held(server)
            with Pinger(server) as pinger:
                done = server.exec("python3", "-c", KILLER, str(kills), timeout=500)
            killed = done.stdout.split()
        finally:
            over.set()
        for client in clients:
            client.result()
        assert len(killed) == kills
        begun, finished = runs(server, "begin"), runs(server, "done")
        lost = {name: status for name, status in statuses.items() if status not in (200, 503, 504)}
        last = {pid: name for name, pid in begun.items()}
        # A kill may also hit a call just before its first line or just after its last; no worker runs two.
        running = {last[pid] for pid in killed if pid in last}
        assert begun.keys() - finished.keys() <= lost.keys(), (lost, begun)
        assert lost.keys() & begun.keys() <= running, (lost, begun)
        assert len(lost) <= kills
        assert sum(status != 200 for status in statuses.values()) < len(lost) + len(statuses) / 20
        assert pinger.answers[200] > 0.9 * pinger.answers.total(), pinger.answers
        eventually(lambda: server.ping() == 200 and len(server.workers()) == 2)
        for (files, memory), (files_before, memory_before) in zip(held(server), before, strict=True):
            assert files <= files_before
            assert memory < memory_before + 4096


def test_what_was_read_and_had_not_begun_may_be_sent_again(image: str, ml: Path) -> None:
    large = b'["large", 0, "%s"]' % (b"x" * 100_000)  # more than fits into the kernel's buffers
    with (
        Server(image, ml, NARRATOR, SAGEMAKER_MODEL_SERVER_WORKERS=1) as server,
        ThreadPoolExecutor(2) as pool,
    ):
        first = pool.submit(ask, server, "first", 50)
        eventually(lambda: "first" in runs(server, "begin"))
        waiting = pool.submit(server.invoke, large)
        time.sleep(0.5)
        [victim] = server.workers()
        server.kill_process(victim)
        answer = waiting.result()
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
        assert "before it started" in answer.json()["message"]
        assert first.result() == "ConnectionError"
        assert "large" not in runs(server, "begin")
        eventually(lambda: server.invoke(large).status_code == 200)


@pytest.mark.heavy
def test_a_call_does_not_wait_for_its_worker_while_another_is_free(image: str, ml: Path) -> None:
    with (
        Server(image, ml, NARRATOR, SAGEMAKER_MODEL_SERVER_WORKERS=2) as server,
        ThreadPoolExecutor(1) as pool,
        ExitStack() as stack,
    ):
        eventually(lambda: len(server.workers()) == 2 and server.ping() == 200)
        one, other = clients_by_worker(server, stack, 8)[0][:2]
        slow = pool.submit(call, server, one, "slow", 8)
        eventually(lambda: "slow" in runs(server, "begin"))
        assert call(server, other, "quick", 0) == 200
        assert not slow.done()
        assert call(server, other, "again", 0) == 200
        assert slow.result() == 200


@pytest.mark.heavy
def test_all_clients_wait_alike_though_most_came_to_one_worker(image: str, ml: Path) -> None:
    """Six clients stay connected to one worker and two to the other, and all call without a pause."""
    with (
        Server(image, ml, NARRATOR, SAGEMAKER_MODEL_SERVER_WORKERS=2) as server,
        ThreadPoolExecutor(8) as pool,
        ExitStack() as stack,
    ):
        eventually(lambda: len(server.workers()) == 2 and server.ping() == 200)

        def count(client: requests.Session) -> int:
            """The client's calls within three seconds, after one second to warm up."""
            began, calls = time.monotonic(), 0
            while (passed := time.monotonic() - began) < 4:
                assert call(server, client, "any", 0.05) == 200
                calls += passed > 1
            return calls

        many, few = clients_by_worker(server, stack, 20)
        calls = list(pool.map(count, [*many[:6], *few[:2]]))
        assert max(calls) < 2 * min(calls), calls  # it would be 3 if workers did not pass calls on


def test_a_client_that_calls_again_at_once_is_not_refused_all_the_time(image: str, ml: Path) -> None:
    """Refusals cost the CPU that running calls need. Such a client is read again when there is room."""
    settings = {"SAGEMAKER_MODEL_SERVER_WORKERS": 1, "SAGEMAKER_MODEL_JOB_QUEUE_SIZE": 0}
    with Server(image, ml, NARRATOR, **settings) as server, requests.Session() as client:
        client.headers["Content-Type"] = "application/json"
        assert call(server, client, "first", 0) == 200  # the connection is the worker's
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(ask, server, "running", 1.5)
            server.wait_for_log("begin running")
            statuses = [call(server, client, "again", 0)]
            while statuses[-1] == 503:
                statuses.append(call(server, client, "again", 0))
            assert running.result() == 200
        assert statuses[-1] == 200
        assert 1 <= statuses.count(503) <= 20, statuses


def test_a_client_that_hangs_up_while_its_call_waits_has_it_not_run(image: str, ml: Path) -> None:
    with (
        Server(image, ml, NARRATOR, SAGEMAKER_MODEL_SERVER_WORKERS=1) as server,
        ThreadPoolExecutor(2) as pool,
    ):
        first = pool.submit(ask, server, "first", 2)
        eventually(lambda: "first" in runs(server, "begin"))
        with socket.create_connection((server.address, 8080)) as client:
            client.sendall(
                b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                b'Content-Length: 11\r\n\r\n["gone", 0]'
            )
            time.sleep(0.3)
        assert ask(server, "last", 0) == 200
        assert first.result() == 200
        assert runs(server, "begin").keys() == {"first", "last"}


def test_a_client_that_does_not_read_its_stream_is_cut_off_and_no_worker_replaced(
    image: str, ml: Path
) -> None:
    source = """
    def model_fn(model_dir):
        return None
    def predict_fn(data, model):
        for _ in range(data):
            yield "x" * (1 << 20)
    """
    settings = {"SAGEMAKER_MODEL_SERVER_WORKERS": 1, "SAGEMAKER_MODEL_SERVER_TIMEOUT": 2}
    with Server(image, ml, source, **settings) as server:
        before = server.workers()
        with Pinger(server) as pinger, socket.create_connection((server.address, 8080)) as deaf:
            deaf.sendall(b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n999")
            server.wait_for_log(" 499 ")
        assert server.invoke(b"1").status_code == 200
        assert set(pinger.answers) == {200}
        assert server.workers() == before
        assert "is replaced" not in server.log().output


def test_a_slow_call_after_many_quick_ones_keeps_nobody_waiting(image: str, ml: Path) -> None:
    """Quick calls run on the very thread that answers /ping and watches the time."""
    with (
        Server(image, ml, NARRATOR, SAGEMAKER_MODEL_SERVER_WORKERS=1) as server,
        ThreadPoolExecutor(2) as pool,
    ):
        for round_ in ("a", "b"):
            with requests.Session() as session:
                for _ in range(100):
                    session.post(f"{server.url}/invocations", '["quick", 0]', timeout=10).raise_for_status()
            slow = pool.submit(ask, server, f"slow_{round_}", 2.5)
            eventually(lambda name=f"slow_{round_}": name in runs(server, "begin"))
            waiting = pool.submit(ask, server, f"after_{round_}", 0)
            pings = [server.ping() for _ in range(20)]
            assert not slow.done() and pings == [200] * 20
            assert (slow.result(), waiting.result()) == (200, 200)
        assert "is replaced" not in server.log().output
