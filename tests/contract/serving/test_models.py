"""Section 2 of the contract: many models behind one router, each a process of its own."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from tests.support.docker import docker, inspect
from tests.support.wheels import wheel

from .serving import ECHO, Models, eventually, listening, write_model

pytestmark = pytest.mark.image("cpu-serve")

ACTOR = """
import ctypes, os, signal, sys, time

def model_fn(model_dir):
    return open(f"{model_dir}/weights").read()

def predict_fn(data, model):
    if data == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if data == "grow":
        return len(bytearray(b"x") * (1 << 30))
    if data == "memory":
        raise MemoryError
    if data == "pid":
        return os.getpid()
    if data == "hold":
        ctypes.PyDLL(None).sleep(600)
    if isinstance(data, float):
        time.sleep(data)
    return model

def output_fn(prediction, accept):
    if prediction == "stream":
        return (part for part in (b"a", b"b"))
    return prediction, "text/plain"
""".replace("return prediction,", "return str(prediction),")


def count_processes(server: Models) -> int:
    return int(server.exec("sh", "-c", "set -- /proc/[0-9]*; echo $#").stdout)


def private_memory(server: Models, pid: str) -> int:
    """KiB that belong to this process alone."""
    rollup = server.exec("cat", f"/proc/{pid}/smaps_rollup").stdout
    return sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Private_"))


def refused(answer: requests.Response, status: int, message: str) -> bool:
    said = answer.json()
    return (answer.status_code, said["code"]) == (status, status) and message in said["message"]


def test_metrics_count_calls_of_models_and_not_calls_about_them(image: str, ml: Path) -> None:
    write_model(ml, "a", ACTOR)
    with Models(image, ml) as server:
        assert server.load("a").status_code == 200
        for _ in range(3):
            assert server.invoke("a").status_code == 200
            assert server.names() == (["a"], None)
            server.get("/status")
        assert server.invoke("absent").status_code == 404

        # Counted once the answer has left.
        eventually(lambda: "optml_model_seconds_count 4\n" in server.get("/metrics").text)
        assert "optml_calls_in_flight 0\n" in server.get("/metrics").text


def test_a_model_that_can_have_no_process_harms_no_other(image: str, ml: Path) -> None:
    write_model(ml, "a", ACTOR)
    write_model(ml, "b", ACTOR)
    with Models(image, ml) as server:
        assert server.load("a").status_code == 200
        docker("update", "--pids-limit=10", server.name)
        assert refused(server.load("b"), 507, "No process can be started for the model")
        assert server.invoke("a").text == "weights of a"
        docker("update", "--pids-limit=-1", server.name)
        running = server.exec("sh", "-c", "set -- /proc/[0-9]*/task/[0-9]*; echo $#")  # the shell is one
        docker("update", f"--pids-limit={running.stdout.strip()}", server.name)
        assert refused(server.load("b"), 500, "The model does not load: RuntimeError")  # there is no thread
        docker("update", "--pids-limit=-1", server.name)
        assert server.load("b").status_code == 200
        assert (server.names()[0], server.invoke("a").text) == (["a", "b"], "weights of a")


@pytest.mark.heavy
def test_models_come_and_go(image: str, ml: Path) -> None:
    write_model(ml, "a", ACTOR)
    write_model(ml, "b", ACTOR)
    with Models(image, ml) as server:
        assert server.names() == ([], None)
        assert refused(server.invoke("a"), 404, "Model not found: a")
        idle = count_processes(server)
        for name in "ab":
            loaded = server.load(name)
            assert (loaded.status_code, loaded.json()) == (200, {"status": "Workers scaled"})
            assert server.invoke(name).text == f"weights of {name}"
            assert "Date" in server.invoke(name).headers
        assert "left out of answers" not in server.log().output  # nobody has set a header of ours
        assert server.invoke("a", b'"pid"').text != server.invoke("b", b'"pid"').text
        assert listening(server) == [8080]  # models have sockets without ports
        assert server.names() == (["a", "b"], None)
        described = server.get("/models/a").json()
        assert described == {"modelName": "a", "modelUrl": "/opt/ml/models/a"}
        gone = server.unload("a")
        assert (gone.status_code, gone.json()) == (200, {"status": 'Model "a" unregistered'})
        assert refused(server.invoke("a"), 404, "Model not found: a")
        assert refused(server.get("/models/a"), 404, "Model not found: a")
        assert refused(server.unload("a"), 404, "Model not found: a")
        assert server.invoke("b").text == "weights of b"
        assert server.load("a").status_code == 200
        assert server.unload("a").status_code == server.unload("b").status_code == 200
        assert count_processes(server) <= idle + 2  # those that ended are not all reaped yet
        assert server.exec("sh", "-c", "ls /tmp/optml-models-*").stdout == ""
        server.stop()
        assert server.wait() == 0


def test_the_image_says_that_it_can(image: str) -> None:
    assert inspect(image)["Config"]["Labels"]["com.amazonaws.sagemaker.capabilities.multi-models"] == "true"


def test_what_cannot_be_loaded(image: str, ml: Path) -> None:
    write_model(ml, "a", ACTOR)
    write_model(ml, "broken", "def model_fn(model_dir): raise RuntimeError('weights')\n")
    write_model(ml, "mute", "predict_fn = None\n")
    write_model(ml, "dies", "import os\nos.kill(os.getpid(), 9)\n")
    write_model(ml, "hungry", "def model_fn(model_dir): raise MemoryError\n")
    with Models(image, ml) as server:
        assert server.load("a").status_code == 200
        assert refused(server.load("a"), 409, "Model a is already registered.")
        assert refused(server.load("x"), 404, "There is no folder /opt/ml/models/x")
        assert refused(server.load("broken"), 500, "does not load: RuntimeError")
        assert refused(server.load("mute"), 400, "defines no model_fn")
        assert refused(server.load("dies"), 500, "died before it loaded")
        assert refused(server.load("hungry"), 507, "Not enough memory")
        for body in (
            *(b"{", b"[]", b"", b"[" * 20_000),
            *(b'{"model_name": "a"}', b'{"model_name": "a/b", "url": "/tmp"}'),
        ):
            assert refused(requests.post(f"{server.url}/models", data=body, timeout=20), 400, "must be JSON")
        nowhere = server.get("/models//a", allow_redirects=False)
        assert refused(nowhere, 404, "There is nothing at /models//a.")
        assert server.names() == (["a"], None)
        assert server.log().output.count("Traceback") == 2


def test_the_list_has_pages(image: str, ml: Path) -> None:
    write_model(ml, "m", ECHO)
    with Models(image, ml) as server:
        names = [f"m{number}" for number in range(7)]
        with ThreadPoolExecutor(4) as pool:
            assert {one.status_code for one in pool.map(lambda name: server.load(name, "m"), names)} == {200}
        page, token = server.names(limit=3)
        assert page == names[:3]
        server.unload("m1")  # does not shift the pages that follow
        page, token = server.names(limit=3, next_page_token=token)
        assert page == names[3:6]
        assert server.names(limit=3, next_page_token=token) == (["m6"], None)
        for limit in ("0", "101", "x"):
            answer = server.get(f"/models?limit={limit}")
            assert refused(answer, 400, f"limit={limit}")


def test_concurrent_loads_of_one_model_make_one(image: str, ml: Path) -> None:
    write_model(ml, "slow", "import time\ntime.sleep(1)\n" + ACTOR)
    with Models(image, ml) as server, ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(server.load, ["slow"] * 6))
        assert sorted(answer.status_code for answer in answers) == [200] + [409] * 5
        assert server.invoke("slow").text == "weights of slow"


@pytest.mark.heavy
def test_unloading_lets_calls_finish(image: str, ml: Path) -> None:
    write_model(ml, "a", ACTOR)
    with Models(image, ml) as server, ThreadPoolExecutor(4) as pool:
        server.load("a")
        running = [pool.submit(server.invoke, "a", b"5.0") for _ in range(2)]
        time.sleep(1)
        began = time.monotonic()
        gone = pool.submit(server.unload, "a")
        time.sleep(0.5)
        assert refused(server.invoke("a"), 404, "Model not found: a")
        assert gone.result().status_code == 200
        assert time.monotonic() - began > 2
        assert [answer.result().text for answer in running] == ["weights of a"] * 2


def test_what_a_model_has_started_ends_with_it(image: str, ml: Path) -> None:
    write_model(ml, "a", f"import subprocess\nsubprocess.Popen(['sleep', '300'])\n{ACTOR}")
    asleep = "grep -lx sleep /proc/[0-9]*/comm | wc -l"
    with Models(image, ml) as server:
        server.load("a")
        assert server.exec("sh", "-c", asleep).stdout == "1\n"
        server.invoke("a", b'"die"')
        assert server.invoke("a").text == "weights of a"  # in a new process, with a sleep of its own
        assert server.exec("sh", "-c", asleep).stdout == "1\n"
        assert server.unload("a").status_code == 200
        assert server.exec("sh", "-c", asleep).stdout == "0\n"


@pytest.mark.heavy
def test_a_crash_touches_no_other_model(image: str, ml: Path) -> None:
    write_model(ml, "a", ACTOR)
    write_model(ml, "b", ACTOR)
    with Models(image, ml, SAGEMAKER_MODEL_SERVER_TIMEOUT=5) as server:
        server.load("a")
        server.load("b")
        pid = server.invoke("b", b'"pid"').text
        stop, statuses = threading.Event(), set()

        def ask() -> None:
            while not stop.is_set():
                statuses.add(server.invoke("b").status_code)

        with ThreadPoolExecutor(1) as pool:
            asking = pool.submit(ask)
            try:
                assert refused(server.invoke("a", b'"die"'), 500, "The process of model a died")
                assert server.invoke("a").text == "weights of a"  # in a new process
                assert server.invoke("a", b'"memory"').status_code == 507
                assert refused(server.invoke("a", b"60.0"), 504, "SAGEMAKER_MODEL_SERVER_TIMEOUT")
                assert server.invoke("a").text == "weights of a"
                assert refused(server.invoke("a", b'"hold"'), 504, "No answer of model a in time")
                assert server.invoke("a").text == "weights of a"
            finally:
                stop.set()
        asking.result()
        assert statuses == {200}
        assert server.invoke("b", b'"pid"').text == pid


@pytest.mark.heavy
def test_a_full_queue_is_the_models_own(image: str, ml: Path) -> None:
    write_model(ml, "a", ACTOR)
    write_model(ml, "b", ACTOR)
    with Models(image, ml, SAGEMAKER_MODEL_JOB_QUEUE_SIZE=1) as server, ThreadPoolExecutor(5) as pool:
        server.load("a")
        server.load("b")
        answers = [pool.submit(server.invoke, "a", b"4.0") for _ in range(5)]
        time.sleep(0.5)
        assert server.invoke("b").status_code == 200
        statuses = sorted(answer.result().status_code for answer in answers)
        assert statuses == [200, 200, 503, 503, 503]


def test_each_has_its_own_modules_and_requirements(image: str, ml: Path) -> None:
    for name in "ab":
        code = write_model(ml, name, "import hello, own\n" + ECHO.replace("data\n", "hello.said + own.x\n"))
        (code / "own.py").write_text(f"x = ' own {name}'\n")
        wheel(code, "greeting", hello=f"said = 'hello {name}'\n")
        (code / "requirements.txt").write_text(f"--no-index\n-f /opt/ml/models/{name}/code\ngreeting\n")
    with Models(image, ml) as server:
        for name in "ab":
            assert server.load(name).status_code == 200
        for name in "ab":
            assert server.invoke(name).json() == f"hello {name} own {name}"


@pytest.mark.heavy
def test_memory_comes_back(image: str, ml: Path) -> None:
    for name, mebibytes in (("large", 80), ("huge", 900)):
        weights = f"return 'x' * ({mebibytes} << 20)"
        write_model(ml, name, ACTOR.replace('return open(f"{model_dir}/weights").read()', weights))
    write_model(ml, "small", ACTOR)
    limits = ("--memory=250m", "--memory-swap=250m")
    with Models(image, ml, *limits) as server:
        server.load("small")
        small = server.invoke("small", b'"pid"').text
        assert private_memory(server, small) < 25 << 10
        for _ in range(6):  # more than fits at once
            assert server.load("large").status_code == 200
            assert server.unload("large").status_code == 200
        server.load("large")
        large = server.invoke("large", b'"pid"').text
        assert refused(server.load("huge"), 507, "Not enough memory")
        assert refused(server.invoke("small", b'"grow"'), 507, "Not enough memory")
        assert server.invoke("large", b'"pid"').text == large
        assert server.invoke("small").status_code == 200
        assert server.names() == (["large", "small"], None)


WAKES = """
import glob, sys, time
def wakes():
    files = glob.glob(f"/proc/{sys.argv[1]}/task/*/status")
    return sum(int(line.split()[1]) for file in files for line in open(file) if line.startswith("voluntary"))
time.sleep(2.5)
before = wakes()
time.sleep(4)
print(wakes() - before)
"""


def test_a_model_that_nobody_asks_sleeps(image: str, ml: Path) -> None:
    """A thousand idle models must take no time from those that are called."""
    write_model(ml, "a", ACTOR)
    with Models(image, ml) as server:
        server.load("a")
        pid = server.invoke("a", b'"pid"').text
        assert int(server.exec("python3", "-c", WAKES, pid).stdout) <= 4
        assert server.invoke("a").text == "weights of a"


def test_the_router_without_its_nursery_begins_anew(image: str, ml: Path) -> None:
    write_model(ml, "a", ACTOR)
    with Models(image, ml) as server:
        server.load("a")
        parent = "import os, sys; print(open(f'/proc/{sys.argv[1]}/stat').read().rsplit(')')[1].split()[1])"
        pid = server.invoke("a", b'"pid"').text
        nursery = server.exec("python3", "-c", parent, pid).stdout.strip()
        server.kill_process(nursery)
        # Its models end with it. The next call notices, and a new router knows no models.
        eventually(lambda: server.invoke("a").status_code == 404)
        eventually(lambda: server.load("a").status_code == 200)
        assert server.invoke("a").text == "weights of a"
