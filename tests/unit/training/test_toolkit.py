"""The variables and arguments that sagemaker-training 5.1.4 makes from the same files.

toolkit.json holds what its `environment.Environment()` returned from `to_env_vars()` and `to_cmd_args()`,
without what depends on the machine.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.training.conftest import RUNTIME, Ml

CASES = json.loads((Path(__file__).parent / "toolkit.json").read_text())

SHOW = f"""
import json, sys
sys.path.append({str(RUNTIME.parents[1])!r})
from optml.training import job, program
from optml.training.arguments import arguments
from optml.training.environment import environment
this = job.read()
words = arguments(this.hyperparameters)
print(json.dumps([words, environment(this, program.find(this, sys.argv[1]), words, {{}})]))
"""


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["case"]))
def test_same_as_sagemaker_training(ml: Ml, case: dict[str, Any]) -> None:
    for name, value in case["input"].items():
        ml.config(f"{name}.json", value)
    program = ml.code("train.py", "")
    environment = ml.environment(TRAINING_JOB_NAME="job-1", AWS_REGION="eu-west-1")
    command = [sys.executable, "-I", "-c", SHOW, str(program.parent)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    arguments, variables = json.loads(done.stdout.replace(str(ml.root), "/opt/ml"))
    assert arguments == case["arguments"]
    expected = dict(case["variables"])
    theirs, ours = expected.pop("SM_TRAINING_ENV"), json.loads(variables["SM_TRAINING_ENV"])
    assert {name: ours.get(name, "missing") for name in theirs} == theirs
    assert {name: variables.get(name, "missing") for name in expected} == expected
