"""Serving: start-up, idle memory, throughput, latency and overload."""

from __future__ import annotations

import http.client
import io
import json
import math
import random
import statistics
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy

from tests.bench.contenders import IMAGE, WORK, Server, present
from tests.bench.record import Row, Run, in_turn
from tests.support.docker import Container, docker, wait_for_ping

LIMITS = (
    "--cpus=2",
    "--memory=2g",
    "--memory-swap=2g",
    "--env=SAGEMAKER_MODEL_SERVER_WORKERS=2",
    "--env=SAGEMAKER_MODEL_SERVER_USER=root",  # as all the others, so that memory.py may read it
)
MODEL = "rm -rf /opt/ml/model && ln -s {} /opt/ml/model; "
CONNECTIONS = (1, 8, 64)
# In place of wrk's own report, which is hard to parse.
WRK = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "%s"
wrk.headers["Accept"] = "%s"
wrk.body = io.open("%s", "rb"):read("*a")
done = function(summary, latency, requests)
  local lost = 0
  for _, count in pairs(summary.errors) do lost = lost + count end
  io.write(string.format('\\n{"answers": %%d, "lost": %%d, "seconds": %%f, "p50": %%f, "p99": %%f}\\n',
    summary.requests - summary.errors.status, lost, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
"""


def measure(run: Run, rounds: int) -> None:
    """Add all rows of serving to the run."""
    servers = present(run)
    run.rows += started(servers, rounds)
    with ExitStack() as stack:
        running = {}
        memory = Row("Serving: idle", "memory of two workers (USS)", "MiB", False)
        for server in servers:
            container = serve(server, "/srv/model")
            stack.enter_context(container)
            running[server] = wait_for_ping(container, path=server.health)
            time.sleep(2)  # until all workers are ready
            used = json.loads(container.exec("python3", "/srv/serving/memory.py").stdout)
            memory.add(server.name, used["Private"])
        run.rows.append(memory)
        for kind, (body, content_type, accept) in payloads().items():
            speaking = {server: url for server, url in running.items() if kind.split()[0] in server.speaks}
            script = script_for(body, content_type, accept)
            for url in speaking.values():  # warm up: libraries load some parts late
                wrk(f"{url}/invocations", script, 8, 1)
            for connections in CONNECTIONS if rounds > 1 else CONNECTIONS[1:]:
                run.rows += loaded(kind, connections, speaking, script, rounds)
    run.rows += overloaded(
        [server for server in servers if server.name in ("optml", "gunicorn, sync")], rounds
    )


def serve(server: Server, model: str, *options: str) -> Container:
    """A container with this server and the model in this folder of the image."""
    command = MODEL.format(model) + server.command
    return Container(IMAGE, "sh", "-c", command, options=(*LIMITS, *options))


def started(servers: list[Server], rounds: int) -> list[Row]:
    """The time from a server's start inside a container to its first answers."""
    rows = {
        path: Row("Serving: start", f"start → 200 on {label}", "ms", False)
        for path, label in {"health": "/ping", "/invocations": "/invocations"}.items()
    }
    for server in in_turn(servers, rounds):
        command = MODEL.format("/srv/model") + server.command
        stopwatch = ("python3", "/srv/serving/stopwatch.py", command, server.health)
        took = json.loads(docker("run", "--rm", *LIMITS, IMAGE, *stopwatch).stdout)
        for path, row in rows.items():
            row.add(server.name, took[path])
    return list(rows.values())


def payloads() -> dict[str, tuple[bytes, str, str]]:
    """Body, content type and accepted type of each kind of request."""
    chance = random.Random(1)
    numbers = [round(chance.uniform(1, 9), 7) for _ in range(1000)]
    array = io.BytesIO()
    numpy.save(array, numpy.arange((1 << 20) // 8, dtype="float64"))
    rows = "".join(",".join(map(str, numbers[i : i + 10])) + "\n" for i in range(0, 1000, 10))
    return {
        "JSON 100 B": (json.dumps(numbers[:9]).encode(), "application/json", "application/json"),
        "CSV 10 kB": (rows.encode(), "text/csv", "application/json"),
        "NPY 1 MB": (array.getvalue(), "application/x-npy", "application/x-npy"),
    }


def script_for(body: bytes, content_type: str, accept: str) -> Path:
    data, script = WORK / "body", WORK / "body.lua"
    data.write_bytes(body)
    script.write_text(WRK % (content_type, accept, data))
    return script


def wrk(url: str, script: Path, connections: int, seconds: float) -> dict[str, float]:
    """The results of some seconds of load: answers per second, p50 and p99 in ms.

    A server that hangs or dies, as MMS may with 64 large bodies at once, counts as without answers.
    """
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout=10s", "-s", script, url]
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30 + seconds)
    except subprocess.SubprocessError:  # it did not end, or nothing answered
        return {"rate": 0, "p50": math.inf, "p99": math.inf, "lost": connections}
    found = json.loads(done.stdout.rsplit("\n", 2)[-2])
    found["rate"] = found["answers"] / found["seconds"]
    return dict(found)


def loaded(kind: str, connections: int, urls: dict[Server, str], script: Path, rounds: int) -> list[Row]:
    """Throughput and latencies with some connections, server by server in each round."""
    group, count = f"Serving: {kind}", f"{connections} connection{'s' * (connections > 1)}"
    rate = Row(group, f"answers/s, {count}", "1/s", True)
    p50 = Row(group, f"p50, {count}", "ms", False)
    p99 = Row(group, f"p99, {count}", "ms", False)
    for server in in_turn(urls, rounds):
        found = wrk(f"{urls[server]}/invocations", script, connections, 1)
        if found["rate"]:
            rate.add(server.name, found["rate"])
            p50.add(server.name, found["p50"])
            p99.add(server.name, found["p99"])
    return [rate, p50, p99]


def overloaded(servers: list[Server], rounds: int) -> list[Row]:
    """A model that computes for 5 ms, with 8 connections and with 256, and requests for /ping meanwhile."""
    script = script_for(b"[1]", "application/json", "application/json")
    rows: dict[str, Row] = {}
    with ExitStack() as stack:
        urls = {}
        for server in servers:
            sync = server.command.replace("cd /srv/serving", "cd /srv/overload").replace(
                "raw:app", "busy:app"
            )
            busy = Server(server.name, server.environment, sync)
            container = stack.enter_context(serve(busy, "/srv/overload"))
            urls[server.name] = wait_for_ping(container)
            wrk(f"{urls[server.name]}/invocations", script, 8, 1)  # warm up
        for name in in_turn(urls, rounds):
            for (label, unit, more), value in overload(urls[name], script).items():
                row = Row("Serving: a model of 5 ms, overloaded", label, unit, more)
                rows.setdefault(label, row).add(name, value)
    return list(rows.values())


def overload(url: str, script: Path) -> dict[tuple[str, str, bool], float]:
    """The figures of one round: label, unit and whether more is better → value."""
    calm = wrk(f"{url}/invocations", script, 8, 2)
    over = threading.Event()
    with ThreadPoolExecutor(2) as pool:
        pings = pool.submit(ask, url, "GET", "/ping", 0.02, over)
        calls = pool.submit(ask, url, "POST", "/invocations", 0.05, over)
        crowded = wrk(f"{url}/invocations", script, 256, 4)
        over.set()
    took = sorted(milliseconds for status, milliseconds in pings.result() if status == 200)
    found = {
        ("answers/s, 8 connections", "1/s", True): calm["rate"],
        ("p99, 8 connections", "ms", False): calm["p99"],
        ("good answers/s, 256 connections", "1/s", True): crowded["rate"],
        ("good answers, 256 to 8 connections", "", True): crowded["rate"] / max(calm["rate"], 1e-9),
        ("/ping without 200, 256 connections", "calls", False): len(pings.result()) - len(took),
    }
    if took:
        found["p99 of /ping, 256 connections", "ms", False] = took[int(len(took) * 0.99)]
    refused = [milliseconds for status, milliseconds in calls.result() if status == 503]
    if refused:
        found["p50 of a refusal, 256 connections", "ms", False] = statistics.median(refused)
    return found


def ask(url: str, method: str, path: str, every: float, until: threading.Event) -> list[tuple[int, float]]:
    """Status and milliseconds of requests, `every` seconds apart, each on its own connection."""
    host, port = url.removeprefix("http://").split(":")
    found = []
    while not until.is_set():
        began = time.perf_counter()
        connection = http.client.HTTPConnection(host, int(port), timeout=5)
        try:
            connection.request(method, path, b"[1]", {"Content-Type": "application/json"})
            status = connection.getresponse().status
        except OSError:
            status = 0
        connection.close()
        found.append((status, (time.perf_counter() - began) * 1e3))
        until.wait(every)
    return found
