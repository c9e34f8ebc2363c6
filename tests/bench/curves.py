"""How cost grows: with channels, hyperparameters, hosts, models, connections, bodies and the size of a model.

The cost of one more should be flat or fall.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable

import requests

from tests.bench.contenders import IMAGE, SERVERS
from tests.bench.record import Curve, Run
from tests.bench.serving import script_for, serve, wrk
from tests.support.docker import Container, docker, wait_for_ping

# Runs inside a container: writes the configuration of a job with so many of something, and times its start.
START = """
import json, os, pathlib, subprocess, sys, time
kind, count = sys.argv[1], int(sys.argv[2])
config = pathlib.Path("/opt/ml/input/config")
config.mkdir(parents=True, exist_ok=True)
names = [f"{kind}-{number}" for number in range(count)]
if kind == "channel":
    channels = {name: {"TrainingInputMode": "File"} for name in names}
    (config / "inputdataconfig.json").write_text(json.dumps(channels))
elif kind == "parameter":
    (config / "hyperparameters.json").write_text(json.dumps({name: "0.1" for name in names}))
else:
    hosts = {"current_host": names[0], "hosts": names, "network_interface_name": "eth0"}
    (config / "resourceconfig.json").write_text(json.dumps(hosts))
pathlib.Path("/opt/ml/code/train.py").write_text("print('first line', flush=True)")
took = []
for _ in range(5):
    began = time.perf_counter()
    command = ["/opt/optml/bin/entrypoint", "train"]
    job = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    output = b""
    while b"first line" not in output:
        piece = os.read(job.stdout.fileno(), 1 << 16)
        if not piece:
            sys.exit(output.decode())
        output = (output + piece)[-100_000:]
    took.append((time.perf_counter() - began) * 1e3)
    job.stdout.read()
    job.wait()
print(json.dumps(sorted(took)[2]))
"""


def measure(run: Run, rounds: int) -> None:
    """Add all curves; one round means the shorter ones."""
    short = rounds == 1
    for kind, unit in (("channel", "channels"), ("parameter", "hyperparameters"), ("host", "hosts")):
        curve = Curve("Training", f"start → the first line, by {unit}", unit, "ms")
        counts = (
            (1, 10, 100)
            if short
            else (1, 10, 100, 1000)
            if kind == "parameter"
            else (1, 10, 100, 1000, 10_000)
        )
        run.curves.append(_points(curve, counts, lambda count, kind=kind: _start(kind, count)))
    run.curves.append(_models(10 if short else 100))
    run.curves += _connections((1, 8, 64) if short else (1, 8, 64, 256, 1000, 2000))
    run.curves += _bodies((1, 100, 1000) if short else (1, 100, 1000, 10_000, 100_000, 200_000))
    run.curves += _model_sizes((10, 100) if short else (10, 100, 1000))


def _points(curve: Curve, xs: tuple[int, ...], measure: Callable[[int], float]) -> Curve:
    curve.points = [(x, round(measure(x), 3)) for x in xs]
    return curve


def _start(kind: str, count: int) -> float:
    done = docker("run", "--rm", IMAGE, "python3", "-c", START, kind, str(count), timeout=300, check=False)
    if done.code:  # the kernel refuses an environment or a command line that is too long
        return float("nan")
    return float(done.stdout)


def _ours(model: str, *options: str) -> Container:
    return serve(SERVERS[0], model, *options)


def _models(most: int) -> Curve:
    """Seconds until a model is registered, when so many are there already; each is a process of its own."""
    curve = Curve("Serving many models", "time to register one more", "models that are there", "ms")
    with _ours(
        "/srv/model", "--env=SAGEMAKER_MULTI_MODEL=true", "--memory=16g", "--memory-swap=16g"
    ) as server:
        url = wait_for_ping(server)
        for number in range(most):
            began = time.perf_counter()
            body = {"model_name": f"m{number}", "url": "/srv/model"}
            answer = requests.post(f"{url}/models", json=body, timeout=60)
            assert answer.status_code == 200, answer.text
            if number in (0, 9, 99, 999) or number == most - 1:
                curve.points.append((number + 1, round((time.perf_counter() - began) * 1e3, 3)))
    return curve


def _connections(counts: tuple[int, ...]) -> list[Curve]:
    """Answers a second by so many connections at once; refusals are none."""
    script = script_for(b"[1, 2, 3]", "application/json", "application/json")
    curve = Curve("Serving", "good answers a second, by connections", "connections", "1/s")
    with _ours("/srv/model", "--env=SAGEMAKER_MODEL_JOB_QUEUE_SIZE=4000", "--ulimit=nofile=20000") as server:
        url = wait_for_ping(server)
        _points(curve, counts, lambda count: wrk(f"{url}/invocations", script, count, 3)["rate"])
    return [curve]


def _bodies(kilobytes: tuple[int, ...]) -> list[Curve]:
    """MB a second of bodies that one client sends, of which the first ten bytes come back."""
    curve = Curve("Serving", "throughput of one connection, by size of the body", "kB", "MB/s")

    def throughput(size: int) -> float:
        body, took = b"x" * (size * 1000), []
        for _ in range(3):
            began = time.perf_counter()
            headers = {"Content-Type": "application/octet-stream"}
            answer = session.post(f"{url}/invocations", body, headers=headers, timeout=120)
            assert answer.status_code == 200, answer.text
            took.append(time.perf_counter() - began)
        return size / 1000 / statistics.median(took)

    with _ours("/srv/model") as server, requests.Session() as session:
        url = wait_for_ping(server)
        session.get(f"{url}/ping", timeout=10)
        _points(curve, kilobytes, throughput)
    return [curve]


SIZED = """
import os
def model_fn(model_dir):
    with open("/tmp/weights", "rb") as file:
        return file.read()
def predict_fn(data, model):
    return len(model)
"""
LOADED = (
    'mkdir -p /opt/ml/code && printf %s "$SIZED" > /opt/ml/code/inference.py && rm -rf /opt/ml/model &&'
    " mkdir /opt/ml/model && touch /opt/ml/model/there &&"
    " head -c ${MEGABYTES}000000 /dev/zero > /tmp/weights &&"
    " exec /opt/optml/bin/entrypoint serve"
)


def _model_sizes(megabytes: tuple[int, ...]) -> list[Curve]:
    """Memory of four workers, by the size of the model, one copy in each and one in all."""
    curves = []
    for preload in ("false", "true"):
        label = "memory of 4 workers, " + (
            "one copy in all (preload)" if preload == "true" else "a copy in each"
        )
        curve = Curve("Serving", label, "MB of the model", "MiB")

        def used(size: int, preload: str = preload) -> float:
            options = (
                "--memory=16g", "--memory-swap=16g", f"--env=SIZED={SIZED}", f"--env=MEGABYTES={size}",
                f"--env=SAGEMAKER_MODEL_SERVER_PRELOAD={preload}", "--env=SAGEMAKER_MODEL_SERVER_WORKERS=4",
                "--env=SAGEMAKER_MODEL_SERVER_USER=root",
            )  # fmt: skip
            with Container(IMAGE, "sh", "-c", LOADED, options=options) as server:
                wait_for_ping(server, timeout=120)
                time.sleep(1 + size / 500)  # all workers, not only the first
                found = json.loads(server.exec("python3", "/srv/serving/memory.py").stdout)
                return float(found["Pss_Anon"])

        curves.append(_points(curve, megabytes, used))
    return curves
