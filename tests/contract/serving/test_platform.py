"""The platform's rules: ports, /ping, /invocations, headers, streaming, batch, stopping."""

from __future__ import annotations

import os
import socket
import textwrap
import time
from pathlib import Path

import pytest
import requests

from tests.support.docker import Result, run

from .serving import ECHO, Server, eventually, listening, write_handlers

pytestmark = pytest.mark.image("cpu-serve")


def test_ping_is_empty_and_an_invocation_comes_back(image: str, ml: Path) -> None:
    with Server(image, ml) as server:
        ping = server.get("/ping")
        assert (ping.status_code, ping.content) == (200, b"")
        answer = server.invoke(b'{"a": [1, 2.5]}')
        assert answer.json() == {"a": [1, 2.5]}
        assert answer.headers["Content-Type"] == "application/json"
        assert "Traceback" not in server.log().output


@pytest.mark.parametrize("safe", ["9100-9199", "9200-9299"])
def test_the_port_comes_from_the_platform_and_is_the_only_one(image: str, ml: Path, safe: str) -> None:
    """The range is for additional ports, of which there are none; the port itself need not be in it."""
    ports = {"SAGEMAKER_BIND_TO_PORT": 9123, "SAGEMAKER_SAFE_PORT_RANGE": safe}
    with Server(image, ml, **ports) as server:
        assert server.invoke().status_code == 200
        assert server.get("/execution-parameters").status_code == 200
        assert listening(server) == [9123]


def test_a_pipeline_hands_each_answer_to_the_next_container(image: str, ml: Path) -> None:
    first = """
    def model_fn(model_dir):
        return {"red": 0, "green": 1}
    def input_fn(body, content_type):
        assert content_type == "text/csv", content_type
        return [line.split(",") for line in body.splitlines()]
    def predict_fn(data, model):
        return [[float(length), model[colour]] for length, colour in data]
    def output_fn(prediction, accept):
        return {"instances": [{"features": row} for row in prediction]}
    """
    second = """
    def model_fn(model_dir):
        return [2, 10]
    def predict_fn(data, model):
        rows = [each["features"] for each in data["instances"]]
        return [sum(w * x for w, x in zip(model, row)) for row in rows]
    """
    (ml / "second/model").mkdir(parents=True)
    with Server(image, ml, first, SAGEMAKER_BIND_TO_PORT=9001) as one:
        beside = f"--network=container:{one.name}"  # as the platform places them
        two = Server(image, ml / "second", second, beside, ready=False, SAGEMAKER_BIND_TO_PORT=9002)
        with two:
            two.url = f"http://{one.address}:9002"
            eventually(lambda: two.ping() == 200)
            handed = one.invoke(b"1.5,green\n2,red\n", Content_Type="text/csv")
            assert handed.json() == {"instances": [{"features": [1.5, 1]}, {"features": [2.0, 0]}]}
            answer = two.invoke(handed.content, Content_Type=handed.headers["Content-Type"])
            assert (answer.json(), answer.headers["Content-Type"]) == ([13.0, 4.0], "application/json")
            assert listening(one) == [9001, 9002]


def test_headers_reach_the_handlers_and_come_back(image: str, ml: Path) -> None:
    source = """
    def model_fn(model_dir, context):
        return context.model_dir

    def predict_fn(data, model, context):
        sent = context.request_headers
        context.response_headers["X-Amzn-SageMaker-New-Session-Id"] = "s-1"
        context.status = 201
        return [model, sent["x-amzn-sagemaker-custom-attributes"], sent.get("X-Unknown"), context.gpu_id]
    """
    with Server(image, ml, source) as server:
        answer = server.invoke(b"[]", X_Amzn_SageMaker_Custom_Attributes="trace=1", X_Unknown="kept")
        assert answer.status_code == 201
        assert answer.json() == ["/opt/ml/model", "trace=1", "kept", None]
        assert answer.headers["X-Amzn-SageMaker-New-Session-Id"] == "s-1"


def test_the_first_chunk_of_a_stream_leaves_at_once(image: str, ml: Path) -> None:
    source = """
    import time
    def model_fn(model_dir):
        return None
    def predict_fn(data, model):
        return data
    def output_fn(prediction, accept):
        yield "first\\n"
        time.sleep(4)
        yield b"second\\n"
    """
    with Server(image, ml, source) as server:
        began = time.monotonic()
        with requests.post(f"{server.url}/invocations", json=[], stream=True, timeout=10) as answer:
            chunks = answer.iter_content(None)
            assert next(chunks) == b"first\n"
            first = time.monotonic() - began
            assert list(chunks) == [b"second\n"]
            assert time.monotonic() - began - first > 1  # the second did not exist yet
            assert answer.headers["Transfer-Encoding"] == "chunked"


def test_execution_parameters_speak_the_dialect_of_the_caller(image: str, ml: Path) -> None:
    batch = {
        "SAGEMAKER_BATCH": "true",
        "SAGEMAKER_BATCH_STRATEGY": "MultiRecord",
        "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": 3,
        "SAGEMAKER_MAX_PAYLOAD_IN_MB": 7,
    }
    with Server(image, ml, **batch) as server:
        said = server.get("/execution-parameters").json()
        assert said == {"MaxConcurrentTransforms": 3, "BatchStrategy": "MultiRecord", "MaxPayloadInMB": 7}


def test_users_say_their_execution_parameters(image: str, ml: Path) -> None:
    source = ECHO + "\ndef execution_parameters_fn():\n    return {'BatchStrategy': 'SINGLE_RECORD'}\n"
    with Server(image, ml, source) as server:
        said = server.get("/execution-parameters").json()
        assert said == {"BatchStrategy": "SINGLE_RECORD"}


def test_the_user_may_have_a_word_on_health(image: str, ml: Path) -> None:
    source = (
        "import os\nos.path.exists('/tmp/once') or open('/tmp/once', 'w').close()\n"
        + ECHO
        + "\ndef ping_fn(model):\n    return os.path.exists('/tmp/once')\n"
    )
    with Server(image, ml, source, SAGEMAKER_MODEL_SERVER_WORKERS=1) as server:
        assert server.ping() == 200
        server.exec("rm", "/tmp/once")
        assert server.ping() == 503
        assert server.invoke().status_code == 200


def test_the_program_may_have_another_name_and_place(image: str, ml: Path) -> None:
    (ml / "model/own").mkdir()
    (ml / "model/own/handlers.py").write_text(ECHO)
    place = {"SAGEMAKER_PROGRAM": "handlers.py", "SAGEMAKER_SUBMIT_DIRECTORY": "/opt/ml/model/own"}
    with Server(image, ml, "raise SystemExit('the wrong file')", **place) as server:
        assert server.invoke(b"[2]").json() == [2]


def test_stop_while_the_model_loads(image: str, ml: Path) -> None:
    source = "import time\ndef model_fn(model_dir):\n    time.sleep(600)\n"
    with Server(image, ml, source, ready=False) as server:
        eventually(lambda: server.ping() == 503)
        began = time.monotonic()
        server.kill("TERM")
        assert server.wait() == 0
        assert time.monotonic() - began < 40  # not the whole time that running calls have


def test_stop_finishes_what_runs_and_exits_0(image: str, ml: Path) -> None:
    source = """
    import time
    def model_fn(model_dir):
        return None
    def predict_fn(data, model):
        time.sleep(data)
        return "done"
    """
    with Server(image, ml, source, SAGEMAKER_MODEL_SERVER_WORKERS=1) as server:
        with socket.create_connection((server.address, 8080)) as client:
            client.sendall(b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n2")
            time.sleep(0.5)
            server.kill("TERM")
            answer = b""
            while b'"done"' not in answer:
                more = client.recv(4096)
                assert more, f"cut off after {answer!r}"
                answer += more
        assert server.wait() == 0
        assert b"connection: close" in answer.lower()


def test_a_whole_application_may_be_brought(image: str, ml: Path) -> None:
    write_handlers(ml, "")
    app = """
    import flask
    app = flask.Flask(__name__)

    @app.get("/ping")
    def ping():
        return "mine"

    @app.post("/invocations")
    def invocations():
        return flask.jsonify(size=len(flask.request.get_data()))

    @app.get("/other")
    def other():
        raise ValueError("no")
    """
    (ml / "model" / "code" / "wsgi.py").write_text(textwrap.dedent(app))
    with Server(image, ml, "", SAGEMAKER_SERVING_MODULE="wsgi:app") as server:
        assert server.get("/ping").text == "mine"
        assert server.invoke(b"x" * 5000).json() == {"size": 5000}
        assert server.get("/other").status_code == 500


def test_root_serves_as_the_user_ml(image: str, ml: Path) -> None:
    source = """
    import os
    def model_fn(model_dir):
        return None
    def predict_fn(data, model):
        return [os.getuid(), os.getgid(), os.getgroups(), os.environ["HOME"]]
    """
    with Server(image, ml, source, hardened=False) as server:
        assert server.invoke().json()[:3] == [1000, 0, []]
    with Server(image, ml, source, "--user=0", hardened=False, SAGEMAKER_MODEL_SERVER_USER="root") as server:
        assert server.invoke().json()[0] == 0
    (ml / "model").chmod(0o700)
    # A folder that only the client may read: it is served as root, and the log says so.
    os.chown(ml / "model", 4321, 4321)
    with Server(image, ml, source, hardened=False) as server:
        assert server.invoke().json()[0] == 0
        server.wait_for_log("user ml cannot read /opt/ml/model: workers stay root")
    (ml / "model").chmod(0o755)


def _said(ended: Result) -> str:
    """The only line that a container writes that cannot start."""
    assert ended.code not in (0, 137), ended.output
    lines = ended.output.strip().splitlines()
    assert len(lines) == 1, ended.output
    return lines[0]


@pytest.mark.parametrize(
    ("variable", "words"),
    [
        ("SAGEMAKER_BIND_TO_PORT=http", "SAGEMAKER_BIND_TO_PORT='http'"),
        ("SAGEMAKER_BIND_TO_PORT=70000", "from 1 to 65535"),
        ("SAGEMAKER_MODEL_SERVER_WORKERS=0", "from 1 to 1000"),
        ("SAGEMAKER_MODEL_SERVER_TIMEOUT=-1", "seconds"),
        ("SAGEMAKER_MODEL_SERVER_ACCESS_LOG=xml", "none of text, json, off"),
    ],
)
def test_a_bad_setting_is_one_line(image: str, variable: str, words: str) -> None:
    assert words in _said(run(image, "serve", options=("--env", variable)))


def test_nothing_to_serve_is_one_line(image: str, ml: Path) -> None:
    assert "/opt/ml/model is empty" in _said(run(image, "serve"))
    (ml / "model" / "model.pkl").write_text("x")
    mount = f"--volume={ml}:/opt/ml:ro"
    assert "no inference.py in /opt/ml/model/code" in _said(run(image, "serve", options=(mount,)))
    write_handlers(ml, "predict_fn = 1")
    assert "predict_fn in" in _said(run(image, "serve", options=(mount,)))
    write_handlers(ml, "def predict_fn(data, model): return 1")
    assert "defines no model_fn" in _said(run(image, "serve", options=(mount,)))


def test_an_unreadable_model_is_one_line(image: str, ml: Path) -> None:
    (ml / "model").chmod(0o700)
    options = ("--user=12345", f"--volume={ml}:/opt/ml:ro")
    assert "cannot be read by uid 12345" in _said(run(image, "serve", options=options))
    (ml / "model").chmod(0o755)


def test_a_taken_port_is_one_line(image: str, ml: Path) -> None:
    with Server(image, ml) as server:
        ended = server.exec("serve", check=False)
        assert ended.code not in (0, 137)
        assert "port 8080 cannot be used" in ended.output
        assert "Traceback" not in ended.output
