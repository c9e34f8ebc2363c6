"""Where a cold start spends its time: pull, unpack, container, first line or first answer.

The registry is on loopback, so a pull costs only reading and checking the bytes.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import requests

from tests.bench.contenders import ENVIRONMENTS, SERVERS, UNPACK_JRE, VARIANT, WORK
from tests.bench.record import Row, Run, in_turn
from tests.support.docker import Container, docker
from tests.support.registry import registry

# An image without optml's runtime: the toolkits in their own Python, on the same Debian.
PEER = f"""
FROM optml/base:{VARIANT}
COPY wheels /tmp/wheels
RUN pip install --quiet --no-index --find-links /tmp/wheels PACKAGES
{UNPACK_JRE}"""
PROGRAMS = WORK / "coldstart"
"""On the host, and /srv in the containers."""
CONFIG = {
    "hyperparameters.json": '{"sagemaker_program": "train.py"}',
    "inputdataconfig.json": "{}",
    "resourceconfig.json": '{"current_host": "algo-1", "hosts": ["algo-1"]}',
}
TRAIN = (
    "mkdir -p /opt/ml/input /opt/ml/code; cp -r /srv/config /opt/ml/input; cp /srv/train.py /opt/ml/code; "
)
FIRST = b"first line"
OURS = "exec /opt/optml/bin/entrypoint"
MMS = SERVERS[-1].command.replace("/opt/peers/mms/bin", "/opt/venv/bin")


@dataclass(frozen=True)
class Image:
    """A contender: the image that is pulled, and the command that runs in it."""

    kind: str
    contender: str
    name: str
    command: str
    environment: str = ""
    """The packages installed in it, if it is a peer's."""

    def start(self) -> float:
        """Milliseconds from `docker run` to the program's first line, or the model's first answer."""
        mounts = (f"--volume={PROGRAMS}:/srv:ro", f"--volume={PROGRAMS}/model:/opt/ml/model:ro")
        options = ("--entrypoint=", *mounts, "--add-host=algo-1:127.0.0.1")
        began = time.perf_counter()
        with Container(self.name, "sh", "-c", self.command, options=options) as container:
            if self.kind == "serving":
                _first_answer(f"http://{container.address}:8080/invocations")
            else:
                _first_line(container.name)
            return (time.perf_counter() - began) * 1e3


IMAGES = [
    Image("training", "optml", f"optml/cpu-train:{VARIANT}", f"{TRAIN}{OURS} train"),
    Image("training", "sagemaker-training", "optml-bench-sagemaker-training", f"{TRAIN}exec train",
          "sagemaker-training"),
    Image("serving", "optml", f"optml/slim-serve:{VARIANT}", f"{OURS} serve"),
    Image("serving", "optml, cpu-serve", f"optml/cpu-serve:{VARIANT}", f"{OURS} serve"),
    Image("serving", "sagemaker-inference + MMS", "optml-bench-mms", MMS, "mms"),
]  # fmt: skip


def measure(run: Run, rounds: int) -> None:
    """Add the rows of a cold start."""
    if not shutil.which("skopeo") or not shutil.which("buildah"):
        run.absent["cold start"] = "skopeo or buildah is not installed"
        return
    images = [image for image in IMAGES if image.environment not in run.absent]
    _write_programs()
    for image in images:
        if image.environment:
            _build(image)
    with tempfile.TemporaryDirectory(dir=WORK) as folder, registry(Path(folder)) as address:
        for kind in ("training", "serving"):
            print(f"  {kind}", flush=True)
            run.rows += _rows(
                kind, [image for image in images if image.kind == kind], rounds, folder, address
            )


def _rows(kind: str, images: list[Image], rounds: int, folder: str, address: str) -> list[Row]:
    """The size of each image, and the duration of each step, image by image in each round."""
    group, first = f"Cold start, {kind}", "answer" if kind == "serving" else "line"
    size = Row(group, "compressed size", "MB", False)
    pull = Row(group, "pull from a registry on this machine", "ms", False)
    unpack = Row(group, "pull and unpack", "ms", False)
    start = Row(group, "image is local → a container that does nothing has exited", "ms", False)
    answer = Row(group, f"image is local → the first {first}", "ms", False)
    places = {image: _push(image, address) for image in images}
    for image, place in places.items():
        size.add(image.contender, _size(place))
    storage = ("buildah", f"--root={folder}/storage", f"--runroot={folder}/run", "--storage-driver=overlay")
    for image in in_turn(images, rounds):
        source, copy = f"docker://{places[image]}", f"dir:{folder}/copy"
        pull.add(image.contender, _timed("skopeo", "copy", "--src-tls-verify=false", source, copy))
        unpack.add(image.contender, _timed(*storage, "pull", "--quiet", "--tls-verify=false", places[image]))
        subprocess.run([*storage, "rmi", "--all", "--force"], check=True, capture_output=True)
        nothing = ("docker", "run", "--rm", "--entrypoint=", image.name, "sh", "-c", ":")
        start.add(image.contender, _timed(*nothing))
        answer.add(image.contender, image.start())
    return [size, pull, unpack, start, answer]


def _write_programs() -> None:
    shutil.rmtree(PROGRAMS, ignore_errors=True)
    shutil.copytree(WORK / "programs/serving", PROGRAMS / "serving")
    shutil.copytree(WORK / "programs/serving", PROGRAMS / "model/code")
    (PROGRAMS / "config").mkdir()
    for name, content in CONFIG.items():
        (PROGRAMS / "config" / name).write_text(content)
    (PROGRAMS / "train.py").write_text(f"print({FIRST.decode()!r}, flush=True)\n")


def _build(image: Image) -> None:
    """The image of a single peer."""
    context = WORK / f"alone-{image.environment}"
    shutil.rmtree(context, ignore_errors=True)
    shutil.copytree(WORK / "wheels" / image.environment, context / "wheels")
    (context / "jre").mkdir()
    if image.environment == "mms":
        for package in (WORK / "jre").glob("*.deb"):
            shutil.copy(package, context / "jre")
    words = " ".join(f"'{package}'" for package in ENVIRONMENTS[image.environment])
    (context / "Dockerfile").write_text(PEER.replace("PACKAGES", words))
    docker("build", "--force-rm", "--tag", image.name, context, timeout=600)


def _push(image: Image, address: str) -> str:
    """Push an image; returns its name in the registry."""
    place = f"{address}/{image.name.replace(':', '-')}"
    docker("tag", image.name, place)
    docker("push", place, timeout=300)
    docker("rmi", place)
    return place


def _size(place: str) -> float:
    """MB of all layers, as they are pulled."""
    command = ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{place}"]
    raw = subprocess.run(command, check=True, capture_output=True)
    return float(sum(layer["size"] for layer in json.loads(raw.stdout)["layers"]) / 1e6)


def _timed(*command: str) -> float:
    """The duration of a command in milliseconds."""
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return (time.perf_counter() - began) * 1e3


def _first_line(name: str) -> None:
    command = ["docker", "logs", "--follow", name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as log:
        assert log.stdout is not None
        assert any(FIRST in line for line in log.stdout), "the program has not begun"
        log.kill()  # else Popen would wait for it, until the end of the job


def _first_answer(url: str) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            if requests.post(url, b"[1]", headers={"Content-Type": "application/json"}, timeout=5).ok:
                return
        except requests.RequestException:
            pass
        assert time.monotonic() < deadline, "no answer"
        time.sleep(0.005)
