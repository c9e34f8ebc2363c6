"""Bodies that many clients send at once, slowly, into little memory."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests

from .serving import Server, eventually

SIZE = 2 << 20  # the largest body that is kept in memory
CLIENTS = 250
LIMITS = ("--memory=300m", "--memory-swap=300m")
HEAD = (
    b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % SIZE
)
LENGTH = """
def predict_fn(data, model):
    return len(data)

def model_fn(model_dir):
    return None
"""


def half_send(server: Server, stack: ExitStack) -> socket.socket:
    """A client that has sent its body except for the last byte, unless it was refused before that."""
    client = stack.enter_context(socket.create_connection((server.address, 8080), timeout=60))
    try:
        client.sendall(HEAD + b"x" * (SIZE - 1))
    except ConnectionError:
        pass  # the refusal can still be read
    return client


@pytest.mark.heavy
@pytest.mark.image("cpu-serve")
@pytest.mark.parametrize("tmp", ["disk", "memory"])
def test_half_sent_bodies_harm_nobody(image: str, ml: Path, tmp: str) -> None:
    """On disk there is room for all; where /tmp is in memory, clients without room are told to retry."""
    options = LIMITS if tmp == "disk" else (*LIMITS, "--tmpfs=/tmp")
    settings = {"SAGEMAKER_MODEL_SERVER_WORKERS": 2, "SAGEMAKER_MODEL_JOB_QUEUE_SIZE": CLIENTS}
    with Server(image, ml, LENGTH, *options, hardened=False, **settings) as server, ExitStack() as stack:
        eventually(lambda: len(server.workers()) == 2)
        workers = server.workers()
        clients = [half_send(server, stack) for _ in range(CLIENTS)]
        assert server.ping() == 200
        assert server.invoke(b"[1, 2, 3]").json() == 3
        for client in clients:
            try:
                client.sendall(b"x")
            except ConnectionError:
                pass
        answers = [client.recv(9999) for client in clients]
        served = [answer for answer in answers if answer.startswith(b"HTTP/1.1 200 ")]
        refused = [answer for answer in answers if answer.startswith(b"HTTP/1.1 503 ")]
        assert len(served) + len(refused) == CLIENTS
        assert all(b"Retry-After: 1" in answer and b"no room for the body" in answer for answer in refused)
        assert served and (refused if tmp == "memory" else not refused)
        assert server.invoke(b"x" * SIZE, Content_Type="text/plain").json() == SIZE  # the room is free again
        assert server.workers() == workers
        assert "Worker (pid" not in server.log().output  # as one that dies is reported


FAULTS = "import sys; print(open(f'/proc/{sys.argv[1]}/stat').read().rsplit(')')[1].split()[7])"


@pytest.mark.image("cpu-serve")
def test_one_calls_memory_serves_the_next(image: str, ml: Path) -> None:
    """New memory costs a fault per page: a body of 1 MiB has 256, and so have its array and its answer."""
    calls, body = 50, bytes(1 << 20)
    with Server(image, ml, SAGEMAKER_MODEL_SERVER_WORKERS=1) as server, requests.Session() as session:
        [worker] = server.workers()
        session.headers["Content-Type"] = session.headers["Accept"] = "application/octet-stream"

        def faults_of(count: int) -> int:
            before = int(server.exec("python3", "-c", FAULTS, str(worker)).stdout)
            for _ in range(count):
                assert session.post(f"{server.url}/invocations", body, timeout=30).content == body
            return int(server.exec("python3", "-c", FAULTS, str(worker)).stdout) - before

        faults_of(calls)
        assert faults_of(calls) < 64 * calls
