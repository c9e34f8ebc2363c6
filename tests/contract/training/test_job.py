"""A training job from the platform's files to its exit code, in a container."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.contract.training.conftest import Training
from tests.support.docker import HARDENED, run

pytestmark = pytest.mark.image("cpu-train")

SHOW = """
import json, os, sys
print(json.dumps({"argv": sys.argv, "env": dict(os.environ), "cwd": os.getcwd()}))
"""


def test_the_job_as_the_platform_gives_it(training: Training) -> None:
    training.code("main.py", SHOW)
    training.config("hyperparameters.json", {"epochs": "3", "lr": "3.10", "sagemaker_program": '"main.py"'})
    training.config(
        "resourceconfig.json",
        {"current_host": "algo-2", "hosts": ["algo-1", "algo-2"], "network_interface_name": "ethwe"},
    )
    training.config("inputdataconfig.json", {"train": {"TrainingInputMode": "File"}})
    done = training.train(argv=("--extra",), TRAINING_JOB_NAME="job-1")
    assert done.code == 0, done.output
    seen = json.loads(done.stdout)
    assert seen["argv"] == ["main.py", "--epochs", "3", "--lr", "3.10", "--extra"]
    assert seen["cwd"] == "/opt/ml/code"
    expected = {
        "SM_CURRENT_HOST": "algo-2",
        "SM_CHANNEL_TRAIN": "/opt/ml/input/data/train",
        "SM_NETWORK_INTERFACE_NAME": "eth0",
        "SAGEMAKER_JOB_NAME": "job-1",
    }
    assert {name: seen["env"][name] for name in expected} == expected
    assert "there is no interface ethwe here" in done.stderr
    assert training.success


def test_user_code_asks_for_its_job(training: Training) -> None:
    training.code("train.py", "import optml; job = optml.job(); print(job.hyperparameters, job.model_dir)")
    training.config("hyperparameters.json", {"epochs": "3"})
    assert training.train().stdout == "{'epochs': 3} /opt/ml/model\n"


def test_the_strictest_platform(training: Training) -> None:
    training.code("train.py", "import os; open(os.environ['SM_MODEL_DIR'] + '/m', 'w').write('model')")
    done = training.train(*HARDENED)
    assert done.code == 0, done.output
    assert (training.root / "model/m").read_text() == "model"
    assert training.success


def test_as_another_user_on_request(training: Training) -> None:
    training.code(
        "train.py", "import os; print(os.getuid(), os.environ['HOME']); open('/opt/ml/model/m', 'w')"
    )
    done = training.train(SAGEMAKER_TRAINING_USER="ml")
    assert done.code == 0, done.output
    assert done.stdout == "1000 /home/ml\n"


def test_no_code_at_all(image: str) -> None:
    done = run(image, "train")
    assert done.code == 1
    assert "no program to run: set SAGEMAKER_PROGRAM" in done.stderr
    assert "Traceback" not in done.output


def test_a_config_that_cannot_be_read(training: Training) -> None:
    training.config("hyperparameters.json", {})
    (training.root / "input/config/hyperparameters.json").chmod(0o000)
    training.code("train.py", "")
    done = training.train("--user=12345")
    assert done.code == 1
    assert "cannot read /opt/ml/input/config/hyperparameters.json: Permission denied" in training.failure


def test_input_that_cannot_be_listed_is_no_crash(training: Training) -> None:
    training.code("train.py", "print('ran')")
    (training.root / "input/data").chmod(0o000)
    done = training.train("--user=12345")
    (training.root / "input/data").chmod(0o777)
    assert done.code == 0, done.output


@pytest.mark.parametrize("output", ["absent", "a file", "read-only"])
def test_the_exit_code_does_not_depend_on_the_output(training: Training, output: str) -> None:
    training.code("train.py", "raise SystemExit(42)")
    shutil.rmtree(training.root / "output")
    if output == "a file":
        (training.root / "output").write_text("")
    done = training.train(*(["--tmpfs=/opt/ml/output:ro"] if output == "read-only" else []))
    assert done.code == 42
    assert "Reporting training FAILURE" in done.stderr


def test_a_full_disk(training: Training) -> None:
    training.code("train.py", "f = open('/opt/ml/output/data/x', 'wb')\nwhile True: f.write(bytes(65536))")
    done = training.train("--mount=type=tmpfs,destination=/opt/ml/output,tmpfs-size=65536")
    assert done.code == 1
    assert "No space left on device" in done.stderr


def test_out_of_memory_is_told(training: Training) -> None:
    training.code("train.py", "x = [bytearray(1 << 20) for _ in range(1000)]")
    done = training.train("--memory=64m", "--memory-swap=64m")
    assert done.code == 137
    assert "SIGKILL" in training.failure
    assert "out of memory (limit 64 MiB)" in training.failure.splitlines()[0]


def test_a_thousand_orphans_are_reaped(training: Training) -> None:
    training.code(
        "train.py",
        "import os, time\n"
        "for _ in range(1000):\n"
        "    if os.fork() == 0:\n"
        "        if os.fork() == 0: time.sleep(0.01)\n"
        "        os._exit(0)\n"
        "    os.wait()\n"
        "time.sleep(1)\n"
        "states = []\n"
        "for pid in filter(str.isdigit, os.listdir('/proc')):\n"
        "    try: states.append(open(f'/proc/{pid}/stat').read().rpartition(')')[2].split()[0])\n"
        "    except OSError: pass\n"
        "print(states.count('Z'))\n",
    )
    assert training.train().stdout == "0\n"


def test_docker_stop_lets_the_program_save(training: Training) -> None:
    training.code(
        "train.py",
        "import signal, sys, time\n"
        "def save(*_): time.sleep(0.5); open('/opt/ml/checkpoints/last', 'w').close(); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, save)\n"
        "print('ready', flush=True); time.sleep(60)\n",
    )
    with training.start() as container:
        container.wait_for_log("ready")
        container.kill("TERM")
        assert container.wait() == 0
    assert (training.root / "checkpoints/last").exists()


def test_the_memory_of_pid_1(training: Training) -> None:
    training.code(
        "train.py", "print(*(line.split()[1] for line in open('/proc/1/status') if 'VmHWM' in line))"
    )
    assert int(training.train().stdout) <= 14 * 1024


def wheel(directory: Path, name: str) -> str:
    """The smallest wheel there is."""
    path = directory / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", f"NAME = {name!r}\n")
        info = f"{name}-1.0.dist-info"
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path.name


@pytest.mark.parametrize("program", ["train.py", "train.sh"])
def test_requirements_are_installed_for_every_kind(training: Training, program: str) -> None:
    training.code("requirements.txt", "./" + wheel(training.root / "code", "tinypkg"))
    training.code("train.py", "import tinypkg; print(tinypkg.NAME)")
    training.code("train.sh", "python3 -c 'import tinypkg; print(tinypkg.NAME)'")
    done = training.train(SAGEMAKER_PROGRAM=program)
    assert done.code == 0, done.output
    assert done.stdout.endswith("tinypkg\n")


def test_a_requirement_that_fails_is_named(training: Training) -> None:
    training.code("requirements.txt", "no-such-package-here==9")
    training.code("train.py", "print('never')")
    done = training.train("--network=none", PIP_NO_INDEX="1")
    assert done.code == 1
    assert "no-such-package-here==9" in training.failure
    assert "never" not in done.stdout


def test_requirements_where_nothing_can_be_installed(training: Training) -> None:
    training.code("requirements.txt", "./" + wheel(training.root / "code", "tinypkg"))
    training.code("train.py", "print('never')")
    done = training.train("--network=none", *HARDENED)
    assert done.code == 1
    assert "is not writable here" in training.failure


def test_code_from_an_archive_lands_in_tmp_where_all_else_is_read_only(training: Training) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        info = tarfile.TarInfo("./train.py")
        text = b"print('from the archive')"
        info.size = len(text)
        archive.addfile(info, io.BytesIO(text))
    channel = training.root / "input/data/code"
    channel.mkdir()
    (channel / "sourcedir.tar.gz").write_bytes(data.getvalue())
    (training.root / "code").chmod(0o555)
    assert training.train(*HARDENED).stdout == "from the archive\n"
    os.chmod(training.root / "code", 0o777)
