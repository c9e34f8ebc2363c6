"""`train` from files to exit code, as a process on this host."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from tests.unit.training.conftest import RUNTIME, Ml


def test_success(ml: Ml) -> None:
    ml.code("train.py", "import sys; print(sys.argv[1:])")
    ml.config("hyperparameters.json", {"epochs": "3", "lr": "3.10"})
    done = ml.train("--extra", "x")
    assert done.returncode == 0
    assert done.stdout == "['--epochs', '3', '--lr', '3.10', '--extra', 'x']\n"
    assert done.stderr.splitlines()[-1].endswith("Reporting training SUCCESS")
    assert ml.success


def test_the_program_finds_its_job_in_the_environment(ml: Ml) -> None:
    ml.code("pkg/helper.py", "")
    ml.code(
        "pkg/train.py", "import os, json, pkg.helper; print(json.loads(os.environ['SM_HPS']), os.getcwd())"
    )
    ml.config("hyperparameters.json", {"a": "[1]"})
    assert ml.train(SAGEMAKER_PROGRAM="pkg/train.py").stdout == f"{{'a': [1]}} {ml.root}/code\n"


@pytest.mark.parametrize(("status", "code"), [(3, 3), (42, 42), (137, 137), (257, 1), (255, 255)])
def test_the_exit_code_of_the_program_is_ours(ml: Ml, status: int, code: int) -> None:
    ml.code("train.py", f"import os; os._exit({status})")
    assert ml.train().returncode == code
    assert ml.failure.startswith(f"train.py exited with code {code}")
    assert not ml.success


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_killed_by_a_signal_is_128_and_its_number(ml: Ml, number: signal.Signals) -> None:
    ml.code("train.py", f"import os; os.kill(os.getpid(), {int(number)})")
    assert ml.train().returncode == 128 + number
    assert ml.failure.startswith(f"train.py was killed by signal {int(number)} ({number.name})")


def test_the_reason_begins_with_the_exception(ml: Ml) -> None:
    ml.code("train.py", "print('loading'); raise ValueError('no rows')")
    assert ml.train().returncode == 1
    assert ml.failure.splitlines()[0] == "ValueError: no rows"
    assert "Traceback (most recent call last)" in ml.failure


def test_a_reason_that_the_user_wrote_is_kept(ml: Ml) -> None:
    ml.code("train.py", "import os; open(os.environ['SM_OUTPUT_FAILURE'], 'w').write('mine'); 1 / 0")
    assert ml.train().returncode == 1
    assert ml.failure == "mine"


def test_the_outcome_of_an_earlier_run_is_removed(ml: Ml) -> None:
    (ml.root / "output/failure").write_text("old")
    ml.code("train.py", "raise ValueError('new')")
    ml.train()
    assert ml.failure.startswith("ValueError: new")
    ml.code("train.py", "")
    ml.train()
    assert ml.success and not (ml.root / "output/failure").exists()


def test_failure_is_reported_without_an_output_directory(ml: Ml) -> None:
    (ml.root / "output/data").rmdir()
    (ml.root / "output").rmdir()
    (ml.root / "output").write_text("in the way")
    ml.code("train.py", "raise SystemExit(42)")
    done = ml.train()
    assert done.returncode == 42
    assert "cannot write" in done.stderr and "Reporting training FAILURE" in done.stderr


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("hyperparameters.json", "not json", "hyperparameters.json is not JSON"),
        ("hyperparameters.json", "", "hyperparameters.json is not JSON"),
        ("hyperparameters.json", '{"a": "b', "hyperparameters.json is not JSON: Unterminated string"),
        ("hyperparameters.json", "[1]", "hyperparameters.json holds an array"),
        ("hyperparameters.json", '"x"', "hyperparameters.json holds a string"),
        ("hyperparameters.json", '{"a": "x\\u0000y"}', "hyperparameter 'a'"),
        ("hyperparameters.json", '{"a": "\\ud800"}', "hyperparameter 'a'"),
        ("hyperparameters.json", '{"sagemaker_program": "a\\u0000"}', "hyperparameter 'sagemaker_program'"),
        ("hyperparameters.json", '{"a": %s}' % ("[" * 200 + "]" * 200), "nested deeper than 100 levels"),
        ("resourceconfig.json", '{"hosts": "algo-1"}', "hosts must be an array"),
        ("resourceconfig.json", '{"current_host": "b", "hosts": ["a"]}', "is not one of hosts"),
        ("resourceconfig.json", '{"hosts": ["a\\u0000"]}', "hosts must be an array"),
        (
            "resourceconfig.json",
            '{"network_interface_name": ["eth0"]}',
            "network_interface_name must be a name",
        ),
        (
            "resourceconfig.json",
            '{"current_instance_type": "\\ud800"}',
            "current_instance_type must be a name",
        ),
        ("resourceconfig.json", '{"hosts": ["a"], "instance_groups": [1]}', "instance_groups"),
        (
            "resourceconfig.json",
            '{"instance_groups": [{"instance_group_name": true, "hosts": []}]}',
            "instance_groups",
        ),
        ("inputdataconfig.json", "null", "inputdataconfig.json holds null"),
    ],
)
def test_bad_configuration_is_a_one_line_error(ml: Ml, name: str, content: str, said: str) -> None:
    ml.code("train.py", "")
    ml.config(name, content)
    done = ml.train()
    assert done.returncode == 1
    assert said in ml.failure and "\n" not in ml.failure
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({}, "no program to run: set SAGEMAKER_PROGRAM"),
        ({"SAGEMAKER_PROGRAM": "absent.py"}, "there is no program 'absent.py'"),
        ({"SAGEMAKER_SUBMIT_DIRECTORY": "/absent"}, "the submit directory '/absent' does not exist"),
        (
            {"SAGEMAKER_HYPERPARAMETER_STYLE": "x", "SAGEMAKER_PROGRAM": "ls"},
            "SAGEMAKER_HYPERPARAMETER_STYLE",
        ),
        ({"SAGEMAKER_TRAINING_USER": "nobody-here", "SAGEMAKER_PROGRAM": "ls"}, "no such user"),
        ({"SAGEMAKER_PROGRAM": "ls", "PATH": "/absent"}, "no python3 on PATH"),
        (
            {"SAGEMAKER_SUBMIT_DIRECTORY": "s3://b/code.zip"},
            "'s3://b/code.zip' is not a .tar.gz; pack it as one",
        ),
        ({"SAGEMAKER_SUBMIT_DIRECTORY": "/code.tar.bz2"}, "'/code.tar.bz2' is not a .tar.gz; pack it as one"),
        ({"SAGEMAKER_SUBMIT_DIRECTORY": "a\nb"}, r"the submit directory 'a\nb'"),
        ({"SAGEMAKER_TRAINING_USER": "9" * 5000, "SAGEMAKER_PROGRAM": "ls"}, "no such user"),
    ],
)
def test_bad_settings_are_a_one_line_error(ml: Ml, variables: dict[str, str], said: str) -> None:
    done = ml.train(**variables)
    assert done.returncode == 1
    assert said in ml.failure and "\n" not in ml.failure
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("text", ['"', '"a', '"\\x"', '"a\n"'])
def test_a_string_that_only_begins_like_json_stays_a_string(ml: Ml, text: str) -> None:
    ml.code("train.py", "import sys; print(repr(sys.argv[2]))")
    ml.config("hyperparameters.json", {"a": text})
    assert ml.train().stdout == f"{text!r}\n"


def test_what_no_variable_can_hold_does_not_stop_the_job(ml: Ml) -> None:
    ml.code("train.py", "import os; print('SM_CHANNEL_A' in os.environ)")
    ml.config("inputdataconfig.json", {"a": {}, "\ud800": {}, "\0": {}})
    ml.config("hyperparameters.json", {"deep": "[" * 100 + "]" * 100})
    assert ml.train().stdout == "True\n"


def test_a_framework_function_that_exits(ml: Ml) -> None:
    ml.code("frame.py", "import sys\ndef main(): sys.exit(7)")
    assert ml.train(SAGEMAKER_TRAINING_MODULE="frame:main").returncode == 7


def archive(path: Path, **files: str) -> Path:
    sources = path.parent / "sources"
    sources.mkdir()
    with tarfile.open(path, "w:gz") as tar:
        for name, text in files.items():
            (sources / name).write_text(text)
            tar.add(sources / name, f"./{name}.py")
    return path


def test_an_explicit_submit_directory_overrides_the_baked_in_code(ml: Ml, tmp_path: Path) -> None:
    ml.code("train.py", "print('baked')")
    source = archive(tmp_path / "sourcedir.tar.gz", train="print('submitted')")
    done = ml.train(SAGEMAKER_SUBMIT_DIRECTORY=str(source), SAGEMAKER_PROGRAM="train.py")
    assert done.stdout == "submitted\n"
    assert str(source) in done.stderr


def test_code_of_an_isolated_job(ml: Ml) -> None:
    (ml.root / "input/data/code").mkdir()
    archive(ml.root / "input/data/code/sourcedir.tar.gz", train="print('isolated')")
    assert ml.train().stdout == "isolated\n"


@pytest.mark.parametrize("form", ["{}", "file://{}", "{}/"])
def test_a_local_directory_is_used_in_place(ml: Ml, tmp_path: Path, form: str) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/train.py").write_text("import os; print(os.getcwd())")
    done = ml.train(SAGEMAKER_SUBMIT_DIRECTORY=form.format(tmp_path / "mine"))
    assert done.stdout == f"{tmp_path}/mine\n"


def test_a_local_file_is_the_program(ml: Ml, tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text("print('one')")
    assert ml.train(SAGEMAKER_SUBMIT_DIRECTORY=f"{tmp_path}/one.py").stdout == "one\n"


def test_secrets_are_neither_in_the_log_nor_in_the_reason(ml: Ml) -> None:
    ml.code("train.py", "import sys; raise ValueError(sys.argv)")
    ml.config("hyperparameters.json", {"api_key": "s3cr3t-1", "n": json.dumps({"password": "s3cr3t-2"})})
    done = ml.train(HF_TOKEN="s3cr3t-3")
    ours = [line for line in done.stderr.splitlines() if line.startswith(("optml", "  "))]
    assert "s3cr3t" not in "\n".join(ours[:10])
    assert "s3cr3t" not in ml.failure and "ValueError" in ml.failure


def test_a_secret_among_the_platforms_parameters_is_masked(ml: Ml) -> None:
    ml.code("train.py", "raise ValueError('s3cr3t-1')")
    ml.config("hyperparameters.json", {"sagemaker_api_key": "s3cr3t-1"})
    ml.train()
    assert ml.failure.startswith("ValueError: ******\n")


def test_output_passes_through_byte_for_byte(ml: Ml) -> None:
    ml.code(
        "train.py",
        "import os\n"
        "for i in range(2000):\n"
        "    os.write(1, b'  out \\xff\\r' + bytes([i % 256]))\n"
        "    os.write(2, b'\\terr \\xc3' + bytes([i % 256]) * 40)\n",
    )
    out, err = ml.start().communicate(timeout=60)
    assert out == b"".join(b"  out \xff\r" + bytes([i % 256]) for i in range(2000))
    assert b"".join(b"\terr \xc3" + bytes([i % 256]) * 40 for i in range(2000)) in err


def test_a_background_child_does_not_delay_the_end(ml: Ml) -> None:
    ml.code(
        "train.py",
        "import os, subprocess, sys\n"
        "child = subprocess.Popen(['sleep', '60'], start_new_session=True)\n"
        "print(child.pid); sys.stderr.write('last words\\n'); sys.stderr.flush(); os._exit(5)\n",
    )
    process = ml.start()
    assert process.wait(timeout=30) == 5
    assert process.stdout and process.stderr
    os.kill(int(process.stdout.readline()), signal.SIGKILL)
    assert b"last words" in process.stderr.read()
    process.stdout.close()
    process.stderr.close()


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP]
)
def test_signals_reach_the_whole_process_group(ml: Ml, number: signal.Signals) -> None:
    ml.code(
        "train.py",
        "import os, signal, sys, time\n"
        f"caught = lambda n, f: (os.write(1, b'caught\\n'), os._exit(0))\n"
        f"signal.signal({int(number)}, caught)\n"
        "child = os.fork()\n"
        "os.write(1, b'ready\\n')\n"
        # Python may get a signal just before a blocking call, and handle it only afterwards.
        "while True: time.sleep(0.05)\n",
    )
    process = ml.start()
    assert process.stdout
    assert [process.stdout.readline() for _ in range(2)] == [b"ready\n"] * 2
    process.send_signal(number)
    out, _ = process.communicate(timeout=30)
    assert out.count(b"caught") == 2
    assert process.returncode == 0


def test_a_program_that_saves_on_sigterm_finishes(ml: Ml) -> None:
    ml.code(
        "train.py",
        "import signal, sys, time, os\n"
        "def save(n, f):\n"
        "    time.sleep(0.3); open(os.environ['SM_MODEL_DIR'] + '/saved', 'w').close(); sys.exit(9)\n"
        "signal.signal(signal.SIGTERM, save)\n"
        "print('ready', flush=True)\n"
        "while True: time.sleep(0.05)\n",
    )
    process = ml.start()
    assert process.stdout and process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 9
    assert (ml.root / "model/saved").exists()
    assert "asked to stop" in ml.failure


def test_a_stop_while_requirements_are_installed(ml: Ml, tmp_path: Path) -> None:
    uv = tmp_path / "bin/uv"
    uv.parent.mkdir()
    uv.write_text("#!/bin/sh\necho installing\nexec sleep 60\n")
    uv.chmod(0o755)
    ml.code("requirements.txt", "x")
    ml.code("train.py", "")
    process = ml.start(PATH=f"{uv.parent}:{os.environ['PATH']}")
    assert process.stdout and process.stdout.readline() == b"installing\n"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 143
    assert "stopped by signal 15" in ml.failure


def test_a_flood_of_stderr_takes_no_memory(ml: Ml) -> None:
    """Only the end is kept, and a traceback before it."""
    own = "next(int(line.split()[1]) for line in open(f'/proc/{os.getppid()}/status') if 'VmHWM' in line)"
    flood = "for _ in range(3000): os.write(2, b'x' * 60000)"
    trace = r"os.write(2, b'Traceback (most recent call last):\nValueError: it\n')"
    ml.code("train.py", f"import os\nbefore = {own}\n{trace}\n{flood}\nprint({own} - before); os._exit(1)")
    done = ml.train()
    assert int(done.stdout) < 8 << 10
    assert ml.failure.startswith("ValueError: it\n")


def test_a_nonblocking_stderr_loses_nothing(ml: Ml) -> None:
    ml.code("train.py", "import os\nfor i in range(200): os.write(2, b'%06d' % i * 1000)")
    read, write = os.pipe2(os.O_NONBLOCK)
    command = [sys.executable, "-I", "-S", str(RUNTIME), "train"]
    process = subprocess.Popen(command, env=ml.environment(), stderr=write)
    os.close(write)
    os.set_blocking(read, True)
    with open(read, "rb") as stderr:
        time.sleep(0.5)  # the pipe is full by now
        text = stderr.read()
    assert process.wait(timeout=30) == 0
    assert b"".join(b"%06d" % i * 1000 for i in range(200)) in text


def test_the_log_level_hides_the_block(ml: Ml) -> None:
    ml.code("train.py", "")
    assert "training environment" in ml.train().stderr
    assert "training environment" not in ml.train(SAGEMAKER_CONTAINER_LOG_LEVEL="WARNING").stderr


def test_a_plain_job_imports_nothing_that_takes_long(ml: Ml) -> None:
    """The user's program waits for every module, here and in the child that becomes it."""
    ml.code("train.py", "")
    ml.config("hyperparameters.json", {"epochs": "3", "api_key": "s3cr3t"})
    command = [sys.executable, "-I", "-S", "-X", "importtime", str(RUNTIME), "train"]
    done = subprocess.run(command, env=ml.environment(), capture_output=True, text=True, timeout=60)
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    imported = {line.rpartition("|")[2].strip() for line in lines}
    assert {"optml.training.train", "optml.training.phases"} <= imported
    slow = {"typing", "collections", "enum", "re", "json", "signal", "socket", "subprocess", "contextlib"}
    slow |= {"tempfile", "shutil", "tarfile", "logging", "threading", "optml.training.schedulers"}
    slow |= {"optml.training.rendezvous", "optml.training.mpi", "optml.training.requirements"}
    assert imported & slow == set()
    assert len([name for name in imported if name.startswith("optml.")]) <= 30
