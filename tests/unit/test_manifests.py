"""Every manifest of examples/ is accepted by its cluster or service."""

from __future__ import annotations

import copy
import json

import boto3
import jsonschema
import pytest
import yaml
from botocore.validate import ParamValidator
from jsonschema import ValidationError

from optml import paths
from optml.serving.worker import DRAIN
from optml.training import train
from tests.support import manifests
from tests.support.matrix import ROOT

FILES = [
    path for path in sorted(ROOT.glob("examples/*/*.yaml")) if "apiVersion:" in path.read_text()
]  # the others are not Kubernetes manifests
RESOURCES = {
    f"{path.name}-{resource['kind']}": resource
    for path in FILES
    for resource in yaml.safe_load_all(path.read_text())
}


OWN = [
    name for name, found in RESOURCES.items() if (found["apiVersion"], found["kind"]) not in manifests.SCHEMAS
]


@pytest.mark.parametrize("name", RESOURCES)
def test_every_resource_is_valid(name: str) -> None:
    manifests.validate(RESOURCES[name])


@pytest.mark.parametrize("name", OWN)
def test_older_clusters_accept_them_too(name: str) -> None:
    manifests.validate(RESOURCES[name], "1.27")


@pytest.mark.parametrize("kind", manifests.SCHEMAS)
def test_each_schema_has_an_example_and_finds_a_misspelled_key(kind: tuple[str, str]) -> None:
    (resource,) = (found for found in RESOURCES.values() if (found["apiVersion"], found["kind"]) == kind)
    wrong = copy.deepcopy(resource)
    wrong["spec"]["replicsa"] = 1
    with pytest.raises(ValidationError, match="replicsa"):
        manifests.validate(wrong)


def errors_of_batch(definition: object) -> str:
    """The errors of the AWS Batch API for a job definition, by botocore's description of it."""
    client = boto3.Session("x", "x", region_name="eu-west-1").client("batch")
    shape = client.meta.service_model.operation_model("RegisterJobDefinition").input_shape
    return str(ParamValidator().validate(definition, shape).generate_report())


def test_the_job_definition_of_batch_is_valid() -> None:
    definition = json.loads((ROOT / "examples/schedulers/batch.json").read_text())
    assert errors_of_batch(definition) == ""
    container = definition["nodeProperties"]["nodeRangeProperties"][0]["container"]
    container["enviroment"] = container.pop("environment")
    assert "enviroment" in errors_of_batch(definition)


def test_the_task_of_skypilot_is_valid() -> None:
    schema = json.loads((ROOT / "tests/support/schemas/skypilot/task.json").read_text())["schema"]
    validator = jsonschema.Draft202012Validator(schema)
    task = yaml.safe_load((ROOT / "examples/schedulers/skypilot.yaml").read_text())
    validator.validate(task)
    for wrong in ({**task, "num_node": 2}, {**task, "resources": {"image": "docker:distributed-torch"}}):
        assert not validator.is_valid(wrong)


TRAINING = [
    template["spec"]
    for resource in RESOURCES.values()
    for template in manifests.pod_templates(resource)
    if template["spec"]["containers"][0].get("args", [])[:1] == ["train"]
]


def test_pods_that_train_leave_time_to_save_and_report_why_they_failed() -> None:
    assert len(TRAINING) == 6
    for pod in TRAINING:
        assert pod["terminationGracePeriodSeconds"] > train._PATIENCE
        assert pod["containers"][0]["terminationMessagePath"] == paths.FAILURE


def test_pods_that_serve_leave_time_for_calls_after_prestop() -> None:
    pod = RESOURCES["serving.yaml-Deployment"]["spec"]["template"]["spec"]
    predictor = RESOURCES["kserve.yaml-InferenceService"]["spec"]["predictor"]
    _, seconds = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    for spec in (pod, predictor):
        assert spec["terminationGracePeriodSeconds"] > DRAIN + int(seconds)
