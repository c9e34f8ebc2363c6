"""The projects in examples/, used as a reader would use them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pytest
import requests

from tests.support.docker import HARDENED, Container, docker, inspect, run, wait_for_ping
from tests.support.locks import exclusive
from tests.support.matrix import ROOT

EXAMPLES = ROOT / "examples"


def put(ml: Path, channel: str, source: Path) -> None:
    """Copy a file into a channel."""
    (ml / "input/data" / channel).mkdir()
    (ml / "input/data" / channel / source.name).write_bytes(source.read_bytes())


@pytest.fixture
def example(image: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """The image of the example that the marker names, built on the variant under test."""
    name = request.node.get_closest_marker("example").args[0]
    variant = image.rpartition(":")[2]
    tag = f"optml-test-{name}:{variant}"
    docker("build", "--force-rm", "--build-arg", f"TAG={variant}", "--tag", tag, EXAMPLES / name, timeout=300)
    yield tag
    docker("rmi", "--force", tag)


def run_demo(image: str) -> str:
    """Run the demo; returns what it printed."""
    demo = subprocess.run(
        [EXAMPLES / "breast-cancer/demo", image.rpartition(":")[2]],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert demo.returncode == 0, demo.stdout + demo.stderr
    return demo.stdout


@pytest.mark.heavy
@pytest.mark.image("cpu-train")
def test_breast_cancer_from_data_to_answers(image: str) -> None:
    with exclusive("demo"):  # both variants leave their results in build/demo
        printed = run_demo(image)
        metrics = json.loads((ROOT / "build/demo/ml/output/data/metrics.json").read_text())
        size = (ROOT / "build/demo/ml/model/model.joblib").stat().st_size
    assert metrics["rows"] == 114
    assert metrics["accuracy"] > 0.9
    assert size > 10_000
    right, of = next(line.split()[:3:2] for line in printed.splitlines() if line.endswith(" right"))
    assert int(of) == 12
    assert int(right) >= 10
    assert "the server ended with code 0" in printed


@pytest.mark.long
@pytest.mark.image("slim-serve")
def test_breast_cancer_in_a_slim_image_answers_as_in_a_whole_one(image: str, ml: Path) -> None:
    example, variant = EXAMPLES / "breast-cancer", image.rpartition(":")[2]
    slim = f"optml-test-slim:{variant}"
    with exclusive("demo"):
        printed = run_demo(image)
        arguments = (f"--build-arg=TAG={variant}", "--build-arg=PIP_NO_INDEX=1")
        docker("build", "--force-rm", "--target=slim", *arguments, "--tag", slim, example, timeout=300)
        shutil.copytree(ROOT / "build/demo/ml", ml, dirs_exist_ok=True)
        saved = inspect("breast-cancer-serve")["Size"] - inspect(slim)["Size"]
    options = (*HARDENED, f"--volume={ml / 'model'}:/opt/ml/model:ro")
    with Container(slim, "serve", options=options) as server:
        url, rows = wait_for_ping(server), ml / "input/data/test/test.csv"
        asked = subprocess.check_output([sys.executable, example / "ask.py", url, rows, "12"], text=True)
    docker("rmi", "--force", slim)
    assert "of 12 right" in asked
    assert asked in printed
    assert saved > 60e6


@pytest.mark.image("base")
@pytest.mark.example("bring-your-own")
def test_a_container_of_ones_own_keeps_its_programs(example: str, ml: Path) -> None:
    put(ml, "train", EXAMPLES / "bring-your-own/old-faithful.csv")
    trained = run(example, "train", options=(f"--volume={ml}:/opt/ml",))
    assert trained.code == 0, trained.output
    assert trained.stdout.startswith("my own train: y = ")
    with Container(example, "serve", options=(f"--volume={ml}:/opt/ml:ro",)) as server:
        url = wait_for_ping(server)
        answers = requests.post(f"{url}/invocations", json=[2.0, 4.5], timeout=20).json()
        # After a short eruption Old Faithful rests some 55 minutes, after a long one some 80.
        assert [50 < answers[0] < 62, 74 < answers[1] < 88] == [True, True]
        server.stop()
        assert server.wait() == 0


@pytest.mark.image("cpu-serve")
@pytest.mark.example("one-image")
def test_one_image_trains_and_serves(example: str, ml: Path) -> None:
    put(ml, "train", EXAMPLES / "one-image/iris.csv")
    volumes = [f"--volume={ml / part}:/opt/ml/{part}" for part in ("input", "model", "output")]
    trained = run(example, "train", options=(*HARDENED, *volumes))
    assert trained.code == 0, trained.output
    assert "fitted 3 species to 150 flowers" in trained.stdout
    with Container(
        example, "serve", options=(*HARDENED, f"--volume={ml / 'model'}:/opt/ml/model:ro")
    ) as server:
        url = wait_for_ping(server)
        flowers = "5.1,3.5,1.4,0.2\n7.0,3.2,4.7,1.4\n6.3,3.3,6.0,2.5"
        answer = requests.post(
            f"{url}/invocations", flowers, headers={"Content-Type": "text/csv"}, timeout=5
        ).json()
        assert answer == ["setosa", "versicolor", "virginica"]


@pytest.mark.image("cpu-serve")
@pytest.mark.one_variant
@pytest.mark.example("sticky-sessions")
@pytest.mark.parametrize("memory", ["--ipc=private", "--ipc=none"])  # with /dev/shm, and without
def test_a_session_is_remembered_by_all_workers(example: str, memory: str) -> None:
    options = (*HARDENED, memory, "--env=SAGEMAKER_MODEL_SERVER_WORKERS=2", "--env=SESSION_LIFETIME=4")

    def call(id: str | None, **body: object) -> requests.Response:
        headers = {"X-Amzn-SageMaker-Session-Id": id} if id else {}
        return requests.post(f"{url}/invocations", json=body, headers=headers, timeout=20)

    with Container(example, "serve", options=options) as server:
        url = wait_for_ping(server)
        opened = call("NEW_SESSION", number=1)
        # What the service accepts as the header of a new session.
        id, expires = re.fullmatch(
            r"([a-zA-Z0-9](?:-*[a-zA-Z0-9])*);\sExpires=(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)",
            opened.headers["X-Amzn-SageMaker-New-Session-Id"],
        ).groups()  # type: ignore[union-attr]
        assert 0 < datetime.fromisoformat(expires).timestamp() - time.time() < 5
        with ThreadPoolExecutor(8) as pool:
            sums = [answer.json()["sum"] for answer in pool.map(lambda n: call(id, number=n), [1] * 20)]
        assert sorted(sums) == list(range(2, 22))  # none was lost between the workers
        closed = call(id, close=True)
        assert (closed.json()["sum"], closed.headers["X-Amzn-SageMaker-Closed-Session-Id"]) == (21, id)
        for gone in (id, "../../etc/passwd", None):
            assert call(gone, number=1).status_code == 400
        id = call("NEW_SESSION", number=1).headers["X-Amzn-SageMaker-New-Session-Id"].partition(";")[0]
        assert call(id, number=1).json() == {"sum": 2, "calls": 2}
        time.sleep(4.5)
        assert "expired" in call(id, number=1).json()["message"]
        assert "Traceback" not in server.log().output
