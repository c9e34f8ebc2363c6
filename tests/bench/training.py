"""Times training: bare Python, optml and sagemaker-training, in turn, in one container. How soon a program
starts, how fast its output passes through, and how soon it learns of SIGTERM.

usage: .venv/bin/python tests/bench/training.py [ROUNDS]

All three run the same program with the same configuration on Debian bookworm with Python 3.11, for which the
peer's packages are built. Times are of one machine on one day; the ratios are what counts.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
WORK = ROOT / "build/bench"
PEER = "sagemaker-training==5.1.4"
IMAGE = "optml-bench-training"

PROGRAMS = {
    "start.py": """
import time
print("first line", flush=True)
time.sleep(0.2)
""",
    "flood.py": """
import os
line = b"epoch 12 step 34567 loss 0.123456789 accuracy 0.987654321\\n"
os.write(2, b"<<<\\n" + os.environ["BEFORE"].encode())
for _ in range(int(os.environ["LINES"])):
    os.write(2, line)
os.write(2, b">>>\\n")
""",
    "stop.py": """
import os, signal, time
def caught(*_):
    os.write(1, b"caught %r\\n" % time.monotonic())
    os._exit(0)
signal.signal(signal.SIGTERM, caught)
print("ready", flush=True)
time.sleep(30)
""",
}
DOCKERFILE = """
FROM optml/cpu-train:bookworm
COPY wheels /tmp/wheels
RUN python3 -m venv --system-site-packages --without-pip /opt/peer \\
 && pip --python /opt/peer/bin/python3 install --quiet --no-index --find-links /tmp/wheels sagemaker-training
"""
# Runs inside the container, so that the start of Docker itself is not in the figures.
STOPWATCH = """
import json, os, signal, subprocess, sys, time

CONTENDERS = {
    "bare": ("", "python3", "/opt/ml/code/{}"),
    "optml": ("", "/opt/optml/bin/entrypoint", "train"),
    "sagemaker-training": ("/opt/peer/bin", "/opt/peer/bin/train"),
}
# The peer takes seconds for more: when it reads stderr at all, as AWS's framework images make it do.
LINES = {"bare": 300_000, "optml": 300_000, "sagemaker-training": 20_000}
CAPTURING = "from sagemaker_training import entry_point as e; " \\
    "e.run('/opt/ml/code', 'flood.py', [], dict(PATH=__import__('os').environ['PATH']), capture_error=True)"

def started(contender, program, **options):
    path, *command = CONTENDERS[contender]
    if contender == "sagemaker-training" and program == "flood.py":
        command = ["/opt/peer/bin/python3", "-c", CAPTURING]
    environment = {**os.environ, "SAGEMAKER_PROGRAM": program, "LINES": str(LINES[contender])}
    environment["BEFORE"] = options.pop("before", "")
    environment["PATH"] = path + ":" + environment["PATH"]
    command = [word.format(program) for word in command]
    return subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, **options)

def start(contender):
    began = time.perf_counter()
    process = started(contender, "start.py", stderr=subprocess.DEVNULL)
    while b"first line" not in (line := process.stdout.readline()):
        assert line, f"{contender} ended without the first line"
    first = time.perf_counter() - began
    with open(f"/proc/{process.pid}/status") as file:
        peak = next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))
    process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, f"{contender} failed"
    return {"first line": first * 1e3, "cpu": (usage.ru_utime + usage.ru_stime) * 1e3, "memory": peak / 1024}

def flood(contender, before=""):
    process = started(contender, "flood.py", stderr=subprocess.STDOUT, before=before)
    out = process.stdout.fileno()
    end, began = b"", None
    while piece := os.read(out, 1 << 20):
        if not began and b"<<<" in piece:
            began = time.perf_counter()
        end = (end + piece)[-4096:] if len(piece) < 4096 else piece[-4096:]
        if b">>>" in end:
            break
    seconds = time.perf_counter() - began
    process.stdout.close()
    process.wait(30)
    return LINES[contender] / seconds / 1e3

def stop(contender):
    process = started(contender, "stop.py", stderr=subprocess.DEVNULL)
    assert process.stdout.readline() == b"ready\\n"
    time.sleep(0.1)
    sent = time.monotonic()
    process.send_signal(signal.SIGTERM)
    caught = float(process.stdout.readline().split()[1])
    process.wait(30)
    return (caught - sent) * 1e3

def once(contender, number):
    figures = start(contender)
    if number % 3 == 0:  # the longer ones less often
        figures["output"] = flood(contender)
        figures["after exception"] = flood(contender, "Exception\\n")
        if contender != "sagemaker-training":  # which never forwards a signal
            figures["SIGTERM"] = stop(contender)
    return figures

print(json.dumps([{name: once(name, number) for name in CONTENDERS} for number in range(int(sys.argv[1]))]))
"""
UNITS = {
    "first line": "ms",
    "cpu": "ms",
    "memory": "MiB",
    "output": "1000 lines/s",
    "after exception": "1000 lines/s",
    "SIGTERM": "ms",
}
CONFIG = {
    "hyperparameters.json": {"learning-rate": "0.1", "epochs": "3", "layers": "[64, 32]"},
    "resourceconfig.json": {"current_host": "algo-1", "hosts": ["algo-1"], "network_interface_name": "eth0"},
    "inputdataconfig.json": {"train": {"TrainingInputMode": "File"}},
}


def build() -> None:
    """Put sagemaker-training beside the runtime, in a Python of its own."""
    WORK.mkdir(parents=True, exist_ok=True)
    if not list((WORK / "wheels").glob("sagemaker_training-*")):
        print(f"fetching and building {PEER} and what it needs")
        pip = [f"{ROOT}/.venv/bin/python", "-m", "pip"]
        subprocess.run([*pip, "wheel", "--quiet", PEER, "-w", f"{WORK}/wheels"], check=True)
    (WORK / "Dockerfile").write_text(DOCKERFILE)
    subprocess.run(
        ["docker", "build", "--quiet", "--tag", IMAGE, WORK], check=True, stdout=subprocess.DEVNULL
    )


def measure(rounds: int) -> list[dict[str, dict[str, float]]]:
    """The figures of each contender in each round, in the units of UNITS."""
    ml = WORK / "ml"
    for part in ("input/config", "input/data/train", "code", "model", "output/data"):
        (ml / part).mkdir(parents=True, exist_ok=True)
    for name, text in PROGRAMS.items():
        (ml / "code" / name).write_text(text)
    for name, content in CONFIG.items():
        (ml / "input/config" / name).write_text(json.dumps(content))
    (WORK / "stopwatch.py").write_text(STOPWATCH)
    # The peer waits until the names of all hosts resolve.
    run = [
        "docker",
        "run",
        "--rm",
        "--add-host=algo-1:127.0.0.1",
        "-v",
        f"{ml}:/opt/ml",
        "-v",
        f"{WORK}/stopwatch.py:/stopwatch.py:ro",
        IMAGE,
    ]
    done = subprocess.run(
        [*run, "python3", "/stopwatch.py", str(rounds)],
        check=True,
        stdout=subprocess.PIPE,
        timeout=60 + 10 * rounds,
    )
    measured: list[dict[str, dict[str, float]]] = json.loads(done.stdout)
    return measured


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 11
    build()
    measured = measure(rounds)
    print(f"\nmedians of {rounds} rounds in turn; in brackets the median of the ratios to bare Python")
    print(f"{'':20}" + "".join(f"{f'{name}, {unit}':>30}" for name, unit in UNITS.items()))
    for contender in measured[0]:
        cells = []
        for figure in UNITS:
            pairs = [(r[contender][figure], r["bare"][figure]) for r in measured if figure in r[contender]]
            if pairs:
                value = statistics.median(mine for mine, _ in pairs)
                ratio = statistics.median(mine / bare for mine, bare in pairs)
                cells.append(f"{value:18.1f} {f'({ratio:.2f})':>11}")
            else:
                cells.append(f"{'never':>30}")
        print(f"{contender:20}" + "".join(cells))


if __name__ == "__main__":
    main()
