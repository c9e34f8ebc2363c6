"""HTTP itself, byte for byte on raw sockets."""

from __future__ import annotations

import http.client
import json
import socket
import time
from contextlib import closing
from pathlib import Path

import pytest

from .serving import Server

pytestmark = pytest.mark.image("cpu-serve")

TALKER = """
def model_fn(model_dir):
    return None

def predict_fn(data, model):
    return data

def stream_fn(stream, model):
    for message in stream:
        stream.send(message.upper())
"""
HANDSHAKE = (
    b"GET /invocations-bidirectional-stream HTTP/1.%d\r\nHost: x\r\n"
    b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def exchange(server: Server, data: bytes, end: bytes = b"\r\n\r\n") -> bytes:
    """What comes back for these bytes, up to `end` or the end of the connection."""
    received = b""
    with socket.create_connection((server.address, 8080), timeout=20) as client:
        client.sendall(data)
        while end not in received and (more := client.recv(9999)):
            received += more
    return received


def test_what_is_refused_is_refused_by_the_server_as_built(image: str, ml: Path) -> None:
    """One of each kind; the unit tests of the parsers have them all."""
    post = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    cases = {
        b"GET /ping HTTP/1.1\r\n\r\n": 400,
        post + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n": 400,
        post + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n": 501,
        post + b"Transfer-Encoding: chunked\r\n\r\n3\n[1]\r\n0\r\n\r\n": 400,
        b"GET /ping HTTP/1.1\nHost: x\n\n": 400,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n": 505,
        b"GET /ping HTTP/1.0\r\n\r\n": 200,
        b"GET /ping HTTP/1.2\r\nHost: x\r\n\r\n": 200,
    }
    with Server(image, ml) as server:
        for data, status in cases.items():
            assert exchange(server, data).startswith(b"HTTP/1.1 %d " % status), data


def test_a_session_begins_with_what_came_with_its_handshake(image: str, ml: Path) -> None:
    frame = b"\x81\x85\0\0\0\0early"
    with Server(image, ml, TALKER) as server:
        answer = exchange(server, HANDSHAKE % 1 + frame, b"EARLY")
        assert answer.startswith(b"HTTP/1.1 101 ") and answer.endswith(b"\r\n\r\n\x81\x05EARLY")
        assert exchange(server, HANDSHAKE % 0).startswith(b"HTTP/1.1 426 ")


def test_a_connection_outlives_a_call_of_any_length(image: str, ml: Path) -> None:
    """A client that waits for an answer is not silent. The handler shortens the time allowed for silence."""
    source = """
        import sys, time
        patched = [module for module in list(sys.modules.values()) if hasattr(module, "_SILENCE")]
        for module in patched:
            assert module._SILENCE > 60
            module._SILENCE = 4.0

        def model_fn(model_dir):
            assert patched

        def predict_fn(data, model):
            time.sleep(data)
            return data
    """
    with (
        Server(image, ml, source, SAGEMAKER_MODEL_SERVER_WORKERS=1) as server,
        closing(http.client.HTTPConnection(server.address, 8080, timeout=30)) as client,
    ):
        client.connect()
        client.auto_open = False
        for seconds in (5, 0):
            client.request("POST", "/invocations", json.dumps(seconds), {"Content-Type": "application/json"})
            assert json.loads(client.getresponse().read()) == seconds
            time.sleep(1)  # several checks for silent clients
