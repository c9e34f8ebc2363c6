"""Errors of the user's code are never taken for the client's: each is logged once, each call has one line."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest
import requests

from .serving import Server

pytestmark = pytest.mark.image("cpu-serve")

ERRORS = ("TimeoutError", "FileNotFoundError", "ConnectionResetError", "BrokenPipeError", "ValueError")

STREAMER = """
import builtins

def model_fn(model_dir):
    return None

def predict_fn(data, model):
    if data.startswith("whole "):
        raise getattr(builtins, data.split()[1])(data)
    return parts(data)

def parts(data):
    yield "first"
    raise getattr(builtins, data)(data)
"""

APP = """
class Parts:
    def __init__(self, parts):
        self.parts = iter(parts)
    def __iter__(self):
        return self
    def __next__(self):
        part = next(self.parts)
        if isinstance(part, Exception):
            raise part
        return part
    def close(self):
        print("parts are closed", flush=True)

def app(environ, start_response):
    if environ["PATH_INFO"] == "/ping":
        start_response("200 OK", [("Content-Length", "0")])
        return [b""]
    if environ["PATH_INFO"] == "/multiprocess":
        start_response("200 OK", [])
        return [str(environ["wsgi.multiprocess"]).encode()]
    if environ["PATH_INFO"] == "/early":
        raise FileNotFoundError("early")
    start_response("200 OK", [])
    return Parts([b"first", TimeoutError("late")])
"""


def lines_of(server: Server, path: str) -> list[str]:
    """The statuses in the access log for this path."""
    return re.findall(rf"^optml: POST {path} (\d+) ", server.log().output, re.MULTILINE)


def test_every_exception_of_a_handler_or_a_stream_is_logged_once(image: str, ml: Path) -> None:
    with Server(image, ml, STREAMER, SAGEMAKER_MODEL_SERVER_WORKERS=1) as server:
        for error in ERRORS:
            assert server.invoke(f'"whole {error}"').status_code == 500
            with pytest.raises(requests.exceptions.ChunkedEncodingError):
                server.invoke(f'"{error}"')
        server.wait_for_log("POST /invocations 500")
        metrics = server.get("/metrics").text
        assert f'optml_requests_total{{status="500"}} {2 * len(ERRORS)}' in metrics
        log = server.log().output
        for error in ERRORS:
            assert log.count(f"\n  {error}: whole {error}") == 1
            assert log.count(f"\n  {error}: {error}") == 1
        assert len(re.findall(r"request \S+ failed", log)) == 2 * len(ERRORS)


def test_a_client_that_leaves_is_no_fault_and_has_a_line(image: str, ml: Path) -> None:
    source = """
    import time
    def model_fn(model_dir):
        return None
    def predict_fn(data, model):
        for _ in range(data):
            time.sleep(0.05)
            yield "x" * 10000
    """
    with Server(image, ml, source, SAGEMAKER_MODEL_SERVER_WORKERS=1) as server:
        with socket.create_connection((server.address, 8080)) as client:
            client.sendall(b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n900")
            client.recv(100)
        server.wait_for_log("POST /invocations 499")
        assert "failed" not in server.log().output
        assert server.invoke(b"1").status_code == 200


def test_errors_of_an_application_are_logged_and_its_parts_closed(image: str, ml: Path) -> None:
    code = ml / "model" / "code"
    code.mkdir()
    (code / "own.py").write_text(APP)
    settings = {"SAGEMAKER_SERVING_MODULE": "own:app", "SAGEMAKER_MODEL_SERVER_WORKERS": 2}
    with Server(image, ml, **settings) as server:
        assert server.get("/multiprocess").text == "True"
        assert requests.post(f"{server.url}/early", timeout=10).status_code == 500
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            requests.post(f"{server.url}/late", timeout=10)
        server.wait_for_log("POST /late")
        log = server.log().output
        assert log.count("\n  FileNotFoundError: early") == 1
        assert log.count("\n  TimeoutError: late") == 1
        assert log.count("parts are closed") == 1
        assert (lines_of(server, "/early"), lines_of(server, "/late")) == (["500"], ["500"])


def test_what_cannot_change_is_not_tried_again(image: str, ml: Path) -> None:
    for source, error in (("import no_such_thing", "ModuleNotFoundError"), ("def model_fn(:", "SyntaxError")):
        with Server(image, ml, source, ready=False) as server:
            assert server.wait() not in (0, 137)
            log = server.log().output
            assert log.count("the model does not load") == 1
            assert log.count(error) >= 1
    with Server(image, ml, ready=False, SAGEMAKER_SERVING_MODULE="nope:app") as server:
        assert server.wait() not in (0, 137)
        lines = server.log().output.splitlines()
        assert [line for line in lines if line.startswith("optml: error:")] == lines
        assert len(lines) == 1 and "nope:app" in lines[0]
