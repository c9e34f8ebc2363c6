"""The add-on with each Python that it supports: this machine's, and that of the next Debian."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.support.docker import Container, run, wait_for_ping
from tests.support.images import image_from
from tests.support.matrix import ARCH, Cell
from tests.support.pythons import interpreter
from tests.support.wheels import wheel

pytestmark = pytest.mark.long

TRAIN = """
import sys
import mine, optml
job = optml.job()
print(sys.version_info[:2], mine.NAME, job.hyperparameters)
open(f"{job.model_dir}/weights", "w").write("3")
raise ValueError("the end")
"""
SERVE = """
import sys
def model_fn(model_dir):
    return int(open(f"{model_dir}/weights").read())
def predict_fn(data, model):
    return [[model * cell for cell in row] for row in data] + [list(sys.version_info[:2])]
"""


@pytest.fixture(scope="session")
def bare(cell: Cell, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Debian without `python3`, with the add-on."""
    tag = f"{os.environ['TAG']}-" if os.environ.get("TAG") else ""
    dockerfile = f"""
        FROM optml/rootfs:{tag}{cell.variant}-{ARCH}
        RUN rm -f /usr/bin/python3
        COPY --from={cell.tag} / /
        ENTRYPOINT ["/opt/optml/bin/entrypoint"]
    """
    with image_from(dockerfile, tmp_path_factory.mktemp("bare")) as image:
        yield image


@pytest.fixture(scope="session")
def next_debian(bare: str, cell: Cell, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The same with Python 3.14 from the next Debian."""
    dockerfile = f"""
        FROM {bare}
        RUN sed -n '1s/{cell.variant}/forky/p' /etc/apt/sources.list > /etc/apt/sources.list.d/forky.list
        RUN apt-get update -o Acquire::Check-Valid-Until=false
        RUN apt-get install --yes --no-install-recommends python3.14 python3.14-venv
        RUN python3.14 -m venv /opt/conda
        ENV PATH=/opt/conda/bin:$PATH
    """
    with image_from(dockerfile, tmp_path_factory.mktemp("forky")) as image:
        yield image


@pytest.mark.parametrize("version", ["3.10", "3.11", "3.12", "3.13"])
def test_a_python_of_this_machine(bare: str, ml: Path, version: str) -> None:
    home = interpreter(version).resolve().parents[1]
    path = f"{home}/bin:/usr/local/bin:/usr/bin:/bin"
    _trains_and_serves(bare, ml, version, f"--volume={home}:{home}:ro", f"--env=PATH={path}")


def test_the_python_of_the_next_debian(next_debian: str, ml: Path) -> None:
    _trains_and_serves(next_debian, ml, "3.14")


def _trains_and_serves(image: str, ml: Path, version: str, *options: str) -> None:
    """A whole job, from hyperparameters and requirements to the reason of its failure; then calls."""
    seen = [int(part) for part in version.split(".")]
    (ml / "code/requirements.txt").write_text(f"/opt/ml/code/{wheel(ml / 'code', 'mine')}")
    (ml / "code/train.py").write_text(TRAIN)
    (ml / "code/inference.py").write_text(SERVE)
    (ml / "input/config/hyperparameters.json").write_text(json.dumps({"lr": "3.10"}))
    options = (f"--volume={ml}:/opt/ml", *options)
    trained = run(image, "train", options=options)
    assert trained.stdout.splitlines()[-1:] == [f"{tuple(seen)} mine {{'lr': 3.10}}"], trained.output
    assert trained.code == 1
    assert (ml / "output/failure").read_text().startswith("ValueError: the end\n")
    with Container(image, "serve", options=options) as server:
        url = wait_for_ping(server)
        answer = requests.post(f"{url}/invocations", json=[[1, 2]], timeout=20)
        assert answer.json() == [[3, 6], seen]
        csv = {"Content-Type": "text/csv", "Accept": "text/csv"}
        answer = requests.post(f"{url}/invocations", data="1,2\n", headers=csv, timeout=20)
        assert answer.text == f"3.0,6.0\n{seen[0]},{seen[1]}\n"
        assert requests.get(f"{url}/metrics", timeout=20).status_code == 200
