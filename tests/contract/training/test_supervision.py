"""What PID 1 owes a program: its exit code, its signals, its output, its orphans."""

from __future__ import annotations

import hashlib
import shutil
import signal
import subprocess
import time

import pytest

from tests.support.training import Training

pytestmark = pytest.mark.image("cpu-train")


@pytest.mark.parametrize(("status", "code"), [(3, 3), (42, 42), (137, 137), (256 + 1, 1), (255, 255)])
@pytest.mark.one_variant
def test_the_exit_code_of_the_program(training: Training, status: int, code: int) -> None:
    training.code("train.py", f"import os; os._exit({status})")
    assert training.train().code == code
    assert training.failure.startswith(f"train.py exited with code {code}")
    assert not training.success


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM, signal.SIGABRT])
@pytest.mark.one_variant
def test_a_program_that_a_signal_killed(training: Training, number: signal.Signals) -> None:
    training.code("train.py", f"import os; os.kill(os.getpid(), {int(number)})")
    assert training.train().code == 128 + number
    assert training.failure.startswith(f"train.py was killed by signal {int(number)} ({number.name})")


@pytest.mark.one_variant
def test_a_framework_function_that_exits(training: Training) -> None:
    training.code("frame.py", "import sys\ndef main(): sys.exit(7)")
    assert training.train(SAGEMAKER_TRAINING_MODULE="frame:main").code == 7
    assert not training.success


@pytest.mark.one_variant
def test_a_reason_that_the_user_wrote_stands(training: Training) -> None:
    training.code("train.py", "open('/opt/ml/output/failure', 'w').write('mine'); 1 / 0")
    assert training.train().code == 1
    assert training.failure == "mine"


def test_out_of_memory_is_told(training: Training) -> None:
    training.code("train.py", "x = [bytearray(1 << 20) for _ in range(1000)]")
    done = training.train("--memory=64m", "--memory-swap=64m")
    assert done.code == 137
    assert "SIGKILL" in training.failure
    assert "out of memory (limit 64 MiB)" in training.failure.splitlines()[0]


@pytest.mark.one_variant
def test_a_child_that_is_out_of_memory_is_told(training: Training) -> None:
    """As when a data loader is killed, and the program then raises an exception of its own."""
    training.code(
        "train.py",
        "import os\n"
        "if os.fork() == 0: x = [bytearray(1 << 20) for _ in range(1000)]\n"
        "os.wait(); raise RuntimeError('a worker is gone')\n",
    )
    assert training.train("--memory=64m", "--memory-swap=64m").code == 1
    assert "out of memory (limit 64 MiB)" in training.failure.splitlines()[0]
    assert "RuntimeError: a worker is gone" in training.failure


def test_a_thousand_orphans_are_reaped(training: Training) -> None:
    training.code(
        "train.py",
        "import os, time\n"
        "for _ in range(1000):\n"
        "    if os.fork() == 0:\n"
        "        if os.fork() == 0: time.sleep(0.01)\n"
        "        os._exit(0)\n"
        "    os.wait()\n"
        "own, deadline = {'1', str(os.getpid())}, time.monotonic() + 20\n"
        "left = True\n"
        "while left and time.monotonic() < deadline:\n"
        "    time.sleep(0.1)\n"
        "    left = [pid for pid in os.listdir('/proc') if pid.isdigit() and pid not in own]\n"
        "print(left)\n",
    )
    assert training.train().stdout == "[]\n"


@pytest.mark.one_variant
def test_a_background_child_does_not_hold_the_end(training: Training) -> None:
    training.code(
        "train.py",
        "import os, subprocess, sys\n"
        "subprocess.Popen(['sleep', '60'], start_new_session=True)\n"
        "os.write(2, b'last words'); os._exit(5)\n",
    )
    start = time.monotonic()
    done = training.train()
    assert done.code == 5
    assert time.monotonic() - start < 40
    assert "last words" in done.stderr and "last words" in training.failure


FLOOD = r"""
import os, threading
def write(fd, word):
    for start in range(0, 1_000_000, 1000):
        piece = b"".join(b"  %s %d \xff\xc3\r\t\n" % (word, i) for i in range(start, start + 1000))
        while piece: piece = piece[os.write(fd, piece):]
os.write(2, b"<<<\nTraceback (most recent call last):\nException: none\n")
threads = [threading.Thread(target=write, args=pair) for pair in ((1, b"out"), (2, b"err"))]
[thread.start() for thread in threads]; [thread.join() for thread in threads]
os.write(2, b">>>")
"""


@pytest.mark.one_variant
def test_two_million_lines_pass_byte_for_byte(training: Training) -> None:
    """Through pipes, as to an attached client: Docker's log driver would be the bottleneck."""

    def lines(word: bytes) -> bytes:
        return b"".join(b"  %s %d \xff\xc3\r\t\n" % (word, i) for i in range(1_000_000))

    training.code("train.py", FLOOD)
    command = ["docker", "run", "--rm", "--log-driver=none", *training.options(), training.image, "train"]
    done = subprocess.run(command, capture_output=True, timeout=60)
    assert done.returncode == 0
    err = done.stderr.partition(b"<<<\nTraceback (most recent call last):\nException: none\n")[2]
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(lines(b"out")).digest()
    assert hashlib.sha256(err.partition(b">>>")[0]).digest() == hashlib.sha256(lines(b"err")).digest()


@pytest.mark.parametrize("code", [0, 9])
@pytest.mark.one_variant
def test_docker_stop_lets_the_program_save(training: Training, code: int) -> None:
    training.code(
        "train.py",
        "import signal, sys, time\n"
        f"def save(*_): time.sleep(1); open('/opt/ml/checkpoints/last', 'w').close(); sys.exit({code})\n"
        "signal.signal(signal.SIGTERM, save)\n"
        "print('ready', flush=True)\n"
        "while True: time.sleep(0.05)\n",
    )
    with training.start() as container:
        container.wait_for_log("ready")
        container.stop()
        assert container.wait() == code
    assert (training.root / "checkpoints/last").exists()
    assert training.success == (code == 0)
    if code:
        assert "asked to stop (signal 15)" in training.failure.splitlines()[0]


@pytest.mark.one_variant
def test_a_program_without_a_handler_is_stopped(training: Training) -> None:
    training.code("train.sh", "echo ready; sleep 60")
    with training.start() as container:
        container.wait_for_log("ready")
        container.kill("TERM")
        assert container.wait(timeout=40) == 143
    assert "killed by signal 15 (SIGTERM) after the container was asked to stop" in training.failure


@pytest.mark.parametrize("number", ["TERM", "INT", "HUP", "USR1", "USR2"])
@pytest.mark.one_variant
def test_signals_reach_the_grandchildren(training: Training, number: str) -> None:
    training.code(
        "train.py",
        "import os, signal, time\n"
        "def caught(*_):\n"
        "    os.write(1, b'caught\\n')\n"
        # The job ends with the program, which therefore waits for its children.
        "    try:\n"
        "        while True: os.wait()\n"
        "    except ChildProcessError: os._exit(0)\n"
        f"signal.signal(signal.SIG{number}, caught)\n"
        "if os.fork() == 0: os.fork()\n"
        "os.write(1, b'ready\\n')\n"
        "while True: time.sleep(0.05)\n",
    )
    with training.start() as container:
        container.wait_for_log("ready\nready\nready\n")
        container.kill(number)
        assert container.wait(timeout=40) == 0
        assert container.log().stdout.count("caught") == 3


def test_the_memory_of_pid_1(training: Training) -> None:
    training.code(
        "train.py", "print(*(line.split()[1] for line in open('/proc/1/status') if 'VmHWM' in line))"
    )
    assert int(training.train().stdout) <= 14 * 1024


@pytest.mark.parametrize("output", ["absent", "a file", "read-only"])
@pytest.mark.one_variant
def test_the_exit_code_does_not_depend_on_the_output(training: Training, output: str) -> None:
    training.code("train.py", "raise SystemExit(42)")
    shutil.rmtree(training.root / "output")
    if output == "a file":
        (training.root / "output").write_text("")
    done = training.train(*(["--tmpfs=/opt/ml/output:ro"] if output == "read-only" else []))
    assert done.code == 42
    assert "Reporting training FAILURE" in done.stderr


@pytest.mark.one_variant
def test_a_full_disk(training: Training) -> None:
    training.code("train.py", "f = open('/opt/ml/output/data/x', 'wb')\nwhile True: f.write(bytes(65536))")
    done = training.train("--mount=type=tmpfs,destination=/opt/ml/output,tmpfs-size=65536")
    assert done.code == 1
    assert "No space left on device" in done.stderr
