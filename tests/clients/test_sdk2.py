"""The SageMaker SDK 2.x in local mode."""

from __future__ import annotations

import json
import sys
import uuid
from pathlib import Path

import pytest

from tests.clients.workplace import LINE, NESTED, Workplace, content, told
from tests.support.docker import docker
from tests.support.matrix import built_cell, matrix


def test_script_mode(sdk2: Path, workplace: Workplace, train_image: str) -> None:
    answer = workplace.answer(
        sdk2, "sdk2/script_mode.py", image=train_image, hyperparameters=json.dumps(NESTED)
    )
    output = workplace.path / "output"
    assert answer["model"] == f"file://{output}/model.tar.gz"
    assert content(output / "model.tar.gz")["line.json"] == LINE
    assert content(output / "output.tar.gz")["success"] == ""
    (given,) = told(output / "output.tar.gz")
    assert given["hyperparameters"] == NESTED
    assert given["arguments"] == [
        *("--deep", "a={'b': None}", "--epochs", "3", "--flag", "True"),
        *("--layers", "[1, 'x']", "--rate", "0.5", "--words", "a b"),
    ]
    assert given["channels"] == ["train"]
    assert given["job"] == answer["job"]


def test_script_mode_with_everything_in_s3(sdk2: Path, workplace: Workplace, train_image: str) -> None:
    answer = workplace.answer(
        sdk2, "sdk2/script_mode_s3.py", image=train_image, hyperparameters=json.dumps(NESTED)
    )
    assert answer["code"].startswith("s3://points/") and answer["code"].endswith("sourcedir.tar.gz")
    assert content(workplace.path / "output/model.tar.gz")["line.json"] == LINE


@pytest.mark.parametrize("hosts", [1, 2])
def test_an_image_of_ones_own(sdk2: Path, workplace: Workplace, own_image: str, hosts: int) -> None:
    workplace.succeed(
        sdk2, "sdk2/bring_your_own.py", image=own_image, hosts=str(hosts), hyperparameters='{"epochs": 1}'
    )
    notes = told(workplace.path / "output/output.tar.gz")
    assert len(notes) == hosts
    assert all(len(note["hosts"]) == hosts for note in notes)
    model = content(workplace.path / "output/model.tar.gz")
    assert model["line.json"] == LINE
    assert sorted(name for name in model if name.endswith(".host")) == [
        f"{h}.host" for h in notes[0]["hosts"]
    ]


def test_script_mode_on_two_hosts(sdk2: Path, workplace: Workplace, train_image: str) -> None:
    workplace.answer(
        sdk2, "sdk2/script_mode.py", image=train_image, hosts="2", hyperparameters='{"epochs": 1}'
    )
    assert len(told(workplace.path / "output/output.tar.gz")) == 2


def test_the_sdk_sees_a_failure(sdk2: Path, workplace: Workplace, train_image: str) -> None:
    broken = json.dumps({"epochs": 1, "broken": "yes"})
    result = workplace.run(sdk2, "sdk2/script_mode.py", image=train_image, hyperparameters=broken)
    assert result.code != 0
    assert "Process exited with code: 1" in " ".join(result.output.split())
    output = content(workplace.path / "output/output.tar.gz")
    assert output["failure"].startswith("ValueError: the points lie on no line\n")
    assert "success" not in output


def test_train_deploy_predict_and_transform(sdk2: Path, workplace: Workplace, serve_image: str) -> None:
    answer = workplace.answer(sdk2, "sdk2/deploy.py", image=serve_image)
    assert answer["answers"] == [[9.0, 11.0], [-1.0]]
    # From /execution-parameters, where the SDK would refuse the service's own spelling.
    assert (answer["strategy"], answer["status"]) == ("MultiRecord", "Completed")
    assert (workplace.path / "transformed/x.csv.out").read_text().split() == ["9.0", "11.0", "-1.0"]


def test_processing_by_a_script_and_by_a_folder(sdk2: Path, workplace: Workplace, train_image: str) -> None:
    workplace.succeed(sdk2, "sdk2/processing.py", image=train_image)
    assert (workplace.path / "script/points.csv").read_text() == "1,3\n2,5\n3,7"
    assert (workplace.path / "framework/points.csv").read_text() == "2,5\n3,7"


def test_a_remote_function(sdk2: Path, workplace: Workplace) -> None:
    # The function travels as bytecode, so the image needs the client's Python.
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    variants = [c.variant for c in matrix() if c.image == "cpu-train" and c.python == version]
    if not variants:
        pytest.skip(f"no variant has Python {version}, which is what this client has")
    image = built_cell("cpu-train", variants[0]).tag
    # The image needs the SDK, too: a container that never runs lends it the client's.
    lender = f"optml-test-sdk-{uuid.uuid4().hex[:12]}"
    site = sdk2.parent.parent / f"lib/python{version}/site-packages"
    docker("create", "--name", lender, "--volume", f"{site}:/opt/sdk:ro", image, "true")
    try:
        workplace.configure(container_config={"volumes_from": [f"container:{lender}"]})
        answer = workplace.answer(sdk2, "sdk2/remote.py", image=image)
    finally:
        docker("rm", "--force", lender)
    assert answer == LINE | {"model_dir": "/opt/ml/model"}
