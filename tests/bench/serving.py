"""Times serving: optml against gunicorn alone, flask, Starlette and sagemaker-inference, in turn.

usage: .venv/bin/python tests/bench/serving.py [ROUNDS]

All serve the same model from the same image (Debian bookworm, Python 3.11), with two workers in containers of
the same limits. Their start is timed inside a container, without that of Docker; then one container each is
put under load by wrk, for seconds. Times are of one machine on one day; the ratios count.
"""

from __future__ import annotations

import io
import json
import math
import random
import shutil
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import numpy

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))

from tests.support.docker import Container, docker, wait_for_ping  # noqa: E402

WORK = ROOT / "build/bench/serving"
IMAGE = "optml-bench-serving"
PEERS = ["sagemaker-inference==1.10.1", "multi-model-server==1.1.11", "flask", "gunicorn", "starlette"]
PEERS += ["uvicorn", "uvloop", "httptools", "numpy", "setuptools<81"]  # sagemaker-inference has pkg_resources
JRE = "openjdk-17-jre-headless"
OPTIONS = (
    "--cpus=2",
    "--memory=1g",
    "--memory-swap=1g",
    f"--volume={WORK}/model:/opt/ml/model:ro",
    "--env=SAGEMAKER_MODEL_SERVER_WORKERS=2",
    "--env=SAGEMAKER_MODEL_SERVER_USER=root",  # as all others, and whose memory root may read
)

DOCKERFILE = """
FROM optml/cpu-serve:bookworm
COPY wheels /tmp/wheels
RUN pip install --quiet --no-index --find-links /tmp/wheels numpy \\
 && python3 -m venv --without-pip /opt/peer \\
 && pip --python /opt/peer/bin/python3 install --quiet --no-index --find-links /tmp/wheels PEERS
# Of the JRE only its own files: a server needs neither fonts nor sound.
COPY jre /tmp/jre
RUN for package in /tmp/jre/*.deb; do [ ! -e "$package" ] || dpkg-deb -x "$package" /; done
COPY programs /srv
"""
# The model: the first ten of what it got. optml and sagemaker-inference decode and encode; the others do what
# their users write. All import numpy when it is needed first, so that idle memory compares.
PROGRAMS = {
    "inference.py": """
def model_fn(model_dir):
    return 10

def predict_fn(data, model):
    return data[:model]
""",
    "predict.py": """
import io, json

def predict(body, content_type):
    if content_type == "application/json":
        return json.dumps(json.loads(body)[:10]).encode()
    import numpy
    if content_type == "text/csv":
        return json.dumps(numpy.loadtxt(io.BytesIO(body), delimiter=",", ndmin=2)[:10].tolist()).encode()
    answer = io.BytesIO()
    numpy.save(answer, numpy.load(io.BytesIO(body))[:10])
    return answer.getvalue()
""",
    # Returns JSON as it came: what gunicorn alone can do at best.
    "raw.py": """
from predict import predict

def app(environ, start_response):
    body = b""
    if environ["PATH_INFO"] == "/invocations":
        body = environ["wsgi.input"].read()
        if environ["CONTENT_TYPE"] != "application/json":
            body = predict(body, environ["CONTENT_TYPE"])
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
""",
    "flask_app.py": """
import flask
from predict import predict

app = flask.Flask(__name__)

@app.get("/ping")
def ping():
    return ""

@app.post("/invocations")
def invocations():
    return predict(flask.request.get_data(), flask.request.content_type)
""",
    "starlette_app.py": """
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route
from predict import predict

async def ping(request):
    return Response()

async def invocations(request):
    return Response(predict(await request.body(), request.headers["content-type"]))

app = Starlette(routes=[Route("/ping", ping), Route("/invocations", invocations, methods=["POST"])])
""",
    # Runs inside the container, which ends with it.
    "stopwatch.py": """
import http.client, json, subprocess, sys, time

def answered(method, path, body=None):
    try:
        connection = http.client.HTTPConnection("127.0.0.1", 8080, timeout=5)
        connection.request(method, path, body, {"Content-Type": "application/json"})
        return connection.getresponse().status == 200
    except OSError:
        return False

began = time.perf_counter()
server = subprocess.Popen(["sh", "-c", sys.argv[1]], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
took = {}
for path, request in {"/ping": ("GET", "/ping"), "/invocations": ("POST", "/invocations", "[1]")}.items():
    while not answered(*request):
        assert server.poll() is None and time.perf_counter() - began < 30, "no answer"
        time.sleep(0.002)
    took[path] = (time.perf_counter() - began) * 1e3
print(json.dumps(took))
""",
    # Private pages of each process; and anonymous ones, those that processes share counted once.
    "memory.py": """
import glob, json, os
found = {"Private": 0, "Pss_Anon": 0}
for path in glob.glob("/proc/[0-9]*/smaps_rollup"):
    if int(path.split("/")[2]) != os.getpid():
        try:
            lines = open(path).readlines()
        except OSError:
            continue  # ended meanwhile
        for kind in found:
            found[kind] += sum(int(line.split()[1]) / 1024 for line in lines if line.startswith(kind))
print(json.dumps(found))
""",
}
JAVA = "/usr/lib/jvm/java-17-openjdk-amd64"
GUNICORN = "/opt/peer/bin/gunicorn --no-control-socket --chdir /srv --bind 0.0.0.0:8080 --workers 2"
GUNICORN += " --worker-class gthread --threads 4"
CONTENDERS = {
    "gunicorn": f"{GUNICORN} raw:app",
    "optml": "/opt/optml/bin/entrypoint serve",
    "flask": f"{GUNICORN} flask_app:app",
    "starlette": "/opt/peer/bin/uvicorn --app-dir /srv --host 0.0.0.0 --port 8080 --workers 2"
    " --no-access-log starlette_app:app",
    "mms": f"env JAVA_HOME={JAVA} PATH=/opt/peer/bin:{JAVA}/bin:/usr/bin:/bin python3 -c"
    " 'from sagemaker_inference.model_server import start_model_server; start_model_server()'",
}
# wrk's own report is for people.
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


def build() -> None:
    """Put the peers beside the runtime, in a Python of their own."""
    for folder in ("wheels", "jre", "programs", "model/code"):
        (WORK / folder).mkdir(parents=True, exist_ok=True)
    if not list((WORK / "wheels").glob("sagemaker_inference-*")):
        print(f"fetching {', '.join(PEERS)}", flush=True)
        wheel = [ROOT / ".venv/bin/python", "-m", "pip", "wheel", "--quiet", *PEERS, "-w", WORK / "wheels"]
        subprocess.run(wheel, check=True, timeout=600)
    if not list((WORK / "jre").glob("*.deb")):
        subprocess.run(["apt-get", "download", JRE], cwd=WORK / "jre", check=False, timeout=300)
    for name, program in PROGRAMS.items():
        (WORK / "programs" / name).write_text(program)
    (WORK / "model/code/inference.py").write_text(PROGRAMS["inference.py"])
    (WORK / "Dockerfile").write_text(DOCKERFILE.replace("PEERS", " ".join(f"'{peer}'" for peer in PEERS)))
    docker("build", "--force-rm", "--tag", IMAGE, WORK, timeout=300)


def wrk(url: str, script: Path, connections: int, seconds: int) -> dict[str, float]:
    """What these seconds of load found: answers a second, ms of the median and of the slowest 1 %.

    A server that hangs or dies, as MMS may with 64 large bodies at once, has answered nothing.
    """
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout=10s", "-s", script, url]
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30)
    except subprocess.SubprocessError:  # without an end, or without anybody who answers
        return {"rate": 0, "p50": math.inf, "p99": math.inf, "lost": connections}
    found = json.loads(done.stdout.rsplit("\n", 2)[-2])
    found["rate"] = found["answers"] / found["seconds"]
    return dict(found)


def start(command: str) -> dict[str, float]:
    """Milliseconds until a server that is started in a fresh container answers."""
    stopwatch = ("python3", "/srv/stopwatch.py", f"exec {command}")
    took: dict[str, float] = json.loads(docker("run", "--rm", *OPTIONS, IMAGE, *stopwatch).stdout)
    return took


def row(label: str, rounds: list[dict[str, float]], form: str = ".0f") -> None:
    """Print the median of each contender, and in brackets the median of its ratios to gunicorn."""
    cells = [f"{label:34}"]
    for name in CONTENDERS:
        values = [each[name] for each in rounds if name in each]
        if not values:
            cells.append(f"{'-':>18}")
            continue
        ratio = statistics.median(each[name] / max(each["gunicorn"], 1e-9) for each in rounds)
        cells.append(f"{statistics.median(values):10{form}} {f'({ratio:.2f})':>7}")
    print("".join(cells), flush=True)


def load(rounds: int, urls: dict[str, str]) -> None:
    """Print answers a second and latencies of every kind of request at every number of connections."""
    lost: dict[str, int] = {}
    for kind, (body, content_type, accept) in payloads().items():
        data, script = WORK / "body", WORK / "body.lua"
        data.write_bytes(body)
        script.write_text(WRK % (content_type, accept, data))
        for connections in (1, 8, 64):
            seconds = 2 if len(body) * connections > 10_000_000 else 1  # the slowest takes one to begin
            found = [
                {name: wrk(f"{url}/invocations", script, connections, seconds) for name, url in urls.items()}
                for _ in range(rounds)
            ]
            for figure, form in {"rate": ".0f", "p50": ".2f", "p99": ".2f"}.items():
                label = {"rate": "answers/s", "p50": "p50 ms", "p99": "p99 ms"}[figure]
                figures = [{name: each[name][figure] for name in each} for each in found]
                row(f"{kind}, {connections:2} connections, {label}", figures, form)
            for each in found:
                for name in each:
                    lost[name] = lost.get(name, 0) + int(each[name]["lost"])
    print(f"requests without a good answer: {', '.join(f'{name} {n}' for name, n in lost.items())}")


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    if not shutil.which("wrk"):
        sys.exit("serving.py needs wrk: apt-get install wrk")
    build()
    contenders = dict(CONTENDERS)
    java = docker("run", "--rm", IMAGE, f"{JAVA}/bin/java", "-version", check=False)
    if java.code:
        print(f"mms is left out, its JRE does not run: {java.output.strip()[-300:]}")
        del contenders["mms"]
    print(f"\nmedians of {rounds} rounds in turn; in brackets the median of the ratios to gunicorn alone")
    print(f"{'':34}" + "".join(f"{name:>18}" for name in CONTENDERS))
    started = [{name: start(command) for name, command in contenders.items()} for _ in range(rounds)]
    for path in ("/ping", "/invocations"):
        row(f"start → 200 on {path}, ms", [{name: each[name][path] for name in each} for each in started])
    with ExitStack() as stack:
        urls = {}
        memory = {}
        for name, command in contenders.items():
            server = Container(IMAGE, "sh", "-c", f"exec {command}", options=OPTIONS)
            stack.enter_context(server)
            urls[name] = wait_for_ping(server)
            time.sleep(2)  # all workers, not only the first
            memory[name] = json.loads(server.exec("python3", "/srv/memory.py").stdout)
        for kind, label in {"Private": "USS", "Pss_Anon": "PSS, anonymous"}.items():
            row(f"idle memory, {label}, MiB", [{name: used[kind] for name, used in memory.items()}])
        load(rounds, urls)


if __name__ == "__main__":
    main()
