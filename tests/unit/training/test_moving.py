"""Scripts for sagemaker-training and SageMaker Containers find here what they had there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from optml.training.environment import table
from tests.unit.training.conftest import Ml, a_job, a_program

RUNTIME = Path(__file__).parents[3] / "runtime"

# The start of AWS's own example scripts that train and serve in one file.
SCRIPT = """
from sagemaker_containers.beta.framework import (
    content_types, encoders, entry_point, env, modules, transformer, worker)
from sagemaker_training import environment
import json, sagemaker_containers
from sagemaker_containers import entry_point as hosts
hosts._wait_hostname_resolution()
found = environment.Environment()
print(json.dumps({
    "epochs": found.hyperparameters["epochs"],
    "train": sagemaker_containers.training_env().channel_input_dirs["train"],
    "host": env.TrainingEnv().current_host,
    "argv": found.to_cmd_args(),
    "variable": found.to_env_vars()["SM_HP_EPOCHS"],
    "fields": dict(found),
    "type": content_types.JSON,
}))
"""


def run(ml: Ml, script: str, *path: Path) -> subprocess.CompletedProcess[str]:
    begin = f"import sys; sys.path += {[str(each) for each in path]}\n"
    command = [sys.executable, "-I", "-c", begin + script]
    return subprocess.run(command, env=ml.environment(), capture_output=True, text=True, timeout=60)


def test_a_script_for_the_toolkits_finds_its_job(ml: Ml) -> None:
    ml.config("hyperparameters.json", {"epochs": "3", "sagemaker_program": "train.py"})
    ml.config("inputdataconfig.json", {"train": {}})
    done = run(ml, SCRIPT, RUNTIME, RUNTIME / "shims")
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    fields = seen.pop("fields")
    assert seen == {
        "epochs": 3,
        "train": f"{ml.root}/input/data/train",
        "host": "localhost",
        "argv": ["--epochs", "3"],
        "variable": "3",
        "type": "application/json",
    }
    assert set(fields) == set(table(a_job(), a_program(), [])["SM_TRAINING_ENV"])
    assert fields["module_name"] == "train"


def test_an_attribute_that_the_training_environment_lacks_is_named(ml: Ml) -> None:
    script = "from sagemaker_training.environment import Environment; Environment().absent"
    done = run(ml, script, RUNTIME, RUNTIME / "shims")
    assert done.stderr.splitlines()[-1].startswith("AttributeError: the training environment has no 'absent'")


TOOLKIT = """#!/bin/sh
# -*- coding: utf-8 -*-
import re
import sys
from {module}.cli.{verb} import main
"""


def entrypoint(directory: Path, script: str | bytes) -> subprocess.CompletedProcess[str]:
    """Run `train` with this script of that name on PATH, before a python3 that prints its arguments."""
    for name, text in {"train": script, "python3": '#!/bin/sh\necho runtime "$@"\n'}.items():
        path = directory / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        path.chmod(0o755)
    source = (RUNTIME / "bin/entrypoint").read_text().replace("/usr/bin/python3", f"{directory}/python3")
    command = ["sh", "-c", source, "entrypoint", "train", "--more"]
    path = f"{directory}:{os.environ['PATH']}"
    return subprocess.run(command, env={"PATH": path}, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("module", ["sagemaker_training", "sagemaker_containers"])
def test_a_toolkits_script_is_not_the_users_train(tmp_path: Path, module: str) -> None:
    done = entrypoint(tmp_path, TOOLKIT.format(module=module, verb="train"))
    assert done.stdout.startswith("runtime -I -S"), done.stderr
    assert done.stdout.endswith("train --more\n")
    assert (
        done.stderr == f"optml: {tmp_path}/train belongs to an older SageMaker toolkit: optml runs instead\n"
    )


@pytest.mark.parametrize(
    "script",
    ['#!/bin/sh\necho mine "$@"\n', '#!/bin/sh\n# not from sagemaker_training.cli.train\necho mine "$@"'],
)
def test_the_users_own_train_runs(tmp_path: Path, script: str) -> None:
    done = entrypoint(tmp_path, script)
    assert (done.stdout, done.stderr) == ("mine --more\n", "")


def test_a_binary_train_is_the_users(tmp_path: Path) -> None:
    done = entrypoint(tmp_path, Path("/bin/echo").read_bytes())
    assert (done.stdout, done.stderr) == ("--more\n", "")
