"""Training: the time until the program starts, the throughput of its output, the delay of SIGTERM."""

from __future__ import annotations

import json

from tests.bench.contenders import IMAGE
from tests.bench.record import Row, Run
from tests.support.docker import docker

FIGURES: dict[str, tuple[str, str, bool]] = {
    "first line": ("start → the program's first line", "ms", False),
    "cpu": ("CPU time of the whole job", "ms", False),
    "memory": ("peak memory of PID 1", "MiB", False),
    "output": ("output passed through", "1000 lines/s", True),
    "after exception": ("the same after a line with “Exception”", "1000 lines/s", True),
    "SIGTERM": ("SIGTERM → the program", "ms", False),
}
CONFIG = {
    "hyperparameters.json": {"learning-rate": "0.1", "epochs": "3", "layers": "[64, 32]"},
    "resourceconfig.json": {"current_host": "algo-1", "hosts": ["algo-1"], "network_interface_name": "eth0"},
    "inputdataconfig.json": {"train": {"TrainingInputMode": "File"}},
}
SETUP = """
import json, pathlib, sys
for name, content in json.loads(sys.argv[1]).items():
    path = pathlib.Path("/opt/ml/input/config", name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
"""


def measure(run: Run, rounds: int) -> None:
    """Add the rows of training to the run. Bare Python, which does nothing for a job, is the baseline."""
    peers = [name for name in ("sagemaker-training", "sagemaker-containers") if name not in run.absent]
    measured, failed = _rounds(["bare", "optml", *peers], rounds)
    run.absent |= failed
    rows = {figure: Row("Training", *facts) for figure, facts in FIGURES.items()}
    for each in measured:
        for contender, figures in each.items():
            for figure, value in figures.items():
                rows[figure].add(contender, value)
    run.rows += rows.values()


def _rounds(contenders: list[str], rounds: int) -> tuple[list[dict[str, dict[str, float]]], dict[str, str]]:
    """The figures of each contender in each round, and why others do not run."""
    command = f"""
mkdir -p /opt/ml/input/data/train /opt/ml/output/data && cp /srv/training/*.py /opt/ml/code/
python3 -c "$SETUP" "$CONFIG" && exec python3 /srv/training/stopwatch.py {rounds} {" ".join(contenders)}
"""
    done = docker(
        "run", "--rm", "--cap-add=SYS_ADMIN",  # for a PID namespace of each
        "--add-host=algo-1:127.0.0.1",  # sagemaker-training waits until the host's name resolves
        f"--env=SETUP={SETUP}", f"--env=CONFIG={json.dumps(CONFIG)}",
        IMAGE, "sh", "-c", command, timeout=120 + 20 * rounds,
    )  # fmt: skip
    found = json.loads(done.stdout.splitlines()[-1])
    return found["rounds"], found["failed"]
