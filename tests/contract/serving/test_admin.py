"""What is served besides calls: /execution-parameters, /metrics, the page, unknown paths; and traces."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from .serving import ECHO, Server, eventually

pytestmark = pytest.mark.image("cpu-serve")


def metrics(server: Server) -> dict[str, float]:
    answer = server.get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    lines = [line for line in answer.text.splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r'[a-z_]+(\{status="\d{3}"\})? [0-9.]+', line) for line in lines)
    return {name: float(value) for name, _, value in (line.partition(" ") for line in lines)}


def calls(said: dict[str, float]) -> tuple[float, float]:
    """Calls that are running, and calls that are waiting."""
    return said["optml_calls_in_flight"], said["optml_calls_queued"]


def test_other_paths_and_methods_are_refused_as_json(image: str, ml: Path) -> None:
    with Server(image, ml) as server:
        absent = server.get("/nothing")
        assert (absent.status_code, absent.json()["type"]) == (404, "NotFound")
        assert absent.json()["message"] == "There is nothing at /nothing."
        for path, allowed in (("/invocations", "POST"), ("/execution-parameters", "GET")):
            wrong = requests.put(f"{server.url}{path}", timeout=20)
            assert (wrong.status_code, wrong.json()["code"]) == (405, 405)
            assert allowed in wrong.headers["Allow"]
        assert requests.head(f"{server.url}/invocations", timeout=20).status_code == 405
        lines = server.log().output.splitlines()
        assert [line for line in lines if not re.match("optml: (ready|GET|PUT|HEAD)", line)] == []


def test_the_control_plane_is_imported_by_whoever_asks_for_it(image: str, ml: Path) -> None:
    source = ECHO.replace(
        "return data", "import sys; return any(name.endswith('deps.flask') for name in sys.modules)"
    )
    with Server(image, ml, source, SAGEMAKER_MODEL_SERVER_WORKERS=1) as server:
        assert server.invoke().json() is False
        server.get("/nothing")
        assert server.invoke().json() is True


def test_a_slow_control_plane_holds_up_nobody(image: str, ml: Path) -> None:
    source = (
        ECHO
        + """
import time
def ping_fn(model):
    return True
def execution_parameters_fn():
    time.sleep(6)
    raise ValueError("private")
"""
    )
    with Server(image, ml, source, SAGEMAKER_MODEL_SERVER_WORKERS=1) as server, ThreadPoolExecutor(1) as pool:
        slow = pool.submit(requests.get, f"{server.url}/execution-parameters", timeout=20)
        time.sleep(0.3)
        for _ in range(20):
            assert server.ping() == 200
            assert server.invoke().status_code == 200
        assert not slow.done()
        assert slow.result().status_code == 500
        assert "private" not in slow.result().text


def test_metrics_count_for_all_workers(image: str, ml: Path) -> None:
    source = """
    import time
    def model_fn(model_dir):
        return None
    def predict_fn(data, model):
        time.sleep(data)
        return data
    """
    with Server(image, ml, source, SAGEMAKER_MODEL_SERVER_WORKERS=2) as server, ThreadPoolExecutor(6) as pool:
        eventually(lambda: metrics(server)["optml_workers_ready"] == 2)
        for _ in range(5):
            assert server.invoke(b"0.1").status_code == 200
        assert server.invoke(b"{").status_code == 400
        running = [pool.submit(server.invoke, b"1.5") for _ in range(6)]
        eventually(lambda: calls(metrics(server)) == (2, 4))
        assert all(answer.result().status_code == 200 for answer in running)
        eventually(lambda: metrics(server).get('optml_requests_total{status="200"}', 0) >= 11)
        said = metrics(server)
        assert said['optml_requests_total{status="400"}'] == 1
        assert calls(said) == (0, 0)
        assert said["optml_model_seconds_count"] == 12
        assert 5 * 0.1 + 6 * 1.5 < said["optml_model_seconds_sum"] < 30
        assert 0.5 < said["optml_queue_seconds_sum"] < 30
        # What was counted outlives the worker that counted it.
        server.kill_process(server.workers()[0])
        eventually(lambda: metrics(server)["optml_worker_restarts_total"] == 1)
        assert metrics(server)["optml_model_seconds_count"] == 12


def test_metrics_count_who_was_refused_while_the_model_loaded(image: str, ml: Path) -> None:
    source = ECHO.replace("return None", "import time; time.sleep(3)")
    with Server(image, ml, source, ready=False, SAGEMAKER_MODEL_SERVER_WORKERS=1) as server:
        eventually(lambda: server.ping() == 503)
        refused = [server.invoke().status_code for _ in range(3)]
        eventually(lambda: server.ping() == 200)
        said = metrics(server)
        assert refused == [503] * 3
        assert said['optml_requests_total{status="503"}'] == 3
        assert said["optml_workers_ready"] == 1


@pytest.mark.parametrize(
    ("environment", "status"),
    [
        ({"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/credentials/x"}, 200),
        ({"SAGEMAKER_SAFE_PORT_RANGE": "9000-9999", "SAGEMAKER_MODEL_SERVER_METRICS": "true"}, 200),
        ({"SAGEMAKER_MODEL_SERVER_METRICS": "false"}, 404),
    ],
)
def test_metrics_are_switched(image: str, ml: Path, environment: dict[str, str], status: int) -> None:
    with Server(image, ml, **environment) as server:
        assert server.get("/metrics").status_code == status


def test_the_trace_of_a_request_reaches_the_handlers(image: str, ml: Path) -> None:
    source = ECHO.replace("data, model", "data, model, context").replace(
        "return data", "return context.traceparent"
    )
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    with Server(image, ml, source) as server:
        assert server.invoke(traceparent=trace).json() == trace
        assert server.invoke().json() is None
        for broken in ("00-x-y-01", trace.replace("4bf92f3577b34da6a3ce929d0e0e4736", "0" * 32), trace + "z"):
            assert server.invoke(traceparent=broken).json() is None


def test_the_page_for_people_needs_nothing_from_elsewhere(image: str, ml: Path) -> None:
    with Server(image, ml, SAGEMAKER_MODEL_SERVER_WORKERS=1) as server:
        page = requests.get(server.url, timeout=20)
        assert page.headers["Content-Type"].startswith("text/html")
        assert "default-src 'none'" in page.headers["Content-Security-Policy"]
        assert not re.search(r"""(src|href)=["'](?!data:)|https?:|@import|url\(""", page.text)
        # Every field has a label.
        fields = re.findall(r'<(?:input|select|textarea) id="(\w+)"', page.text)
        assert len(fields) == 5 and all(f'<label for="{field}">' in page.text for field in fields)
        # /status has all that the script shows.
        shown = set(re.findall(r"said\.(\w+)", page.text))
        for _ in range(3):
            server.invoke()
        eventually(lambda: server.get("/status").json()["requests"].get("200", 0) >= 3)
        said = server.get("/status").json()
        assert shown == set(said)
        assert (said["workers"], said["slots"], len(said["recent"])) == (1, 1, 3)
        assert said["model"] == "/opt/ml/model, /opt/ml/model/code/inference.py"
        assert all(0 < seconds < 30 for seconds in said["recent"])


@pytest.mark.parametrize(
    ("environment", "status"),
    [
        ({"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/credentials/x"}, 404),
        ({"SAGEMAKER_SAFE_PORT_RANGE": "9000-9999", "SAGEMAKER_MODEL_SERVER_PAGE": "true"}, 200),
        ({"SAGEMAKER_MODEL_SERVER_PAGE": "false"}, 404),
    ],
)
def test_the_page_is_switched(image: str, ml: Path, environment: dict[str, str], status: int) -> None:
    with Server(image, ml, **environment) as server:
        for path in ("/", "/status", "/openapi.json"):
            assert server.get(path).status_code == status
