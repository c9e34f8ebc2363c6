"""Where the time of a cold start goes: pull, unpack, container, first answer.

The registry is on loopback, so a pull costs what reading and checking the bytes costs, and no network.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from tests.bench.contenders import ENVIRONMENTS, VARIANT, WORK
from tests.bench.record import Row, Run
from tests.support.docker import docker
from tests.support.registry import registry

# What users build without us: the toolkits in a Python of their own, on the same Debian.
PEERS = {"training": "sagemaker-training", "serving": "mms"}
PEER = f"""
FROM optml/base:{VARIANT}
COPY wheels /tmp/wheels
RUN pip install --quiet --no-index --find-links /tmp/wheels PACKAGES
COPY jre /tmp/jre
RUN for package in /tmp/jre/*.deb; do [ ! -e "$package" ] || dpkg-deb -x "$package" /; done
"""
IMAGES = {
    "training": {
        "optml": f"optml/cpu-train:{VARIANT}",
        "sagemaker-training": "optml-bench-sagemaker-training",
    },
    "serving": {
        "optml": f"optml/slim-serve:{VARIANT}",
        "optml, cpu-serve": f"optml/cpu-serve:{VARIANT}",
        "sagemaker-inference + MMS": "optml-bench-mms",
    },
}  # fmt: skip


def measure(run: Run, rounds: int) -> None:
    """Add the rows of a cold start."""
    if not shutil.which("skopeo") or not shutil.which("buildah"):
        run.absent["cold start"] = "skopeo or buildah is not installed"
        return
    for kind, name in PEERS.items():
        if name in run.absent:
            IMAGES[kind] = {
                label: image for label, image in IMAGES[kind].items() if label.startswith("optml")
            }
        else:
            _build(name)
    with tempfile.TemporaryDirectory(dir=WORK) as folder, registry(Path(folder)) as address:
        for kind, images in IMAGES.items():
            pulled = Row(f"Cold start, {kind}", "pull from a registry on this machine", "ms", False)
            unpacked = Row(f"Cold start, {kind}", "pull and unpack", "ms", False)
            ready = Row(
                f"Cold start, {kind}", "image is there → container has ended, doing nothing", "ms", False
            )
            size = Row(f"Cold start, {kind}", "compressed size", "MB", False)
            for name, image in images.items():
                place = f"{address}/{image.replace(':', '-')}"
                docker("tag", image, place)
                docker("push", place, timeout=300)
                docker("rmi", place)
                size.add(name, _size(place))
            for _ in range(rounds):
                for name, image in images.items():
                    place = f"{address}/{image.replace(':', '-')}"
                    pulled.add(
                        name,
                        _timed(
                            "skopeo",
                            "copy",
                            "--src-tls-verify=false",
                            f"docker://{place}",
                            f"dir:{folder}/copy",
                        ),
                    )
                    storage = [
                        "buildah",
                        "--root",
                        f"{folder}/storage",
                        "--runroot",
                        f"{folder}/run",
                        "--storage-driver",
                        "vfs",
                    ]
                    unpacked.add(name, _timed(*storage, "pull", "--quiet", "--tls-verify=false", place))
                    subprocess.run([*storage, "rmi", "--all", "--force"], check=True, capture_output=True)
                    ready.add(name, _timed("docker", "run", "--rm", "--entrypoint=", image, "/bin/true"))
            run.rows += [size, pulled, unpacked, ready]


def _build(name: str) -> None:
    """The image of one peer alone."""
    context = WORK / f"alone-{name}"
    shutil.rmtree(context, ignore_errors=True)
    shutil.copytree(WORK / "wheels" / name, context / "wheels")
    (context / "jre").mkdir()
    if name == "mms":
        for package in (WORK / "jre").glob("*.deb"):
            shutil.copy(package, context / "jre")
    words = " ".join(f"'{package}'" for package in ENVIRONMENTS[name])
    (context / "Dockerfile").write_text(PEER.replace("PACKAGES", words))
    docker("build", "--force-rm", "--tag", f"optml-bench-{name}", context, timeout=600)


def _timed(*command: str) -> float:
    """Milliseconds that a command takes."""
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return (time.perf_counter() - began) * 1e3


def _size(place: str) -> float:
    """MB of all layers, as they are pulled."""
    raw = subprocess.run(
        ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{place}"],
        check=True,
        capture_output=True,
    )
    return float(sum(layer["size"] for layer in json.loads(raw.stdout)["layers"]) / 1e6)
