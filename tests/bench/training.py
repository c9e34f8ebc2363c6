"""Times the start of training: bare Python, optml and sagemaker-training, in turn, in one container.

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

PROGRAM = """
import time
print("first line", flush=True)
time.sleep(0.2)
"""
DOCKERFILE = """
FROM optml/cpu-train:bookworm
COPY wheels /tmp/wheels
RUN python3 -m venv --system-site-packages --without-pip /opt/peer \\
 && pip --python /opt/peer/bin/python3 install --quiet --no-index --find-links /tmp/wheels sagemaker-training
"""
# Runs inside the container, so that the start of Docker itself is not in the figures.
STOPWATCH = """
import json, os, subprocess, sys, time
environment = dict(os.environ, SAGEMAKER_PROGRAM="train.py")

def once(path, *command):
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                               env={**environment, "PATH": path + ":" + environment["PATH"]})
    while b"first line" not in (line := process.stdout.readline()):
        assert line, f"{command} ended without the first line"
    first = time.perf_counter() - began
    with open(f"/proc/{process.pid}/status") as file:
        peak = next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))
    process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, f"{command} failed"
    return {"first line": first * 1e3, "cpu": (usage.ru_utime + usage.ru_stime) * 1e3, "memory": peak / 1024,
            "whole run": (time.perf_counter() - began) * 1e3}

contenders = {
    "bare": ("", "python3", "/opt/ml/code/train.py"),
    "optml": ("", "/opt/optml/bin/entrypoint", "train"),
    "sagemaker-training": ("/opt/peer/bin", "/opt/peer/bin/train"),
}
rounds = range(int(sys.argv[1]))
print(json.dumps([{name: once(*command) for name, command in contenders.items()} for _ in rounds]))
"""
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
        wheel = [ROOT / ".venv/bin/python", "-m", "pip", "wheel", "--quiet", PEER, "-w", WORK / "wheels"]
        subprocess.run(wheel, check=True)
    (WORK / "Dockerfile").write_text(DOCKERFILE)
    subprocess.run(
        ["docker", "build", "--quiet", "--tag", IMAGE, WORK], check=True, stdout=subprocess.DEVNULL
    )


def measure(rounds: int) -> list[dict[str, dict[str, float]]]:
    """The figures of each contender in each round: milliseconds, and MiB of the first process."""
    ml = WORK / "ml"
    for part in ("input/config", "input/data/train", "code", "model", "output/data"):
        (ml / part).mkdir(parents=True, exist_ok=True)
    (ml / "code/train.py").write_text(PROGRAM)
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
        timeout=60 + rounds,
    )
    measured: list[dict[str, dict[str, float]]] = json.loads(done.stdout)
    return measured


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 11
    build()
    measured = measure(rounds)
    print(f"\nmedians of {rounds} rounds in turn; in brackets the median of the ratios to bare Python")
    units = {"first line": "ms", "cpu": "ms", "memory": "MiB"}
    print(f"{'':20}" + "".join(f"{f'{name}, {unit}':>24}" for name, unit in units.items()))
    for contender in measured[0]:
        cells = []
        for figure in units:
            value = statistics.median(r[contender][figure] for r in measured)
            ratio = statistics.median(r[contender][figure] / r["bare"][figure] for r in measured)
            cells.append(f"{value:12.1f} {f'({ratio:.2f})':>11}")
        print(f"{contender:20}" + "".join(cells))


if __name__ == "__main__":
    main()
