"""Section 5 of the contract: every fault is real, and under load where that matters."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from tests.support.wheels import wheel

from .serving import ECHO, Load, Server, eventually

pytestmark = pytest.mark.image("cpu-serve")

# The body of a call says what it does.
ACTOR = """
import ctypes, os, signal, time

def model_fn(model_dir):
    return None

def predict_fn(data, model):
    if isinstance(data, list):
        return os.getpid()
    if data == "segfault":
        ctypes.string_at(0)
    if data == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if data == "memory":
        raise MemoryError
    if data == "grow":
        return len(bytearray(b"x") * (1 << 30))
    if data == "raise":
        raise ValueError("secret of the user")
    if data == "hold":  # the interpreter, so that not even the worker's loop runs
        ctypes.PyDLL(None).sleep(600)
    if isinstance(data, dict):
        return ctypes.PyDLL(None).sleep(data["hold"])
    time.sleep(float(data))
    return data
"""


def test_503_while_the_model_loads(image: str, ml: Path) -> None:
    source = """
    import ctypes
    def model_fn(model_dir):
        ctypes.PyDLL(None).sleep(8)  # holds the interpreter, as unpickling a large model does
    def predict_fn(data, model):
        return data
    """
    with Server(image, ml, source, ready=False) as server:
        eventually(lambda: server.ping() == 503)
        refused = server.invoke()
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
        assert refused.json()["code"] == 503
        eventually(lambda: server.ping() == 200)
        assert server.invoke().status_code == 200


def test_a_model_that_does_not_load_ends_the_container(image: str, ml: Path) -> None:
    source = """
    def model_fn(model_dir):
        raise RuntimeError("weights are broken")
    """
    with Server(image, ml, source, ready=False, PROCESS_MAX_START_RETRIES=2) as server:
        assert server.wait() not in (0, 137)
        log = server.log().output
        assert log.count("Traceback") == 1
        assert log.count("the model does not load") == 3  # one start and two retries
        assert "giving up" in log


@pytest.mark.heavy
def test_a_full_queue_is_refused_at_once_and_ping_answers(image: str, ml: Path) -> None:
    settings = {"SAGEMAKER_MODEL_SERVER_WORKERS": 1, "SAGEMAKER_MODEL_JOB_QUEUE_SIZE": 2}
    with Server(image, ml, ACTOR, **settings) as server, ThreadPoolExecutor(8) as pool:
        began = time.monotonic()
        answers = [pool.submit(server.invoke, b'"3"') for _ in range(8)]
        while not any(answer.done() for answer in answers):
            assert server.ping() == 200
        refused = [answer.result() for answer in answers if answer.result().status_code == 503]
        assert len(refused) == 5  # one ran, two waited
        assert all(r.headers["Retry-After"] and r.elapsed.total_seconds() < 3 for r in refused)
        assert sum(answer.result().status_code == 200 for answer in answers) == 3
        assert time.monotonic() - began > 8


def test_a_call_over_its_time_is_504_and_the_worker_replaced(image: str, ml: Path) -> None:
    settings = {"SAGEMAKER_MODEL_SERVER_WORKERS": 2, "SAGEMAKER_MODEL_SERVER_TIMEOUT": 5}
    with Server(image, ml, ACTOR, **settings) as server:
        eventually(lambda: len(server.workers()) == 2)
        before = server.workers()
        with Load(server, 3) as load:
            late = server.invoke(b'"600"')
            assert late.status_code == 504
            assert "SAGEMAKER_MODEL_SERVER_TIMEOUT" in late.json()["message"]
            eventually(lambda: len(server.workers()) == 2 and server.workers() != before)
            assert server.ping() == 200
        # Calls that waited behind the stuck one were answered, too; nothing else was lost.
        assert set(load.statuses) <= {200, 503, 504}
        assert load.statuses.get(503, 0) + load.statuses.get(504, 0) <= 3
        assert load.statuses[200] > 10


@pytest.mark.parametrize("death", ["segfault", "kill"])
def test_a_dead_worker_loses_only_its_own_call(image: str, ml: Path, death: str) -> None:
    with Server(image, ml, ACTOR, SAGEMAKER_MODEL_SERVER_WORKERS=2) as server:
        eventually(lambda: len(server.workers()) == 2)
        with Load(server, 4) as load:
            time.sleep(0.5)
            for _ in range(2):
                with pytest.raises(requests.ConnectionError):
                    server.invoke(f'"{death}"')
                eventually(lambda: len(server.workers()) == 2)
                time.sleep(0.5)
        assert set(load.statuses) == {200}  # only the calls that killed a worker are lost
        assert server.ping() == 200


def test_a_call_too_large_for_the_container_is_lost_alone(image: str, ml: Path) -> None:
    limits = ("--memory=200m", "--memory-swap=200m")
    with Server(image, ml, ACTOR, *limits, SAGEMAKER_MODEL_SERVER_WORKERS=1) as server:
        assert server.invoke().status_code == 200
        with pytest.raises(requests.ConnectionError):
            server.invoke(b'"grow"')
        eventually(lambda: server.invoke().status_code == 200)


def test_workers_that_only_die_end_the_container(image: str, ml: Path) -> None:
    settings = {"SAGEMAKER_MODEL_SERVER_WORKERS": 1, "PROCESS_MAX_START_RETRIES": 2}
    with Server(image, ml, ACTOR, **settings) as server:
        deadline = time.monotonic() + 40
        while server.running and time.monotonic() < deadline:
            with contextlib.suppress(requests.RequestException):
                server.invoke(b'"kill"')
            time.sleep(0.1)
        assert server.wait() not in (0, 137)
        server.wait_for_log("giving up")


@pytest.mark.heavy
def test_a_handler_that_holds_the_interpreter_is_killed(image: str, ml: Path) -> None:
    settings = {"SAGEMAKER_MODEL_SERVER_WORKERS": 2, "SAGEMAKER_MODEL_SERVER_TIMEOUT": 1}
    with Server(image, ml, ACTOR, **settings) as server:
        eventually(lambda: len(server.workers()) == 2)
        with pytest.raises(requests.RequestException):
            server.invoke(b'"hold"', timeout=40)
        server.wait_for_log("hangs in its model")
        eventually(lambda: len(server.workers()) == 2 and server.invoke().status_code == 200)


@pytest.mark.parametrize("workers", [1, 2])
def test_ping_answers_while_every_model_holds_the_interpreter(image: str, ml: Path, workers: int) -> None:
    with (
        Server(image, ml, ACTOR, SAGEMAKER_MODEL_SERVER_WORKERS=workers) as server,
        ThreadPoolExecutor() as pool,
    ):
        eventually(lambda: len(server.workers()) == workers)
        held = [pool.submit(server.invoke, b'{"hold": 8}') for _ in range(workers)]
        time.sleep(1)
        waiting = pool.submit(server.invoke, b"[1]")
        for _ in range(5):
            assert server.ping() == 200
        assert not waiting.done()
        assert not any(answer.done() for answer in held)
        # A call that came meanwhile was not refused: the first free worker took it.
        assert waiting.result().status_code == 200
        assert all(answer.result().status_code == 200 for answer in held)


def test_a_fault_of_the_handler_is_500_and_stays_in_the_log(image: str, ml: Path) -> None:
    with Server(image, ml, ACTOR) as server:
        failed = server.invoke(b'"raise"')
        assert failed.status_code == 500
        assert "secret" not in failed.text
        assert failed.json()["message"].startswith("The model raised ValueError")
        log = server.log().output
        assert "secret of the user" in log
        assert f"request {failed.json()['requestId']} failed" in log
        assert server.invoke(b'"memory"').status_code == 507


def test_an_answer_that_http_cannot_carry_is_a_fault_of_the_handler(image: str, ml: Path) -> None:
    source = """
        def model_fn(model_dir):
            return None

        def predict_fn(data, model):
            return data

        def output_fn(prediction, accept, context):
            context.status, context.response_headers["X-Own"] = prediction
            return (part for part in [b"a"]) if accept == "text/plain" else b"a"
    """
    with Server(image, ml, source) as server:
        assert server.invoke(b'[201, "text"]').status_code == 201
        for answer in ([200, "\u20ac"], [200, "a\nb"], [200, 1], [99999, "text"], ["x", "text"]):
            for accept in ("application/json", "text/plain"):
                assert server.invoke(json.dumps(answer), Accept=accept).status_code == 500, answer
        log = server.log().output
        assert "Traceback" not in log and "header X-Own is a int: set a text" in log
        for status in (100, 101, 199, 600):
            assert server.invoke(f'[{status}, "text"]').status_code == 500


def test_where_an_answer_ends_is_not_the_handlers_to_say(image: str, ml: Path) -> None:
    source = """
        def model_fn(model_dir):
            return None

        def predict_fn(data, model):
            return data

        def output_fn(prediction, accept, context):
            context.response_headers.update(prediction)
            return (part for part in [b"12", b"3"]) if accept == "text/plain" else b"123"
    """
    headers = [{"content-length": "1"}, {"Transfer-Encoding": "gzip"}, {"CONNECTION": "close"}]
    with Server(image, ml, source) as server, requests.Session() as client:
        for accept in ("application/json", "text/plain"):
            for header in (*headers, {"content-type": "text/x-own"}):
                for _ in range(2):  # the second on the same connection
                    answer = client.post(
                        f"{server.url}/invocations",
                        json.dumps(header),
                        headers={"Content-Type": "application/json", "Accept": accept},
                        timeout=20,
                    )
                    assert (answer.status_code, answer.content) == (200, b"123"), header
                    assert answer.headers["Connection"] == "keep-alive"
                    if "content-type" in header:
                        assert answer.headers["Content-Type"] == "text/x-own"
        told = server.log().output.count("header content-length is left out of answers")
        assert 1 <= told <= len(server.workers())  # once in each worker at most


def test_a_body_too_large_is_413_with_the_limit(image: str, ml: Path) -> None:
    with Server(image, ml, SAGEMAKER_MAX_PAYLOAD_IN_MB=2) as server:

        def chunks() -> object:
            for _ in range(40):
                yield b"1" * (64 << 10)

        for body in (b"1" * (3 << 20), chunks()):
            refused = server.invoke(body)
            assert refused.status_code == 413
            assert "2 MB" in refused.json()["message"]
            assert "SAGEMAKER_MAX_PAYLOAD_IN_MB" in refused.json()["message"]
        # The limit itself is allowed, in one piece and in chunks.
        text = b'"' + b"x" * ((2 << 20) - 2) + b'"'
        assert server.invoke(text).content == text
        assert server.invoke(iter([text[:1000], text[1000:]])).content == text


def test_slow_clients_hold_no_slot(image: str, ml: Path) -> None:
    with Server(image, ml, SAGEMAKER_MODEL_SERVER_WORKERS=1) as server:
        slow = [socket.create_connection((server.address, 8080)) for _ in range(200)]
        try:
            for client in slow[:100]:
                client.sendall(b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n[")
            for client in slow[100:]:
                client.sendall(b"POST /invocations HT")
            for _ in range(50):
                assert server.invoke(timeout=10).status_code == 200
                assert server.ping() == 200
            slow[0].sendall(b"1]")
            assert slow[0].recv(1000).endswith(b"[1]")
        finally:
            for client in slow:
                client.close()


def test_a_client_that_does_not_read_holds_no_slot(image: str, ml: Path) -> None:
    source = """
    def model_fn(model_dir):
        return None
    def predict_fn(data, model):
        return "x" * data
    """
    with (
        Server(image, ml, source, SAGEMAKER_MODEL_SERVER_WORKERS=1) as server,
        socket.create_connection((server.address, 8080)) as deaf,
    ):
        deaf.sendall(b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\n50000000")
        time.sleep(0.3)
        assert server.invoke(b"3", timeout=10).json() == "xxx"
        received = 0
        while received < 50_000_000:
            received += len(deaf.recv(1 << 20))


def test_the_log_has_one_line_a_request_and_no_data(image: str, ml: Path) -> None:
    settings = {"SAGEMAKER_MODEL_SERVER_ACCESS_LOG": "json", "SAGEMAKER_MODEL_SERVER_WORKERS": 1}
    with Server(image, ml, **settings) as server:
        for _ in range(3):
            assert server.invoke(b'"private"', X_Custom="private").status_code == 200
        server.get("/nothing?private")
        server.wait_for_log('"/nothing"')
        lines = [line for line in server.log().output.splitlines() if line.startswith("{")]
        records = [json.loads(line) for line in lines]
        assert [(r["method"], r["path"], r["status"]) for r in records] == [
            *[("POST", "/invocations", 200)] * 3,
            ("GET", "/nothing", 404),
        ]
        assert "private" not in server.log().output


def test_workers_fit_the_memory(image: str, ml: Path) -> None:
    source = """
    def model_fn(model_dir):
        return bytearray(b"x") * (60 << 20)
    def predict_fn(data, model):
        return len(model)
    """
    limits = ("--memory=150m", "--memory-swap=150m")
    with Server(image, ml, source, *limits) as server:
        server.wait_for_log("ready: workers 1 (")
        server.wait_for_log("fit into 150 MB")


def test_preload_shares_one_model(image: str, ml: Path) -> None:
    source = """
    import os
    def model_fn(model_dir):
        return os.getpid(), bytearray(b"x") * (60 << 20)
    def predict_fn(data, model):
        return [model[0], len(model[1]), os.getuid()]
    """
    limits = ("--memory=200m", "--memory-swap=200m")
    settings = {"SAGEMAKER_MODEL_SERVER_PRELOAD": "true", "SAGEMAKER_MODEL_SERVER_WORKERS": 4}
    with Server(image, ml, source, *limits, **settings) as server:
        eventually(lambda: len(server.workers()) == 4)
        assert {tuple(server.invoke().json()) for _ in range(20)} == {(1, 60 << 20, 12345)}
    with Server(image, ml, source, *limits, hardened=False, **settings) as server:
        assert server.invoke().json()[2] == 1000


def test_a_shared_model_that_does_not_load_ends_the_container(image: str, ml: Path) -> None:
    source = "def model_fn(model_dir):\n    raise RuntimeError('weights are broken')\n"
    with Server(image, ml, source, ready=False, SAGEMAKER_MODEL_SERVER_PRELOAD="true") as server:
        assert server.wait() not in (0, 137)
        log = server.log().output
        assert log.count("Traceback") == 1
        assert log.splitlines()[-1] == "optml: error: the model does not load: RuntimeError, see above"


def test_root_without_capabilities_serves(image: str, ml: Path) -> None:
    options = ("--cap-drop=ALL", "--read-only", "--tmpfs=/tmp")
    with Server(image, ml, ECHO, *options, hardened=False) as server:
        assert server.invoke().status_code == 200
        server.wait_for_log("workers stay root")


def test_requirements_are_installed_once(image: str, ml: Path) -> None:
    code = ml / "model" / "code"
    code.mkdir()
    file = wheel(code, "greeting", hello="said = 'hello'\n")
    (code / "logging.py").write_text("raise SystemExit('the model is no part of pip')\n")
    requirements = code / "requirements.txt"
    requirements.write_text(f"--no-index\n./{file}\n")  # relative to the file, as pip resolves it
    source = "import hello\n" + ECHO.replace("return data", "return hello.said")
    with Server(image, ml, source, SAGEMAKER_MODEL_SERVER_WORKERS=2) as server:
        assert server.invoke().json() == "hello"
        assert server.log().output.count("installing /opt/ml/model/code/requirements.txt") == 1
    with Server(image, ml, source, hardened=False) as server:
        assert server.invoke().json() == "hello"
    requirements.write_text("--no-index\nno-such-distribution\n")
    with Server(image, ml, source, ready=False) as server:
        assert server.wait() not in (0, 137)
        server.wait_for_log("cannot install /opt/ml/model/code/requirements.txt")
        assert "Traceback" not in server.log().output


def test_idle_workers_end_quickly(image: str, ml: Path) -> None:
    with Server(image, ml) as server:
        server.stop(grace=5)
        assert server.wait() == 0
