"""The add-on: nothing but the runtime and its entry points, working on a base that it was not built on."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from scripts.lib.image import exported
from tests.support.docker import Container, run, wait_for_ping
from tests.support.images import image_from, show_size
from tests.support.matrix import ARCH, Cell, matrix

TRAIN = """
import os, sys
print("trained with", sys.version_info[:2], sys.prefix)
open(os.environ["SM_MODEL_DIR"] + "/m", "w")
"""
SERVE = """
def model_fn(model_dir):
    return 3
def predict_fn(data, model):
    return data * model
"""


@pytest.fixture(scope="session")
def foreign(cell: Cell, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The add-on on a plain Debian, of another suite if there is one, whose Python is where conda puts it."""
    other = next((c for c in matrix() if c.variant != cell.variant), cell)
    tag = f"{os.environ['TAG']}-" if os.environ.get("TAG") else ""
    root = f"optml/rootfs:{tag}{other.variant}-{ARCH}"
    context = tmp_path_factory.mktemp("foreign")
    (context / "train.py").write_text(TRAIN)
    (context / "inference.py").write_text(SERVE)
    dockerfile = f"""
FROM {root}
RUN command -v python3 || (apt-get update && apt-get install -y python3)
RUN $(readlink -f /usr/bin/python3) -m venv --without-pip /opt/conda && rm /usr/bin/python3
ENV PATH=/opt/conda/bin:$PATH
COPY --from={cell.tag} / /
COPY train.py inference.py /opt/ml/code/
ENTRYPOINT ["/opt/optml/bin/entrypoint"]
"""
    with image_from(dockerfile, context) as image:
        yield image


@pytest.fixture(scope="session")
def files(cell: Cell) -> set[str]:
    """All files of the image, except for what the engine puts into every container."""
    with exported(cell.tag) as tar:
        return {
            member.name
            for member in tar
            if not member.isdir() and not member.name.startswith((".", "dev", "etc"))
        }


def test_holds_nothing_but_the_runtime_and_its_entry_points(files: set[str]) -> None:
    outside = {name for name in files if not name.startswith("opt/optml/")}
    assert outside == {"usr/local/bin/train", "usr/local/bin/serve"}
    assert {"opt/optml/deps/gunicorn/__init__.py", "opt/optml/deps/boto3/__init__.py"} <= files


def test_is_within_its_budget(cell: Cell) -> None:
    show_size(cell)


def test_every_extension_module_is_there_for_every_python_that_serves(files: set[str]) -> None:
    found = [re.fullmatch(r"(.+)\.cpython-(\d+)-\w+-linux-gnu\.so", name) for name in files]
    modules = {(match[1], match[2]) for match in found if match}
    names = {name for name, _ in modules}
    assert "opt/optml/deps/websockets/speedups" in names
    assert modules == {(name, python) for name in names for python in ("311", "312", "313", "314")}


def test_trains_on_a_foreign_base(foreign: str, ml: Path) -> None:
    result = run(foreign, "train", options=(f"--volume={ml / 'model'}:/opt/ml/model",))
    assert result.code == 0, result.output
    assert result.stdout.startswith("trained with")
    assert "/opt/conda" in result.stdout
    assert (ml / "model/m").exists()


def test_serves_on_a_foreign_base(foreign: str, ml: Path) -> None:
    (ml / "model/weights").write_text("3")
    with Container(foreign, "serve", options=(f"--volume={ml / 'model'}:/opt/ml/model:ro",)) as server:
        url = wait_for_ping(server)
        assert requests.post(f"{url}/invocations", json=14, timeout=20).json() == 42
