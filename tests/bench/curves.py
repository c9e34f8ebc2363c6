"""How costs grow: with channels, hyperparameters, hosts, models, connections, bodies and the size of a model.

The cost of each more should stay flat or fall.
"""

from __future__ import annotations

import json
import resource
import socket
import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import requests

from tests.bench.contenders import IMAGE, SERVERS
from tests.bench.record import Curve, Run
from tests.bench.serving import ask, script_for, serve, wrk
from tests.support.docker import Container, docker, wait_for_ping

# Runs inside a container: configures a job with some channels, hyperparameters or hosts, and times it.
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


class Refused(Exception):
    """So many are not possible; the message says why."""


def measure(run: Run, rounds: int) -> None:
    """Add all curves; with one round, shorter ones."""
    short = rounds == 1
    for kind, unit in (("channel", "channels"), ("parameter", "hyperparameters"), ("host", "hosts")):
        curve = Curve("Training", f"start → the first line, by {unit}", unit, "ms")
        counts = (1, 10, 100) if short else (1, 10, 100, 1000, 10_000)
        run.curves.append(_points(curve, counts, lambda count, kind=kind: _start(kind, count)))
    run.curves.append(_models(10 if short else 1000))
    run.curves.append(_connections((1, 8, 64) if short else (1, 8, 64, 256, 1000, 2000)))
    run.curves += _slow_clients((1, 10) if short else (1, 10, 100, 1000, 2000))
    run.curves.append(_bodies((1, 100, 1000) if short else (1, 10, 100, 1000, 10_000, 100_000, 200_000)))
    run.curves += _model_sizes((10, 100) if short else (10, 100, 1000, 4000))


def _points(curve: Curve, xs: tuple[int, ...], measure: Callable[[int], float]) -> Curve:
    print(f"  {curve.label}", flush=True)
    for x in xs:
        try:
            curve.points.append((x, round(measure(x), 3)))
        except Refused as reason:
            curve.end = f"{x:,} {curve.x}: {reason}"
            break
    return curve


def _start(kind: str, count: int) -> float:
    done = docker("run", "--rm", IMAGE, "python3", "-c", START, kind, str(count), timeout=300, check=False)
    if done.code:  # the kernel refuses an environment or a command line that is too long
        raise Refused(done.stderr.strip().splitlines()[-1])
    return float(done.stdout)


def _ours(model: str, *options: str) -> Container:
    return serve(SERVERS[0], model, *options)


def _models(most: int) -> Curve:
    """The time to register a model, by the number of those registered already."""
    curve = Curve("Serving many models", "time to register one more", "registered models", "ms")
    curve.why = "each is a process, and the kernel takes longer to fork one that has forked many"
    print(f"  {curve.label}", flush=True)
    options = ("--env=SAGEMAKER_MULTI_MODEL=true", "--memory=20g", "--memory-swap=20g")
    with _ours("/srv/model", *options) as server, requests.Session() as session:
        url = wait_for_ping(server)
        took = []
        for number in range(most):
            began = time.perf_counter()
            body = {"model_name": f"m{number}", "url": "/srv/model"}
            answer = session.post(f"{url}/models", json=body, timeout=60)
            assert answer.status_code == 200, answer.text
            took.append((time.perf_counter() - began) * 1e3)
            if number + 1 in (10, 100, 1000):
                curve.points.append((number + 1, round(statistics.median(took[-10:]), 3)))
    return curve


def _connections(counts: tuple[int, ...]) -> Curve:
    """Good answers per second, by the number of connections."""
    script = script_for(b"[1, 2, 3]", "application/json", "application/json")
    curve = Curve("Serving", "good answers per second, by connections", "connections", "1/s")
    curve.why = "calls that wait for a slot stay in the kernel, and each is looked at once more"
    with _ours("/srv/model", "--env=SAGEMAKER_MODEL_JOB_QUEUE_SIZE=4000", "--ulimit=nofile=20000") as server:
        url = wait_for_ping(server)
        return _points(curve, counts, lambda count: wrk(f"{url}/invocations", script, count, 3)["rate"])


def _slow_clients(counts: tuple[int, ...]) -> list[Curve]:
    """Throughput of 8 fast connections, and latency of /ping, beside clients that send a byte at times."""
    script = script_for(b"[1, 2, 3]", "application/json", "application/json")
    rate = Curve("Serving", "answers per second of 8 connections, beside slow clients", "slow clients", "1/s")
    ping = Curve("Serving", "p99 of /ping, beside slow clients", "slow clients", "ms")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1], limits[1]))
    with _ours("/srv/model", "--ulimit=nofile=20000") as server, ExitStack() as stack:
        url = wait_for_ping(server)
        slow: list[socket.socket] = []

        def beside(count: int) -> float:
            while len(slow) < count:
                client = stack.enter_context(socket.create_connection((server.address, 8080)))
                client.sendall(b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
                slow.append(client)
            over = threading.Event()
            with ThreadPoolExecutor(1) as pool:
                pings = pool.submit(ask, url, "GET", "/ping", 0.02, over)
                for client in slow:
                    client.sendall(b" ")
                found = wrk(f"{url}/invocations", script, 8, 3)
                over.set()
            took = sorted(milliseconds for status, milliseconds in pings.result() if status == 200)
            ping.points.append((count, round(took[int(len(took) * 0.99)], 3)))
            return found["rate"]

        _points(rate, counts, beside)
    return [rate, ping]


def _bodies(kilobytes: tuple[int, ...]) -> Curve:
    """MB per second of bodies that one client sends; only the first ten bytes come back."""
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
        return _points(curve, kilobytes, throughput)


SIZED = """
import os
def model_fn(model_dir):
    with open("/tmp/weights", "rb") as file:
        return file.read()
def predict_fn(data, model):
    return len(model)
"""
PREPARE = (
    'mkdir -p /opt/ml/code && printf %s "$SIZED" > /opt/ml/code/inference.py && rm -rf /opt/ml/model &&'
    " mkdir /opt/ml/model && touch /opt/ml/model/there &&"
    " head -c ${MEGABYTES}000000 /dev/zero > /tmp/weights && sync /tmp/weights && "
)


def _model_sizes(megabytes: tuple[int, ...]) -> list[Curve]:
    """Start-up time and memory of four workers, by the size of the model, without and with preload."""
    curves = []
    for preload, copies in (
        ("false", "a copy in each of 4 workers"),
        ("true", "one copy in 4 workers (preload)"),
    ):

        def options(size: int, preload: str = preload) -> tuple[str, ...]:
            return (
                "--memory=22g", "--memory-swap=22g", f"--env=SIZED={SIZED}", f"--env=MEGABYTES={size}",
                f"--env=SAGEMAKER_MODEL_SERVER_PRELOAD={preload}", "--env=SAGEMAKER_MODEL_SERVER_WORKERS=4",
                "--env=SAGEMAKER_MODEL_SERVER_USER=root",
            )  # fmt: skip

        def started(size: int) -> float:
            command = f"{PREPARE}exec python3 /srv/serving/stopwatch.py '{SERVERS[0].command}' /ping"
            done = docker("run", "--rm", *options(size), IMAGE, "sh", "-c", command, timeout=300)
            return float(json.loads(done.stdout)["health"])

        def used(size: int) -> float:
            with Container(IMAGE, "sh", "-c", PREPARE + SERVERS[0].command, options=options(size)) as server:
                wait_for_ping(server, timeout=300)
                server.wait_for_log("ready: workers 4", timeout=300)
                time.sleep(1 + size / 200)  # until all workers are ready
                found = json.loads(server.exec("python3", "/srv/serving/memory.py").stdout)
                return float(found["Pss_Anon"])

        for label, unit, measure in (
            ("start → 200 on /ping", "ms", started),
            ("memory", "MiB", used),
        ):
            curve = Curve("Serving", f"{label}, {copies}, by size of the model", "MB of the model", unit)
            if unit == "ms":
                curve.why = "bare Python also takes more time per MB to read such a large file"
            curves.append(_points(curve, megabytes, measure))
    return curves
