"""A training job from the platform's files to its exit code, in a container."""

from __future__ import annotations

import json

import pytest

from tests.support.archives import archive
from tests.support.docker import HARDENED, run
from tests.support.training import Training
from tests.support.wheels import wheel

pytestmark = pytest.mark.image("cpu-train")


def test_user_code_asks_for_its_job(training: Training) -> None:
    training.code("train.py", "import optml; job = optml.job(); print(job.hyperparameters, job.model_dir)")
    training.config("hyperparameters.json", {"epochs": "3"})
    assert training.train().stdout == "{'epochs': 3} /opt/ml/model\n"


@pytest.mark.one_variant
def test_every_python_of_the_container_finds_its_job(training: Training) -> None:
    """One in a second virtual environment, which comes first on PATH."""
    training.code("train.py", "import optml, sys; print(sys.prefix, optml.job().model_dir)")
    begin = "/usr/bin/python3 -m venv --without-pip /tmp/second && PATH=/tmp/second/bin:$PATH"
    script = f"{begin} /opt/optml/bin/entrypoint train"
    done = run(training.image, "sh", "-c", script, options=training.options())
    assert done.stdout == "/tmp/second /opt/ml/model\n", done.output


def test_a_script_of_the_toolkits_finds_its_job(training: Training) -> None:
    training.config("hyperparameters.json", {"epochs": "3"})
    training.code(
        "train.py",
        "from sagemaker_containers.beta.framework import (\n"
        "    content_types, encoders, entry_point, env, modules, transformer, worker)\n"
        "from sagemaker_training import environment\n"
        "print(environment.Environment().hyperparameters, env.TrainingEnv().model_dir)\n",
    )
    done = training.train()
    assert done.stdout == "{'epochs': 3} /opt/ml/model\n", done.output


@pytest.mark.one_variant
def test_a_toolkit_that_is_installed_comes_first(training: Training) -> None:
    training.code("requirements.txt", "./" + wheel(training.root / "code", "sagemaker_training"))
    training.code("train.py", "import sagemaker_training; print(sagemaker_training.NAME)")
    done = training.train("--network=none")
    assert done.stdout.endswith("sagemaker_training\n"), done.output


@pytest.mark.one_variant
def test_check_starts_nothing(training: Training) -> None:
    training.code("train.py", "print('never')")
    training.code("requirements.txt", "absent-package")
    done = training.train("--network=none", argv=("--check", "--json"))
    report = json.loads(done.stdout)
    assert (done.code, report["wrong"], report["installs"]) == (0, [], ["requirements.txt"])
    assert not training.success


def test_the_strictest_platform(training: Training) -> None:
    training.code("train.py", "import os; open(os.environ['SM_MODEL_DIR'] + '/m', 'w').write('model')")
    done = training.train(*HARDENED)
    assert done.code == 0, done.output
    assert (training.root / "model/m").read_text() == "model"
    assert training.success


def test_as_another_user_on_request(training: Training) -> None:
    training.code("requirements.txt", "./" + wheel(training.root / "code", "tinypkg"))
    training.code(
        "train.py",
        "import os, tinypkg\n"
        "print(os.getuid(), os.environ['HOME'], os.stat(tinypkg.__file__).st_uid)\n"
        "status = [line.split() for line in open('/proc/self/status')]\n"
        "print(*[words[1] for words in status if words[0].startswith(('NoNew', 'Cap'))])\n"
        "print(open('/opt/ml/checkpoints/epoch/1').read()); open('/opt/ml/model/m', 'w')\n",
    )
    checkpoint = training.root / "checkpoints/epoch/1"
    checkpoint.parent.mkdir(mode=0o700, parents=True)
    checkpoint.write_text("restored")
    checkpoint.chmod(0o600)
    done = training.train(SAGEMAKER_TRAINING_USER="ml")
    assert done.code == 0, done.output
    *_, who, rights, restored = done.stdout.splitlines()
    assert who == "1000 /home/ml 1000"
    assert set(rights.split()) == {"0" * 16, "1"}
    assert restored == "restored"


@pytest.mark.one_variant
def test_checkpoints_that_stay_roots_are_named(training: Training) -> None:
    training.code("train.py", "")
    (training.root / "checkpoints/1").write_text("restored")
    done = training.train(
        f"--volume={training.root}/checkpoints:/opt/ml/checkpoints:ro", SAGEMAKER_TRAINING_USER="ml"
    )
    assert "optml: /opt/ml/checkpoints cannot be given to ml; run `chown -R 1000 /opt/ml/check" in done.stderr


@pytest.mark.one_variant
def test_no_code_at_all(image: str) -> None:
    done = run(image, "train")
    assert done.code == 1
    assert "no program to run: set SAGEMAKER_PROGRAM" in done.stderr
    assert "Traceback" not in done.output


@pytest.mark.one_variant
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


@pytest.mark.one_variant
def test_a_requirement_that_fails_is_named(training: Training) -> None:
    training.code("requirements.txt", "no-such-package-here==9")
    training.code("train.py", "print('never')")
    done = training.train("--network=none", PIP_NO_INDEX="1")
    assert done.code == 1
    assert "no-such-package-here==9" in training.failure
    assert "never" not in done.stdout


@pytest.mark.one_variant
def test_requirements_where_nothing_can_be_installed(training: Training) -> None:
    training.code("requirements.txt", "./" + wheel(training.root / "code", "tinypkg"))
    training.code("train.py", "print('never')")
    done = training.train("--network=none", *HARDENED)
    assert done.code == 1
    assert "is not writable here" in training.failure


@pytest.mark.one_variant
def test_code_from_an_archive_lands_in_tmp_where_all_else_is_read_only(training: Training) -> None:
    channel = training.root / "input/data/code"
    channel.mkdir()
    (channel / "sourcedir.tar.gz").write_bytes(archive(train="print('from the archive')"))
    (training.root / "code").chmod(0o555)
    assert training.train(*HARDENED).stdout == "from the archive\n"
    (training.root / "code").chmod(0o777)
