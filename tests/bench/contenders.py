"""What is measured: optml and its peers, all in one image, each peer in its own Python environment."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.bench.record import Run
from tests.support.docker import docker
from tests.support.matrix import ROOT

WORK = ROOT / "build/bench"
PROGRAMS = Path(__file__).parent / "programs"
IMAGE = "optml-bench"
VARIANT = "bookworm"
"""Python 3.11, for which all peers are available; the host's Python must have the same version."""

ENVIRONMENTS = {
    "web": ["gunicorn", "flask", "starlette", "uvicorn", "uvloop", "httptools", "granian", "numpy"],
    "litserve": ["litserve", "uvloop", "httptools", "numpy"],
    "bentoml": ["bentoml", "numpy"],
    # sagemaker-inference imports pkg_resources.
    "mms": ["sagemaker-inference", "multi-model-server", "numpy", "setuptools<81"],
    "sagemaker-training": ["sagemaker-training"],
    "sagemaker-containers": ["sagemaker-containers"],
}
"""Folder below /opt/peers → the packages installed there, in their newest versions."""

JRE = "openjdk-17-jre-headless"
JAVA = "/usr/lib/jvm/java-17-openjdk-amd64"


@dataclass(frozen=True)
class Server:
    """A server with the one model, on port 8080 with two workers."""

    name: str
    environment: str | None
    command: str
    speaks: tuple[str, ...] = ("JSON", "CSV", "NPY")
    """The kinds of request that it accepts."""
    health: str = "/ping"
    """The path that answers 200 once it is ready."""


def _peer(environment: str, command: str) -> str:
    return f"cd /srv/serving && PATH=/opt/peers/{environment}/bin:$PATH exec {command}"


_BIND = "--host 0.0.0.0 --port 8080"
_UVICORN = f"uvicorn {_BIND} --workers 2 --no-access-log starlette_app:app"
_GUNICORN = "gunicorn --no-control-socket --bind 0.0.0.0:8080 --workers 2 --worker-class"
_GRANIAN = f"granian {_BIND} --workers 2 --no-ws --interface"
_BENTOML = f"env HOME=/tmp BENTOML_DO_NOT_TRACK=1 bentoml serve bentoml_app:Model {_BIND}"
_MMS = (
    f"env JAVA_HOME={JAVA} PATH=/opt/peers/mms/bin:{JAVA}/bin:/usr/bin:/bin python3 -c"
    " 'from sagemaker_inference.model_server import start_model_server; start_model_server()'"
)
SERVERS = [
    Server("optml", None, "exec /opt/optml/bin/entrypoint serve"),
    Server("uvicorn + Starlette", "web", _peer("web", _UVICORN)),
    Server("granian, ASGI", "web", _peer("web", f"{_GRANIAN} asgi starlette_app:app")),
    Server("granian, WSGI", "web", _peer("web", f"{_GRANIAN} wsgi raw:app")),
    Server("gunicorn, ASGI", "web", _peer("web", f"{_GUNICORN} asgi starlette_app:app")),
    Server("gunicorn, gthread", "web", _peer("web", f"{_GUNICORN} gthread --threads 4 raw:app")),
    Server("gunicorn, sync", "web", _peer("web", f"{_GUNICORN} sync raw:app")),
    Server("flask on gthread", "web", _peer("web", f"{_GUNICORN} gthread --threads 4 flask_app:app")),
    Server("LitServe", "litserve", _peer("litserve", "python3 litserve_app.py"), ("JSON",)),
    Server("BentoML", "bentoml", _peer("bentoml", _BENTOML), ("JSON",), "/readyz"),
    Server("sagemaker-inference + MMS", "mms", _peer("mms", _MMS)),
]

DOCKERFILE = f"""
FROM optml/cpu-serve:{VARIANT}
COPY wheels /tmp/wheels
RUN pip install --quiet --no-index --find-links /tmp/wheels/web numpy
"""
_ENVIRONMENT = """
RUN python3 -m venv --without-pip /opt/peers/NAME \\
 && pip --python /opt/peers/NAME/bin/python3 install --quiet --no-index --find-links /tmp/wheels/NAME PACKAGES
"""
UNPACK_JRE = """
# Only the JRE's own files: a server needs neither fonts nor sound.
COPY jre /tmp/jre
RUN for package in /tmp/jre/*.deb; do [ ! -e "$package" ] || dpkg-deb -x "$package" /; done
"""
_REST = f"""{UNPACK_JRE}
COPY programs /srv
RUN mkdir -p /srv/model/code && cp /srv/serving/inference.py /srv/model/code/
"""


def build(run: Run) -> None:
    """Build the image with optml and its peers; record in `run` their versions, and which are unavailable."""
    dockerfile = DOCKERFILE
    for name, packages in ENVIRONMENTS.items():
        failure = fetch(WORK / "wheels" / name, packages)
        if failure:
            run.absent[name] = failure
            continue
        words = " ".join(f"'{package}'" for package in packages)
        dockerfile += _ENVIRONMENT.replace("NAME", name).replace("PACKAGES", words)
    _fetch_java(run)
    shutil.rmtree(WORK / "programs", ignore_errors=True)
    shutil.copytree(PROGRAMS, WORK / "programs")
    (WORK / "Dockerfile").write_text(dockerfile + _REST)
    (WORK / ".dockerignore").write_text("*\n!wheels\n!jre\n!programs\n")
    docker("build", "--force-rm", "--tag", IMAGE, WORK, timeout=900)
    for name in ENVIRONMENTS.keys() - run.absent.keys():
        listed = docker("run", "--rm", IMAGE, "pip", "--python", f"/opt/peers/{name}/bin/python3", "freeze")
        pairs = (line.split("==") for line in listed.stdout.split() if "==" in line)
        installed = {package.lower().replace("_", "-"): version for package, version in pairs}
        run.versions |= {
            package: installed[package] for package in ENVIRONMENTS[name] if package in installed
        }


def fetch(folder: Path, packages: list[str]) -> str | None:
    """Fetch the wheels of packages into a folder; returns the last line of pip's error if that fails."""
    if (folder / "complete").exists():
        return None
    print(f"fetching {', '.join(packages)}", flush=True)
    wheel = [ROOT / ".venv/bin/python", "-m", "pip", "wheel", "--quiet", *packages, "-w", folder]
    done = subprocess.run(wheel, capture_output=True, text=True, timeout=900)
    if done.returncode:
        return done.stderr.strip().splitlines()[-1][:300]
    (folder / "complete").touch()
    return None


def _fetch_java(run: Run) -> None:
    folder = WORK / "jre"
    folder.mkdir(parents=True, exist_ok=True)
    if not list(folder.glob("*.deb")):
        done = subprocess.run(["apt-get", "download", JRE], cwd=folder, capture_output=True, text=True)
        if done.returncode:
            run.absent["mms"] = done.stderr.strip().splitlines()[-1][:300]


def present(run: Run) -> list[Server]:
    """The servers that could be installed."""
    return [server for server in SERVERS if server.environment not in run.absent]
