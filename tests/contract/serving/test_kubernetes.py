"""The pods of the examples for Kubernetes and KServe, run, probed and ended as the kubelet would."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from tests.contract.serving.serving import write_handlers
from tests.support.docker import Container
from tests.support.manifests import Manifest, arguments, container_options, load
from tests.support.matrix import ROOT

pytestmark = [pytest.mark.image("cpu-serve"), pytest.mark.one_variant]

EXAMPLES = ROOT / "examples/kubernetes"
SLOW = """
import time

def model_fn(model_dir):
    time.sleep(2)

def predict_fn(data, model):
    time.sleep(data[0])
    return data
"""


def deployment() -> Manifest:
    pod: Manifest = load(EXAMPLES / "serving.yaml")["Deployment"]["spec"]["template"]["spec"]
    return pod


def kserve() -> Manifest:
    """The runtime's pod, with the mount that KServe adds for what it fetched."""
    files = load(EXAMPLES / "kserve.yaml")
    predictor, pod = files["InferenceService"]["spec"]["predictor"], files["ServingRuntime"]["spec"]
    assert predictor["model"]["runtime"] == files["ServingRuntime"]["metadata"]["name"]
    (fetched,) = predictor["storageUris"]
    (container,) = pod["containers"]
    mount = {"name": "model", "mountPath": fetched["mountPath"], "readOnly": True}
    container["volumeMounts"].append(mount)
    pod["terminationGracePeriodSeconds"] = predictor["terminationGracePeriodSeconds"]
    return pod


class Pod:
    def __init__(self, spec: Manifest, container: Container) -> None:
        (self.spec,) = spec["containers"]
        self.grace = spec["terminationGracePeriodSeconds"]
        self.container = container
        self.url = f"http://{container.address}:8080"

    def probe(self, name: str) -> bool:
        """Try a probe once."""
        probe = self.spec[name]
        try:
            answer = requests.get(f"{self.url}{probe['httpGet']['path']}", timeout=probe["timeoutSeconds"])
        except requests.RequestException:
            return False
        return answer.status_code == 200

    def start(self) -> None:
        probe = self.spec["startupProbe"]
        deadline = time.monotonic() + probe["periodSeconds"] * probe["failureThreshold"]
        while not self.probe("startupProbe"):
            assert self.container.running and time.monotonic() < deadline, self.container.log().output
            time.sleep(0.2)

    def end(self) -> int:
        """preStop, then SIGTERM, all within the grace period, as the kubelet does."""
        began = time.monotonic()
        self.container.exec(*self.spec["lifecycle"]["preStop"]["exec"]["command"])
        self.container.stop(grace=round(self.grace - (time.monotonic() - began)))
        return self.container.wait()


@pytest.fixture(params=[deployment, pytest.param(kserve, marks=pytest.mark.long)])
def pod(request: pytest.FixtureRequest, image: str, ml: Path) -> Iterator[Pod]:
    spec = request.param()
    write_handlers(ml, SLOW)
    options = container_options(spec, model=ml / "model")
    with Container(image, *arguments(spec), options=options) as container:
        yield Pod(spec, container)


def test_a_pod_starts_answers_and_ends_without_losing_a_call(pod: Pod) -> None:
    pod.start()
    assert pod.probe("readinessProbe")
    with ThreadPoolExecutor() as pool:
        # Long enough to span preStop and go on after SIGTERM.
        call = pool.submit(requests.post, f"{pod.url}/invocations", json=[8], timeout=60)
        time.sleep(0.5)
        assert pod.end() == 0, pod.container.log().output
    assert call.result().json() == [8]
