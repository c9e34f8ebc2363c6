"""What cpu-serve adds to base: a server, and what the platform and Docker need to know about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import requests
from testinfra.host import Host

from tests.support.docker import HARDENED, Container, wait_for_ping
from tests.support.matrix import Cell

HANDLER = """
def model_fn(model_dir):
    return 2
def predict_fn(data, model):
    return [model * x for x in data]
"""


def test_serves_by_default(config: dict[str, Any]) -> None:
    assert config["Cmd"] == ["serve"]
    assert list(config["ExposedPorts"]) == ["8080/tcp"]
    for capability in ("accept-bind-to-port", "bidirectional-streaming"):
        assert config["Labels"][f"com.amazonaws.sagemaker.capabilities.{capability}"] == "true"


def test_the_server_is_the_runtimes_alone(host: Host) -> None:
    for name in ("gunicorn", "flask", "werkzeug", "websockets"):
        assert host.file(f"/opt/optml/deps/{name}").is_directory
        assert not host.exists(name)


def test_endpoints_and_health(cell: Cell, ml: Path) -> None:
    (ml / "model/code").mkdir()
    (ml / "model/code/inference.py").write_text(HANDLER)
    options = (*HARDENED, f"--volume={ml}:/opt/ml:ro", "--health-interval=1s", "--health-start-period=0s")
    with Container(cell.tag, "serve", options=options) as server:
        url = wait_for_ping(server)
        ping = requests.get(f"{url}/ping", timeout=10)
        assert (ping.status_code, ping.content) == (200, b"")
        answer = requests.post(f"{url}/invocations", json=[1, 2, 3], timeout=20)
        assert (answer.status_code, answer.json()) == (200, [2, 4, 6])
        server.wait_until_healthy()


def test_health_is_not_claimed_without_a_server(host: Host) -> None:
    assert host.run("/opt/optml/bin/healthcheck").rc != 0
