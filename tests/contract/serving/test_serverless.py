"""A serverless endpoint: one worker, nothing writable but /tmp, no /dev/shm, no semaphores.

All other tests of serving run under the same limits with `make test/contract PYTEST=--serverless`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.docker import SERVERLESS

from .serving import Server, eventually

HANDLERS = """
import multiprocessing, os, tempfile

def model_fn(model_dir):
    assert not os.path.exists("/dev/shm")
    try:
        multiprocessing.Lock()
    except OSError:
        return tempfile.gettempdir()

def predict_fn(data, model):
    return [len(data), model]

def stream_fn(stream, model):
    for message in stream:
        stream.send(message)
"""


@pytest.mark.image("cpu-serve")
def test_all_works_with_what_a_serverless_endpoint_has(image: str, ml: Path) -> None:
    with Server(image, ml, HANDLERS, *SERVERLESS, hardened=False, SAGEMAKER_MODEL_SERVER_WORKERS=1) as server:
        assert server.invoke(b"[1]").json() == [1, "/tmp"]
        assert server.invoke(b'"%s"' % (b"x" * (4 << 20))).json() == [4 << 20, "/tmp"]  # through a file
        assert "optml_requests_total" in server.get("/metrics").text
        with server.talk() as session:
            session.send("hello")
            assert session.recv() == "hello"
        [before] = server.workers()
        server.kill_process(before)
        eventually(lambda: server.workers() not in ([], [before]) and server.ping() == 200)
        assert server.invoke(b"[1]").json() == [1, "/tmp"]
        assert "Traceback" not in server.log().output
        server.stop()
        assert server.wait() == 0
