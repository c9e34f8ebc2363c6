"""Times serving with more clients than the model can take: optml against gunicorn's sync workers, in turn.

usage: .venv/bin/python tests/bench/overload.py [ROUNDS]

The model computes for 5 ms, and each has two workers.
"""

from __future__ import annotations

import http.client
import json
import statistics
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from tests.bench.serving import GUNICORN, IMAGE, WORK, WRK, build, wrk
from tests.support.docker import Container, wait_for_ping

FOLDER = WORK / "overload"
PROGRAMS = {
    "busy.py": """
import time

def compute():
    end = time.thread_time() + 0.005
    while time.thread_time() < end:
        pass

def app(environ, start_response):
    if environ["PATH_INFO"] == "/invocations":
        environ["wsgi.input"].read()
        compute()
    start_response("200 OK", [("Content-Length", "0")])
    return [b""]
""",
    "code/inference.py": """
import sys
sys.path.insert(0, "/opt/ml/model")
import busy

def model_fn(model_dir):
    return None

def predict_fn(data, model):
    busy.compute()
    return 0
""",
    "large/code/inference.py": """
def model_fn(model_dir):
    return bytearray(b"x") * (200 << 20)

def predict_fn(data, model):
    return model[data[0]]
""",
}
CONTENDERS = {
    "sync": f"{GUNICORN.replace('gthread --threads 4', 'sync')} --chdir /opt/ml/model busy:app",
    "optml": "/opt/optml/bin/entrypoint serve",
}
Answer = tuple[int, float]  # status, and milliseconds until it came
LIMITS = ("--cpus=2", "--memory=3g", "--memory-swap=3g", "--env=SAGEMAKER_MODEL_SERVER_USER=root")


def serve(command: str, model: Path, workers: int, *options: str) -> Container:
    settings = (f"--volume={model}:/opt/ml/model:ro", f"--env=SAGEMAKER_MODEL_SERVER_WORKERS={workers}")
    return Container(IMAGE, "sh", "-c", f"exec {command}", options=(*LIMITS, *settings, *options))


def ask(server: Container, method: str, path: str, every: float, until: threading.Event) -> list[Answer]:
    """Requests with so many seconds between them, each on a connection of its own."""
    found, address = [], server.address
    while not until.is_set():
        began = time.perf_counter()
        connection = http.client.HTTPConnection(address, 8080, timeout=5)
        try:
            connection.request(method, path, b"[1]", {"Content-Type": "application/json"})
            status = connection.getresponse().status
        except OSError:
            status = 0
        connection.close()
        found.append((status, (time.perf_counter() - began) * 1e3))
        until.wait(every)
    return found


def overload(server: Container, url: str, script: Path) -> dict[str, float]:
    """8 connections, then 256, while somebody else asks for /ping and for an answer now and then."""
    calm = wrk(f"{url}/invocations", script, 8, 3)
    over = threading.Event()
    with ThreadPoolExecutor(2) as pool:
        pings = pool.submit(ask, server, "GET", "/ping", 0.02, over)
        calls = pool.submit(ask, server, "POST", "/invocations", 0.05, over)
        crowded = wrk(f"{url}/invocations", script, 256, 5)
        over.set()
    took = sorted(milliseconds for status, milliseconds in pings.result() if status == 200)
    refused = [milliseconds for status, milliseconds in calls.result() if status == 503]
    return {
        "8 connections, answers/s": calm["rate"],
        "8 connections, p99 ms": calm["p99"],
        "256 connections, good answers/s": crowded["rate"],
        "256: the same to that of 8": crowded["rate"] / calm["rate"],
        "256: /ping p99 ms": took[int(len(took) * 0.99)] if took else float("nan"),
        "256: /ping without an answer": len(pings.result()) - len(took),
        "256: refusal p50 ms": statistics.median(refused) if refused else float("nan"),
    }


def memory_of_preload() -> float:
    """MiB that 8 workers with one model of 200 MB use together; pages that they share count once."""
    settings = ("--env=SAGEMAKER_MODEL_SERVER_PRELOAD=true",)
    with serve(CONTENDERS["optml"], FOLDER / "large", 8, *settings) as server:
        wait_for_ping(server)
        time.sleep(2)
        found: dict[str, float] = json.loads(server.exec("python3", "/srv/memory.py").stdout)
        return found["Pss_Anon"]


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    build()
    for name, program in PROGRAMS.items():
        (FOLDER / name).parent.mkdir(parents=True, exist_ok=True)
        (FOLDER / name).write_text(program)
    data, script = WORK / "body", WORK / "body.lua"
    data.write_bytes(b"[1]")
    script.write_text(WRK % ("application/json", "application/json", data))
    found: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
    with ExitStack() as stack:
        servers = {
            name: stack.enter_context(serve(command, FOLDER, 2)) for name, command in CONTENDERS.items()
        }
        urls = {name: wait_for_ping(server) for name, server in servers.items()}
        for _ in range(rounds):
            for name, server in servers.items():
                found[name].append(overload(server, urls[name], script))
    print(f"\na model that computes for 5 ms, two workers: medians of {rounds} rounds in turn")
    print(f"{'':34}" + "".join(f"{name:>12}" for name in CONTENDERS))
    for figure in found["optml"][0]:
        values = [statistics.median(each[figure] for each in found[name]) for name in CONTENDERS]
        print(f"{figure:34}" + "".join(f"{value:12.2f}" for value in values))
    print(f"8 workers, a model of 200 MB, preloaded: {memory_of_preload():.0f} MiB in all")


if __name__ == "__main__":
    main()
