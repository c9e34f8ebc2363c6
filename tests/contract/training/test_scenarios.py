"""The functional tests of sagemaker-training and sagemaker-containers, replayed against our image.

Source: test/functional and test/container of these projects: success, failure, client error, import error,
network isolation, local directory.
"""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from tests.support.archives import archive, pack
from tests.support.training import Training
from tests.support.wheels import wheel

pytestmark = pytest.mark.image("cpu-train")

WRITE = "import tinypkg, sys; open('/opt/ml/model/model', 'w').write(' '.join(sys.argv[1:]))"
MAIN = f"def main(): {WRITE}"
WRITE_IN_SHELL = "python3 -c 'import tinypkg' && printf %s \"$*\" > /opt/ml/model/model"
PROJECT = {
    "script": {"train.py": WRITE},
    "package": {
        "pkg/__init__.py": "",
        "pkg/train.py": WRITE,
        "pyproject.toml": '[project]\nname = "pkg"\nversion = "1"\n'
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
        "backend.py": "def build_wheel(directory, settings=None, metadata=None):\n"
        "    import shutil; return shutil.copy('pkg-1.0-py3-none-any.whl', directory)\n",
    },
    "shell": {"train.sh": WRITE_IN_SHELL},
    "executable": {"go": f"#!/bin/sh\n{WRITE_IN_SHELL}"},
    "module": {"frame.py": MAIN},
    "command": {"main.py": ""},
}
PROGRAM = {
    "script": {"SAGEMAKER_PROGRAM": "train.py"},
    "package": {"SAGEMAKER_PROGRAM": "pkg/train.py"},
    "shell": {"SAGEMAKER_PROGRAM": "train.sh"},
    "executable": {"SAGEMAKER_PROGRAM": "go"},
    "module": {"SAGEMAKER_TRAINING_MODULE": "frame:main"},
    "command": {"SAGEMAKER_PROGRAM": "tinycommand"},
}


def project(directory: Path, kind: str) -> Path:
    """A project of this kind that requires a wheel beside it."""
    directory.mkdir(exist_ok=True, parents=True)
    for name, text in PROJECT[kind].items():
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_text(text)
    (directory / "requirements.txt").write_text(f"./{wheel(directory, 'tinypkg', tinycommand=MAIN)}\n")
    if kind == "package":
        wheel(directory, "pkg", **{"pkg/train": WRITE})
    return directory


@pytest.mark.parametrize("kind", PROJECT)
@pytest.mark.parametrize("source", ["baked", "directory", "archive", "isolated"])
@pytest.mark.one_variant
def test_every_kind_of_program_from_every_place(training: Training, kind: str, source: str) -> None:
    variables = dict(PROGRAM[kind])
    if source == "baked":
        project(training.root / "code", kind)
    elif source == "directory":
        project(training.root / "elsewhere", kind)
        variables["SAGEMAKER_SUBMIT_DIRECTORY"] = "/opt/ml/elsewhere"
    elif source == "archive":
        pack(project(training.root.parent / "work", kind), training.root / "sourcedir.tar.gz")
        variables["SAGEMAKER_SUBMIT_DIRECTORY"] = "file:///opt/ml/sourcedir.tar.gz"
    else:
        channel = training.root / "input/data/code"
        channel.mkdir()
        pack(project(training.root.parent / "work", kind), channel / "sourcedir.tar.gz")
    training.config("hyperparameters.json", {"epochs": "3"})
    done = training.train("--network=none", **variables)
    assert done.code == 0, done.output
    assert (training.root / "model/model").read_text() == "--epochs 3"
    assert training.success


def test_success(training: Training) -> None:
    training.code("user_script.py", "open('/opt/ml/model/saved_model', 'w').close()")
    training.config("hyperparameters.json", {"sagemaker_program": '"user_script.py"', "learning-rate": "0.2"})
    done = training.train()
    assert done.code == 0
    assert training.success and not (training.root / "output/failure").exists()
    assert (training.root / "model/saved_model").exists()
    assert done.stderr.splitlines()[-1] == "optml: Reporting training SUCCESS"


@pytest.mark.one_variant
def test_failure(training: Training) -> None:
    training.code(
        "user_script.py", "import os; print('x' * 5000, file=__import__('sys').stderr); os._exit(42)"
    )
    done = training.train(SAGEMAKER_PROGRAM="user_script.py")
    assert done.code == 42
    assert not training.success
    assert training.failure == "x" * 1024
    assert done.stderr.splitlines()[-1] == "optml: Reporting training FAILURE"


@pytest.mark.one_variant
def test_client_error(training: Training) -> None:
    """The user's code raises: the exception is the reason."""
    training.code("user_script.py", "def f(): raise OSError(2, 'No such dataset')\nf()")
    assert training.train(SAGEMAKER_PROGRAM="user_script.py").code == 1
    first, second, *_ = training.failure.splitlines()
    assert first == "FileNotFoundError: [Errno 2] No such dataset"
    assert second == "user_script.py exited with code 1"
    assert "in f" in training.failure


def test_import_error(training: Training) -> None:
    training.code("user_script.py", "import no_module_of_this_name")
    done = training.train(SAGEMAKER_PROGRAM="user_script.py")
    assert done.code == 1
    assert training.failure.startswith("ModuleNotFoundError: No module named 'no_module_of_this_name'\n")
    assert done.output.count("Traceback") == 1


def test_network_isolation(training: Training) -> None:
    """The platform provides the code as a channel."""
    channel = training.root / "input/data/code"
    channel.mkdir()
    (channel / "sourcedir.tar.gz").write_bytes(archive(user_script="print('isolated')"))
    training.config("hyperparameters.json", {"sagemaker_program": "user_script.py"})
    training.config("inputdataconfig.json", {"code": {"TrainingInputMode": "File"}})
    done = training.train("--network=none")
    assert (done.code, done.stdout) == (0, "isolated\n"), done.output


@pytest.mark.parametrize("place", ["/opt/ml/code", "/opt/ml/input/data/code"])
@pytest.mark.one_variant
def test_local_directory(training: Training, place: str) -> None:
    directory = training.root / place.removeprefix("/opt/ml/")
    directory.mkdir(exist_ok=True)
    (directory / "user_script.py").write_text("import os; print(os.getcwd(), os.environ['SM_MODULE_DIR'])")
    training.config(
        "hyperparameters.json", {"sagemaker_program": "user_script.py", "sagemaker_submit_directory": place}
    )
    done = training.train()
    assert done.stdout == f"{place} {place}\n", done.output


@pytest.mark.one_variant
def test_a_package_in_a_folder_needs_no_setup(training: Training) -> None:
    training.code("pkg/helper.py", "NAME = 'helper'")
    training.code("pkg/train.py", "import helper, pkg.helper; print(pkg.helper.NAME)")
    assert training.train(SAGEMAKER_PROGRAM="pkg/train.py").stdout == "helper\n"


@pytest.mark.one_variant
def test_an_archive_that_leaves_the_code_directory_ends_the_job(training: Training) -> None:
    with tarfile.open(training.root / "evil.tar.gz", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("../../model/evil"), io.BytesIO())
    done = training.train(SAGEMAKER_SUBMIT_DIRECTORY="/opt/ml/evil.tar.gz")
    assert done.code == 1
    assert "lies outside the code directory" in training.failure
    assert not (training.root / "model/evil").exists()


@pytest.mark.one_variant
def test_an_archive_larger_than_the_disk_says_so(training: Training) -> None:
    (training.root / "code.tar.gz").write_bytes(archive(train="\0" * (8 << 20)))
    small = "--tmpfs=/opt/ml/code:size=1m,mode=777"
    assert training.train(small, SAGEMAKER_SUBMIT_DIRECTORY="/opt/ml/code.tar.gz").code == 1
    assert training.failure.endswith("unpacks to 8 MiB but /opt/ml/code has 1 MiB free; give it more disk")


@pytest.mark.one_variant
def test_nothing_is_run_by_a_shell(training: Training) -> None:
    training.code("train.py", "import sys; print(sys.argv[1:])")
    training.config("hyperparameters.json", {"name": "$(touch /opt/ml/model/evil); `id` && $HOME 'x"})
    assert training.train().stdout == """['--name', "$(touch /opt/ml/model/evil); `id` && $HOME 'x"]\n"""
    assert not (training.root / "model/evil").exists()
