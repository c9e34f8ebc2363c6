"""Bidirectional streaming: sessions with a real WebSocket client, and the slots that they take."""

from __future__ import annotations

import json
import re
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
import requests
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection

from tests.support.docker import Container, docker

from .serving import ECHO, STREAM, Server, eventually

pytestmark = pytest.mark.image("cpu-serve")

# The messages of a session say what it does.
TALKER = """
import json, os, threading, time
from optml.serving import InferenceError

def model_fn(model_dir):
    return "model"

def predict_fn(data, model):
    time.sleep(float(data))
    return data

def push(stream, count):
    for number in range(count):
        time.sleep(0.1)
        stream.send(str(number))

def stream_fn(stream, model, context):
    for message in stream:
        if message == "return":
            return
        elif message == "leak":
            return "an answer"
        elif message == "raise":
            raise ValueError("secret of the user")
        elif message == "refuse":
            raise InferenceError("\\u00e4" * 100, 422)
        elif message == "hang":
            time.sleep(600)
        elif message == "compute":
            time.sleep(3)
        elif message == "push":
            threading.Thread(target=push, args=(stream, 30)).start()
        elif message == "flood":
            while True:
                stream.send(b"x" * (1 << 20))
        elif message == "who":
            sent = context.request_headers
            stream.send(json.dumps([model, sent["X-Own"], context.traceparent, context.request_id]))
        elif message == "where":
            stream.send(json.dumps([context.path, context.query]))
        elif message == "open":
            threads, files = len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))
            stream.send(json.dumps([threads, files]))
        else:
            stream.send(message)
    stream.send("goodbye")
"""
ONE = {"SAGEMAKER_MODEL_SERVER_WORKERS": 1}


def ready(server: Server) -> int:
    """The number of workers that are ready."""
    counted = server.get("/metrics").text
    return int(counted.partition("\noptml_workers_ready ")[2].partition("\n")[0])


def ask(client: ClientConnection, message: str | bytes) -> Any:
    client.send(message)
    return client.recv(timeout=20)


def ended(client: ClientConnection) -> tuple[int, str]:
    """The code and reason with which the server ends the session."""
    with pytest.raises(ConnectionClosed):
        client.recv(timeout=20)
    assert client.protocol.close_rcvd is not None, "the connection was cut off"
    return client.protocol.close_rcvd.code, client.protocol.close_rcvd.reason


def handshake(**changed: str | None) -> dict[str, str]:
    """The headers of a proper handshake, some of them changed or left out."""
    proper: dict[str, str | None] = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version": "13",
    }
    proper |= {name.replace("_", "-"): value for name, value in changed.items()}
    return {name: value for name, value in proper.items() if value is not None}


def get(server: Server, **changed: str | None) -> requests.Response:
    return server.get(STREAM, headers=handshake(**changed))


def test_whole_messages_come_and_go(image: str, ml: Path) -> None:
    settings = {"SAGEMAKER_MODEL_SERVER_ACCESS_LOG": "json", **ONE}
    with Server(image, ml, TALKER, **settings) as server:
        with server.talk(max_size=None) as client:
            assert ask(client, "hellö") == "hellö"
            assert ask(client, b"\x00\xff") == b"\x00\xff"
            assert ask(client, "") == ""
            client.send(["in ", "three ", "pieces"])  # each a frame of its own
            assert client.recv(timeout=20) == "in three pieces"
            client.send([b"in", b" two"])
            assert client.recv(timeout=20) == b"in two"
            large = bytes(range(256)) * (40 << 10)  # 10 MiB
            assert ask(client, large) == large
            for number in range(500):
                client.send(str(number))
            assert [client.recv(timeout=20) for _ in range(500)] == [str(n) for n in range(500)]
            client.send("return")
            assert ended(client) == (1000, "")
        with server.talk() as client:
            assert ask(client, "again") == "again"
        # The same worker still answers calls, and has logged one line for each session.
        assert server.invoke(b"0").status_code == 200
        eventually(lambda: server.log().output.count('"status": ') == 3)
        records = [json.loads(line) for line in server.log().output.splitlines() if line.startswith("{")]
        assert [(r["method"], r["path"], r["status"]) for r in records] == [
            ("GET", STREAM, 101),
            ("GET", STREAM, 101),
            ("POST", "/invocations", 200),
        ]
        counted = server.get("/metrics").text
        assert 'optml_requests_total{status="101"} 2\n' in counted
        assert "optml_calls_in_flight 0\n" in counted
        assert "Traceback" not in server.log().output and "websockets" not in server.log().output


def test_pings_are_answered_while_the_model_computes(image: str, ml: Path) -> None:
    with Server(image, ml, TALKER) as server, server.talk(ping_interval=None) as client:
        client.send("compute")
        client.send("next")
        began = time.monotonic()
        assert client.ping(b"sagemaker").wait(20)
        ponged = time.monotonic()
        assert client.recv(timeout=20) == "next"
        assert ponged - began < (time.monotonic() - began) / 2


def test_both_talk_at_once(image: str, ml: Path) -> None:
    with Server(image, ml, TALKER) as server, server.talk() as client:
        client.send("push")
        assert [client.recv(timeout=20) for _ in range(3)] == ["0", "1", "2"]  # without being asked
        client.send("between")
        heard = [client.recv(timeout=20) for _ in range(28)]
        assert [word for word in heard if word != "between"] == [str(n) for n in range(3, 30)]
        assert heard.index("between") < 20


def test_a_session_may_have_any_path_but_those_of_other_routes(image: str, ml: Path) -> None:
    with Server(image, ml, TALKER, **ONE) as server:
        for path, query in ((STREAM, ""), ("/chat/v1", "user=7&voice=a%20b"), ("/metrics/mine", "")):
            with server.talk(f"{path}?{query}" if query else path) as client:
                assert json.loads(ask(client, "where")) == [path, query]
        for path in ("/metrics", "/execution-parameters"):
            refused = server.get(path, headers=handshake())
            assert refused.status_code == 400
        assert server.get("/chat/v1").status_code == 404


def test_the_context_is_that_of_any_call(image: str, ml: Path) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    with Server(image, ml, TALKER) as server:
        with server.talk(additional_headers={"X-Own": "kept", "traceparent": trace}) as client:
            model, own, traced, id = json.loads(ask(client, "who"))
        assert (model, own, traced) == ("model", "kept", trace)
        eventually(lambda: bool(re.search(f"GET {STREAM} 101 .* {id}\n", server.log().output)))


def test_what_is_no_handshake_is_refused_as_json(image: str, ml: Path) -> None:
    with Server(image, ml, TALKER, **ONE) as server, server.talk() as client:
        # The only slot is taken, but none of these needs one.
        assert ask(client, "there") == "there"
        plain = server.get(STREAM)
        assert (plain.status_code, plain.headers["Upgrade"]) == (426, "websocket")
        assert plain.json()["type"] == "UpgradeRequired"
        for broken in (
            {"Sec_WebSocket_Key": None},
            {"Sec_WebSocket_Key": "short"},
            {"Sec_WebSocket_Version": "12"},
            {"Sec_WebSocket_Version": None},
        ):
            refused = get(server, **broken)
            assert (refused.status_code, refused.json()["code"]) == (400, 400), broken
            assert "Sec-WebSocket" in refused.json()["message"]
        posted = requests.post(f"{server.url}{STREAM}", headers=handshake(), timeout=20)
        assert (posted.status_code, posted.headers["Allow"]) == (405, "GET")
    source = ECHO.replace("return data", "import sys; return 'websockets' in sys.modules")
    with Server(image, ml, source) as server:
        assert server.invoke().json() is False  # a model without stream_fn does not pay for it
        absent = get(server)
        assert (absent.status_code, absent.json()["message"]) == (404, f"There is nothing at {STREAM}.")
    with Server(image, ml, TALKER, SAGEMAKER_MULTI_MODEL="true") as server:
        assert get(server).status_code == 404


def test_503_while_the_model_loads(image: str, ml: Path) -> None:
    source = TALKER.replace("return", "time.sleep(8)\n    return", 1)
    with Server(image, ml, source, ready=False) as server:
        eventually(lambda: server.ping() == 503, timeout=10)
        assert get(server).status_code == 503
        eventually(lambda: server.ping() == 200)
        with server.talk() as client:
            assert ask(client, "loaded") == "loaded"


@pytest.mark.alone  # a worker starved of CPU cannot take over what another leaves to it
def test_a_session_takes_a_slot_until_its_client_has_gone(image: str, ml: Path) -> None:
    with Server(image, ml, TALKER, SAGEMAKER_MODEL_SERVER_WORKERS=2) as server:
        eventually(lambda: ready(server) == 2)
        with ExitStack() as stack:
            first = stack.enter_context(server.talk())
            assert ask(first, "one") == "one"
            # A call and a session must find the other worker, even over a connection to the first.
            kept = requests.Session()
            for _ in range(10):
                assert kept.post(f"{server.url}/invocations", json=0, timeout=20).status_code in (200, 503)
            assert kept.post(f"{server.url}/invocations", json=0, timeout=20).status_code == 200
            second = stack.enter_context(server.talk())
            assert ask(second, "two") == "two"
            for refused in (get(server), server.invoke(b"0")):
                assert (refused.status_code, refused.json()["code"]) == (503, 503)
                assert refused.headers["Retry-After"] == "1"
            with pytest.raises(InvalidStatus, match="503"):
                server.talk()
            assert server.ping() == 200
            # Cut off, as by a client that was killed: no closing handshake.
            second.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            second.socket.shutdown(socket.SHUT_RD)
            second.socket.close()
            eventually(lambda: server.invoke(b"0").status_code == 200)
            with server.talk() as third:
                assert ask(third, "three") == "three"
            assert ask(first, "still here") == "still here"
        assert "Traceback" not in server.log().output


def test_calls_are_waited_for_as_by_any_call(image: str, ml: Path) -> None:
    with Server(image, ml, TALKER, **ONE) as server, ThreadPoolExecutor(1) as pool:
        running = pool.submit(server.invoke, b"3")
        time.sleep(0.5)
        with server.talk() as client:
            assert ask(client, "now") == "now"
            assert running.result().status_code == 200


@pytest.mark.one_variant  # TCP is the kernel's
def test_a_vanished_host_is_noticed(image: str, ml: Path) -> None:
    """The client's cable is pulled: the only sign is that pings go unanswered."""
    program = f"""
import sys
sys.path.append("/opt/optml/deps")
from websockets.sync.client import connect
client = connect(f"ws://{{sys.argv[1]}}:8080{STREAM}")
client.send("here")
print(client.recv(), flush=True)
client.recv()
"""
    with Server(image, ml, TALKER, **ONE) as server:
        options = ("--entrypoint=/usr/bin/python3",)
        with Container(image, "-c", program, server.address, options=options) as client:
            client.wait_for_log("here")
            assert get(server).status_code == 503
            docker("network", "disconnect", "--force", "bridge", client.name)
            eventually(lambda: server.invoke(b"0").status_code == 200, timeout=120)
        assert "Traceback" not in server.log().output


def test_a_message_over_the_limit_is_1009(image: str, ml: Path) -> None:
    with Server(image, ml, TALKER, SAGEMAKER_MAX_PAYLOAD_IN_MB=1, **ONE) as server:
        with server.talk(max_size=None) as client:
            limit = b"x" * (1 << 20)
            assert ask(client, limit) == limit
            client.send(limit + b"x")
            assert ended(client)[0] == 1009
        with server.talk() as client:
            with suppress(ConnectionClosed):  # while it sends the last piece
                client.send([b"x" * (1 << 19)] * 3)
            assert ended(client)[0] == 1009
        with server.talk() as client:
            assert ask(client, "next") == "next"


def test_a_client_that_breaks_the_protocol_harms_itself_alone(image: str, ml: Path) -> None:
    masked = b"\x80\0\0\0\0"
    for frame, code in (
        (b"\x83" + masked, 1002),  # an opcode that does not exist
        (b"\x81\0", 1002),  # without a mask
        (b"\x81\x81\0\0\0\0\xff", 1007),  # no UTF-8
    ):
        with Server(image, ml, TALKER, **ONE) as server:
            with server.talk() as client:
                client.socket.sendall(frame)
                assert ended(client)[0] == code
            with server.talk() as client:
                assert ask(client, "next") == "next"
            assert "Traceback" not in server.log().output


def test_an_exception_is_1011_and_its_traceback_in_the_log(image: str, ml: Path) -> None:
    with Server(image, ml, TALKER, **ONE) as server:
        for word, name in (("raise", "ValueError"), ("leak", "TypeError")):
            with server.talk(additional_headers={"X-Own": ""}) as client:
                id = json.loads(ask(client, "who"))[3]
                client.send(word)
                assert ended(client) == (1011, f"The model raised {name}; the log tells more. ({id})")
            server.wait_for_log(f"request {id} failed")
        server.wait_for_log("secret of the user")
        with server.talk() as client:
            client.send("refuse")
            assert ended(client) == (1011, "ä" * 61)  # as much as fits into 123 bytes
        eventually(lambda: server.log().output.count("Traceback") == 2)


def test_stop_tells_sessions_to_end(image: str, ml: Path) -> None:
    settings = {"SAGEMAKER_MODEL_SERVER_WORKERS": 2, "SAGEMAKER_MODEL_SERVER_THREADS": 2}
    with Server(image, ml, TALKER, **settings) as server, ExitStack() as stack:
        eventually(lambda: ready(server) == 2)
        clients = [stack.enter_context(server.talk()) for _ in range(3)]
        for client in clients:
            assert ask(client, "here") == "here"
        clients[0].send("compute")  # and is finished first
        time.sleep(0.3)
        server.kill("TERM")
        for client in clients:
            assert client.recv(timeout=20) == "goodbye"
            assert ended(client) == (1001, "")
        assert server.wait() == 0
        eventually(lambda: server.log().output.count(f"GET {STREAM} 101") == 3)


@pytest.mark.heavy
def test_a_session_over_its_time_is_ended_and_the_worker_replaced(image: str, ml: Path) -> None:
    settings = {"SAGEMAKER_MODEL_SERVER_TIMEOUT": 5, **ONE}
    with Server(image, ml, TALKER, **settings) as server:
        before = server.workers()
        with server.talk() as client:
            time.sleep(6)  # the client may take its time
            assert ask(client, "slow") == "slow"
            client.send("compute")  # each is within the limit
            client.send("compute")
            assert ask(client, "done") == "done"
            client.send("hang")
            code, reason = ended(client)
            assert code == 1011 and "SAGEMAKER_MODEL_SERVER_TIMEOUT" in reason
        eventually(lambda: server.workers() not in ([], before) and server.invoke(b"0").status_code == 200)
        assert server.log().output.count(f"GET {STREAM} 101") == 1
        assert "Traceback" not in server.log().output


def test_a_client_that_does_not_read_loses_its_session_and_nothing_else(image: str, ml: Path) -> None:
    settings = {"SAGEMAKER_MODEL_SERVER_TIMEOUT": 2, **ONE}
    with Server(image, ml, TALKER, **settings) as server:
        before = server.workers()
        with socket.create_connection((server.address, 8080)) as deaf:
            lines = "".join(f"{name}: {value}\r\n" for name, value in handshake(Host="x").items())
            deaf.sendall(f"GET {STREAM} HTTP/1.1\r\n{lines}\r\n".encode())
            assert deaf.recv(12) == b"HTTP/1.1 101"
            deaf.sendall(b"\x81\x85\0\0\0\0flood")
            time.sleep(0.5)
            eventually(lambda: server.invoke(b"0").status_code == 200)
        assert server.workers() == before
        assert "Traceback" not in server.log().output


@pytest.mark.heavy
def test_200_sessions_leave_nothing_behind(image: str, ml: Path) -> None:
    settings = {"SAGEMAKER_MODEL_SERVER_THREADS": 4, **ONE}
    with Server(image, ml, TALKER, **settings) as server:
        stop, lock, done = threading.Event(), threading.Lock(), [0]

        def visit() -> list[int]:
            with server.talk() as client:
                opened: list[int] = json.loads(ask(client, "open"))
                assert ask(client, "x" * 1000) == "x" * 1000
                with lock:
                    done[0] += 1
                if done[0] % 3 == 0:  # ended by the server, by the client, and by nobody
                    client.send("return")
                    assert ended(client)[0] == 1000
                elif done[0] % 3 == 1:
                    client.socket.shutdown(socket.SHUT_RDWR)
                return opened

        def visits() -> None:
            while not stop.is_set() and done[0] < 200:
                visit()

        visit()
        eventually(lambda: server.log().output.count(f"GET {STREAM} 101") == 1)
        before = visit()
        with ThreadPoolExecutor(4) as pool:
            try:
                for visitor in [pool.submit(visits) for _ in range(4)]:
                    visitor.result()
            finally:
                stop.set()
        assert done[0] >= 200
        eventually(lambda: server.log().output.count(f"GET {STREAM} 101") == done[0])
        time.sleep(0.5)
        assert visit() == before
        assert "Traceback" not in server.log().output
