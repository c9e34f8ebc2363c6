"""The parent of the workers: signals, deaths that are no failure, and what it logs about its own kills."""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from .serving import Server, eventually

pytestmark = pytest.mark.image("cpu-serve")


def test_sighup_changes_nothing(image: str, ml: Path) -> None:
    with Server(image, ml, SAGEMAKER_MODEL_SERVER_WORKERS=2) as server:
        eventually(lambda: len(server.workers()) == 2)
        before = server.workers()
        for signal in ("HUP", "TTIN", "TTOU", "USR2", "WINCH"):
            server.kill(signal)
        server.wait_for_log("SIGHUP changes nothing")
        assert server.invoke().status_code == 200
        assert server.workers() == before
        assert "Traceback" not in server.log().output
        server.stop()
        assert server.wait() == 0


def test_idle_workers_may_be_killed_again_and_again(image: str, ml: Path) -> None:
    settings = {"SAGEMAKER_MODEL_SERVER_WORKERS": 2, "PROCESS_MAX_START_RETRIES": 1}
    with Server(image, ml, **settings) as server:
        for _ in range(3):
            eventually(lambda: len(server.workers()) == 2 and server.ping() == 200)
            before = server.workers()
            server.kill_process(*before)
            eventually(lambda before=before: not {*server.workers()} & {*before})  # type: ignore[misc]
        eventually(lambda: server.invoke().status_code == 200)


@pytest.mark.heavy
def test_a_worker_that_we_kill_is_not_said_to_lack_memory(image: str, ml: Path) -> None:
    source = """
    import ctypes
    def model_fn(model_dir):
        return None
    def predict_fn(data, model):
        ctypes.PyDLL(None).sleep(600)  # holds the interpreter
    """
    settings = {"SAGEMAKER_MODEL_SERVER_WORKERS": 1, "SAGEMAKER_MODEL_SERVER_TIMEOUT": 1}
    with Server(image, ml, source, **settings) as server:
        before = server.workers()
        with pytest.raises(requests.RequestException):
            server.invoke(timeout=60)
        server.wait_for_log("hangs in its model")
        eventually(lambda: server.workers() not in ([], before))  # its death has been noticed and logged
        assert "memory" not in server.log().output


@pytest.mark.parametrize("off", [False, True])
def test_ipv6_is_served_where_there_is_any(image: str, ml: Path, off: bool) -> None:
    option = f"--sysctl=net.ipv6.conf.all.disable_ipv6={int(off)}"
    with Server(image, ml, "def model_fn(d): pass\ndef predict_fn(d, m): return d\n", option) as server:
        assert server.invoke().status_code == 200  # over IPv4
        if not off:
            code = "import http.client as h; c = h.HTTPConnection('::1', 8080); c.request('GET', '/ping')"
            answered = server.exec("python3", "-c", f"{code}; print(c.getresponse().status)")
            assert answered.stdout == "200\n"


def test_a_standby_that_dies_is_replaced(image: str, ml: Path) -> None:
    find = "for p in /proc/[0-9]*; do read n < $p/comm; [ $n = standby ] && echo ${p#/proc/}; done; true"
    with Server(image, ml, SAGEMAKER_MODEL_SERVER_WORKERS=1) as server, requests.Session() as session:
        assert session.get(f"{server.url}/ping", timeout=10).status_code == 200
        before = server.exec("sh", "-c", find).stdout
        server.kill_process(before)
        eventually(lambda: server.exec("sh", "-c", find).stdout not in ("", before))
        assert session.get(f"{server.url}/ping", timeout=10).status_code == 200
        assert server.invoke().status_code == 200


def test_who_connects_as_the_stop_begins_gets_an_answer(image: str, ml: Path) -> None:
    request = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n[1]"
    over = threading.Event()

    def call_again_and_again(address: str) -> list[bytes]:
        answers: list[bytes] = []
        while not over.wait(0.02):
            try:
                client = socket.create_connection((address, 8080), timeout=10)
            except OSError:
                break  # nobody is listening any more
            with client:
                try:
                    client.sendall(request)
                    answers.append(client.recv(100))
                except OSError:
                    answers.append(b"")
        return answers

    # Not hardened, so that the standby belongs to another user, as wherever the server starts as root.
    with Server(image, ml, hardened=False, SAGEMAKER_MODEL_SERVER_WORKERS=2) as server:
        eventually(lambda: len(server.workers()) == 2)
        with ThreadPoolExecutor() as clients:
            answers = clients.submit(call_again_and_again, server.address)
            time.sleep(0.2)
            server.kill("TERM")
            time.sleep(0.3)
            over.set()
        assert answers.result()
        assert {answer[:12] for answer in answers.result()} == {b"HTTP/1.1 200"}
        assert server.wait() == 0
