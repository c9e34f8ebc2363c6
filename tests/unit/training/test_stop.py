"""A stop, in any phase and at any moment: it takes effect soon, is reported, and changes no outcome."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.unit.training.conftest import RUNTIME, Ml, an_ml

SAVES = """
import os, signal, sys, time
def save(*_):
    time.sleep(0.5)
    open(os.environ["SM_MODEL_DIR"] + "/saved", "w").close()
    sys.exit(9)
signal.signal(signal.SIGTERM, save)
open(os.environ["SM_MODEL_DIR"] + "/ready", "w").close()
while True: time.sleep(0.02)
"""

LAUNCHED = {
    "plain": "exec python3 save.py",
    "a shell script": "python3 save.py",
    "a pipeline": "python3 save.py | cat",
    "a background process that is waited for": "python3 save.py & wait",
    "a session of its own": "setsid --fork python3 save.py; sleep 60",
    "a daemon of a program that ignores the stop": (
        "trap '' TERM; setsid --fork python3 save.py\n"
        "until [ -e $SM_MODEL_DIR/ready ]; do sleep 0.1; done; sleep 2"
    ),
}


def until(there: Path, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not there.exists():
        assert time.monotonic() < deadline, f"no {there}"
        time.sleep(0.01)


@pytest.mark.parametrize("way", LAUNCHED)
def test_a_checkpoint_is_saved_whatever_launched_the_program(ml: Ml, way: str) -> None:
    ml.code("save.py", SAVES)
    ml.code("train.sh", LAUNCHED[way])
    process = ml.start()
    until(ml.root / "model/ready")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert (ml.root / "model/saved").exists()
    assert process.returncode == 0 or "asked to stop (signal 15)" in ml.failure.splitlines()[0]


def test_a_stop_takes_effect_if_the_log_is_not_read(ml: Ml) -> None:
    ml.code("save.py", SAVES.replace("while True: time.sleep(0.02)", "while True: os.write(2, b'x' * 99)"))
    ml.code("train.sh", LAUNCHED["plain"])
    process = ml.start()
    until(ml.root / "model/ready")
    time.sleep(1)  # the pipes are full now
    process.send_signal(signal.SIGTERM)
    until(ml.root / "model/saved", 10)
    _, log = process.communicate(timeout=30)
    assert process.returncode == 9 and log.count(b"x") > 1 << 16


def test_a_program_that_ignores_the_stop_is_killed_in_time_for_the_report(ml: Ml) -> None:
    ignores = "import signal, time; signal.signal(15, signal.SIG_IGN); open('ready', 'w'); time.sleep(60)"
    ml.code("child.py", ignores)
    ml.code("train.sh", "python3 child.py & trap '' TERM; wait")
    process = ml.start(SAGEMAKER_STOP_TIMEOUT="2")
    until(ml.root / "code/ready")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 137
    assert "asked to stop" in ml.failure
    assert subprocess.run(["pgrep", "-f", f"{ml.root}|child.py"], capture_output=True).stdout == b""


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan", "1e9"])
def test_the_time_of_a_stop_is_a_number_of_seconds(ml: Ml, text: str) -> None:
    ml.code("train.py", "")
    assert ml.train(SAGEMAKER_STOP_TIMEOUT=text).returncode == 1
    assert ml.failure.startswith(f"SAGEMAKER_STOP_TIMEOUT is {text!r}; it must be a number of seconds")


def stopped(process: subprocess.Popen[bytes], ml: Ml) -> str:
    """Stop the job, and return its failure reason. This must take far less than what it was doing."""
    start = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert time.monotonic() - start < 10
    assert process.returncode == 143
    return ml.failure


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_while_the_interpreter_starts(ml: Ml, tmp_path: Path, number: int) -> None:
    """The signal arrives before any code of ours runs."""
    ml.code("train.py", "raise SystemExit('this ran')")
    (tmp_path / "lib").symlink_to(RUNTIME.parents[1])
    python = tmp_path / "python3"
    python.write_text(f'#!/bin/sh\nkill -{number} $$\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    script = (RUNTIME.parents[1] / "bin/entrypoint").read_text()
    script = script.replace("home=/opt/optml", f"home={tmp_path}").replace("/usr/bin/python3", str(python))
    done = subprocess.run(
        ["sh", "-c", script, "entrypoint", "train"], env=ml.environment(), capture_output=True, timeout=60
    )
    assert done.returncode == 128 + number, done.stderr
    assert ml.failure.startswith(
        f"stopped by signal {number:d} while "
    )  # how far it came depends on the machine
    assert b"Traceback" not in done.stderr


def test_a_stop_while_an_archive_is_unpacked(ml: Ml, tmp_path: Path) -> None:
    info = tarfile.TarInfo("big")
    info.size = 3 << 30
    with open(tmp_path / "code.tar", "wb") as archive:  # sparse: it takes no disk until unpacked
        archive.write(info.tobuf())
        archive.truncate(512 + info.size + 1024)
    process = ml.start(SAGEMAKER_SUBMIT_DIRECTORY=f"{tmp_path}/code.tar")
    until(ml.root / "code/big")
    assert stopped(process, ml) == "stopped by signal 15 while fetching the code"
    (ml.root / "code/big").unlink()


def test_a_stop_while_a_configuration_cannot_be_read(ml: Ml) -> None:
    os.mkfifo(ml.root / "input/config/hyperparameters.json")
    process = ml.start()
    time.sleep(1)
    assert stopped(process, ml) == "stopped by signal 15 while reading the job"


def test_a_stop_while_requirements_are_installed(ml: Ml, tmp_path: Path) -> None:
    uv = tmp_path / "bin/uv"
    uv.parent.mkdir()
    uv.write_text(f"#!/bin/sh\ntrap '' TERM\ntouch {tmp_path}/installing\nsleep 60\nexit 1\n")
    uv.chmod(0o755)
    ml.code("requirements.txt", "x")
    ml.code("train.py", "")
    process = ml.start(PATH=f"{uv.parent}:{os.environ['PATH']}")
    until(tmp_path / "installing")
    assert stopped(process, ml) == "stopped by signal 15 while installing the requirements"


def test_a_stop_while_waiting_for_the_other_hosts(ml: Ml) -> None:
    ml.code("train.py", "")
    ml.config("hyperparameters.json", {"sagemaker_torch_distributed_enabled": "true"})
    ml.config("resourceconfig.json", {"current_host": "here", "hosts": ["first.invalid", "here"]})
    process = ml.start()
    time.sleep(1.5)
    assert stopped(process, ml) == "stopped by signal 15 while meeting the other hosts"


def test_a_stop_at_any_moment_has_one_outcome(ml: Ml, tmp_path: Path) -> None:
    """Two hundred stops of one or more signals, over the whole life of a job that goes through all phases."""
    uv = tmp_path / "bin/uv"
    uv.parent.mkdir()
    uv.write_text("#!/bin/sh\nsleep 0.03\n")
    uv.chmod(0o755)
    program = SAVES.replace("while True: time.sleep(0.02)", "time.sleep(0.05)").replace(
        "sleep(0.5)", "sleep(0.01)"
    )
    (tmp_path / "train.py").write_text(program)
    (tmp_path / "requirements.txt").write_text("x")
    with tarfile.open(tmp_path / "code.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "train.py", "train.py")
        archive.add(tmp_path / "requirements.txt", "requirements.txt")
    variables = {
        "SAGEMAKER_SUBMIT_DIRECTORY": f"{tmp_path}/code.tar.gz",
        "PATH": f"{uv.parent}:{os.environ['PATH']}",
    }
    start = time.monotonic()
    ml.train(**variables)
    life = time.monotonic() - start
    with ThreadPoolExecutor(4) as jobs:
        codes = set(
            jobs.map(lambda number: stop_at_some_moment(tmp_path, number, life, variables), range(200))
        )
    assert {0, 9, 143} <= codes


def stop_at_some_moment(tmp_path: Path, number: int, life: float, variables: dict[str, str]) -> int:
    """Run and stop the job, and check that it has one outcome; return its exit code."""
    moments, ml = random.Random(number), an_ml(tmp_path / str(number))
    process = ml.start(**variables)
    if number % 2:  # from the start on, or from where the program runs
        until(ml.root / "model/ready")
    time.sleep(moments.uniform(0, life))
    for _ in range(moments.choice([1, 1, 2, 5])):
        process.send_signal(moments.choice([signal.SIGTERM, signal.SIGINT]))
        time.sleep(moments.choice([0, 0.002]))
    _, err = process.communicate(timeout=60)
    failed = (ml.root / "output/failure").exists()
    assert ml.success == (process.returncode == 0) != failed, err
    assert err.count(b"Reporting") == 1, err
    if failed:
        # 1: the program's interpreter was just starting when SIGINT arrived.
        assert process.returncode in (1, 9, 130, 143), err
        assert "signal 15" in ml.failure or "signal 2" in ml.failure, ml.failure
    return process.returncode


def test_a_fifo_in_place_of_the_outcome_does_not_hang_the_job(ml: Ml) -> None:
    ml.code("train.py", "import os; os.mkfifo(os.environ['SM_OUTPUT_DIR'] + '/success')")
    done = ml.train()
    assert done.returncode == 0
    assert f"cannot write {ml.root}/output/success" in done.stderr


def test_a_success_file_of_the_program_does_not_outlive_a_failure(ml: Ml) -> None:
    (ml.root / "output/success").touch()
    ml.code("train.py", "import os; open(os.environ['SM_OUTPUT_DIR'] + '/success', 'w'); exit(3)")
    assert ml.train().returncode == 3
    assert not ml.success
