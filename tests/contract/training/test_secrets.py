"""A job's secrets are neither in the lines that the runtime writes nor in the reason of a failure."""

from __future__ import annotations

import json
import tarfile

import pytest

from optml.report import SECRET_WORDS
from tests.support.docker import Result
from tests.support.training import Training

pytestmark = pytest.mark.image("cpu-train")

VARIABLES = {f"MY_{word}_A": f"variable-{word.lower()}-9z" for word in SECRET_WORDS}
HYPERPARAMETERS = {f"my_{word.lower()}_b": f"parameter-{word.lower()}-9z" for word in SECRET_WORDS}
NESTED = {
    "store": json.dumps({"login": {"db_password": "nested-9z", "hosts": [{"api_key": "deep-9z"}]}}),
    "tokens": '["first-9z", "second-9z"]',
    "sagemaker_custom_secret": "platform-9z",
    "sagemaker_instance_type": "ml.local",
}
ALL = [
    *VARIABLES.values(),
    *HYPERPARAMETERS.values(),
    "nested-9z",
    "deep-9z",
    "first-9z",
    "second-9z",
    "platform-9z",
]


def ours(done: Result, marker: str) -> str:
    """What the runtime wrote: stderr without what stands between the program's markers."""
    before, between, after = done.stderr.partition(f"<<<{marker}\n")
    return before + (after.partition(f"{marker}>>>\n")[2] if between else "")


@pytest.fixture
def secretive(training: Training) -> Training:
    training.config("hyperparameters.json", {"epochs": "3", **HYPERPARAMETERS, **NESTED})
    return training


def test_a_job_that_succeeds(secretive: Training) -> None:
    secretive.code("train.py", "import os; print(os.environ['MY_TOKEN_A'], os.environ['SM_HP_MY_KEY_B'])")
    done = secretive.train(argv=("--password", "argument-9z"), **VARIABLES)
    assert done.stdout == "variable-token-9z parameter-key-9z\n"  # the program itself sees them
    assert "epochs" in done.stderr and "******" in done.stderr
    assert [word for word in [*ALL, "argument-9z"] if word in done.stderr] == []


def test_a_traceback_that_holds_them_all(secretive: Training) -> None:
    secretive.code(
        "train.py",
        "import sys\n"
        "sys.stderr.write('<<<program\\n')\n"
        "def hook(kind, error, trace):\n"
        "    sys.__excepthook__(kind, error, trace); sys.stderr.write('program>>>\\n')\n"
        "sys.excepthook = hook\n"
        f"raise ValueError('https://user:inline@host ' + ' '.join({ALL!r}))\n",
    )
    done = secretive.train(**VARIABLES)
    assert done.code == 1
    assert secretive.failure.startswith("ValueError: https://******@host ******")
    for text in (secretive.failure, ours(done, "program")):
        assert [word for word in [*ALL, "inline"] if word in text] == []
    assert "variable-token-9z" in done.stderr  # what the program writes passes through


@pytest.mark.parametrize("trouble", ["no program", "bad archive", "bad requirement"])
@pytest.mark.one_variant
def test_a_job_that_does_not_start(secretive: Training, trouble: str) -> None:
    variables = dict(VARIABLES)
    if trouble == "no program":
        variables["SAGEMAKER_PROGRAM"] = "variable-token-9z.py"
    elif trouble == "bad archive":
        with tarfile.open(secretive.root / "code.tar.gz", "w:gz") as archive:
            archive.addfile(tarfile.TarInfo("../parameter-key-9z"))
        variables["SAGEMAKER_SUBMIT_DIRECTORY"] = "/opt/ml/code.tar.gz"
    else:
        secretive.code("train.py", "")
        secretive.code("requirements.txt", "/absent/variable-token-9z.whl")
    done = secretive.train("--network=none", **variables)
    assert done.code == 1
    lines = [line for line in done.stderr.splitlines() if line.startswith(("optml", "  "))]
    for text in ("\n".join(lines), secretive.failure):
        assert [word for word in ALL if word in text] == []
    assert "******" in secretive.failure


def test_env_prints_none(secretive: Training) -> None:
    secretive.code("train.sh", "python -m optml env")
    done = secretive.train(**VARIABLES)
    printed = json.loads(done.stdout)
    assert printed["hyperparameters"]["epochs"] == 3
    assert printed["hyperparameters"]["my_key_b"] == "******"
    assert [word for word in ALL if word in done.output] == []
