"""Every manifest of examples/ is one that its cluster takes whole."""

from __future__ import annotations

import copy

import pytest
import yaml
from jsonschema import ValidationError

from optml import paths
from optml.serving.worker import DRAIN
from optml.training import train
from tests.support import manifests
from tests.support.matrix import ROOT

FILES = [
    path for path in sorted(ROOT.glob("examples/*/*.yaml")) if "apiVersion:" in path.read_text()
]  # the others are no manifests of Kubernetes
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
def test_older_clusters_take_them_too(name: str) -> None:
    manifests.validate(RESOURCES[name], "1.27")


@pytest.mark.parametrize("kind", manifests.SCHEMAS)
def test_each_schema_has_an_example_and_finds_a_wrong_word(kind: tuple[str, str]) -> None:
    (resource,) = (found for found in RESOURCES.values() if (found["apiVersion"], found["kind"]) == kind)
    wrong = copy.deepcopy(resource)
    wrong["spec"]["replicsa"] = 1
    with pytest.raises(ValidationError, match="replicsa"):
        manifests.validate(wrong)


TRAINING = [
    template["spec"]
    for resource in RESOURCES.values()
    for template in manifests.pod_templates(resource)
    if "train" in template["spec"]["containers"][0].get("args", ())
]


def test_pods_that_train_leave_time_to_save_and_tell_why_they_failed() -> None:
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
