"""The SageMaker SDK 3.x in local mode: its own shell driver runs the program, not our entry point."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from tests.clients.workplace import LINE, NESTED, PROJECT, Workplace, content, told
from tests.support.docker import docker
from tests.support.registry import registry


def test_model_trainer(sdk3: Path, workplace: Workplace, train_image: str) -> None:
    workplace.succeed(sdk3, "sdk3/train.py", image=train_image, hosts="1", hyperparameters=json.dumps(NESTED))
    results = workplace.containers / "compressed_artifacts"
    assert content(results / "model.tar.gz")["line.json"] == LINE
    (given,) = told(results / "output.tar.gz")
    assert given["hyperparameters"] == NESTED


def test_model_trainer_on_two_hosts(sdk3: Path, workplace: Workplace, train_image: str) -> None:
    workplace.succeed(sdk3, "sdk3/train.py", image=train_image, hosts="2", hyperparameters='{"epochs": 1}')
    assert len(told(workplace.containers / "compressed_artifacts/output.tar.gz")) == 2


def test_model_trainer_sees_a_failure(sdk3: Path, workplace: Workplace, train_image: str) -> None:
    broken = json.dumps({"epochs": 1, "broken": "yes"})
    result = workplace.run(sdk3, "sdk3/train.py", image=train_image, hosts="1", hyperparameters=broken)
    assert result.code != 0
    assert "Process exited with code: 1" in " ".join(result.output.split())
    output = content(workplace.containers / "compressed_artifacts/output.tar.gz")
    assert "train.py" in output["failure"]  # in the words of the SDK's driver


def test_model_trainer_with_an_image_of_ones_own(sdk3: Path, workplace: Workplace, own_image: str) -> None:
    workplace.succeed(
        sdk3, "sdk3/bring_your_own.py", image=own_image, hosts="2", hyperparameters=json.dumps(NESTED)
    )
    results = workplace.containers / "compressed_artifacts"
    assert content(results / "model.tar.gz")["line.json"] == LINE
    notes = told(results / "output.tar.gz")
    assert [note["hosts"] for note in notes] == [["algo-1", "algo-2"]] * 2
    assert notes[0]["hyperparameters"] == NESTED


def test_endpoint_and_transform(sdk3: Path, workplace: Workplace, serve_image: str) -> None:
    model = workplace.path / "model"
    model.mkdir()
    (model / "line.json").write_text(json.dumps(LINE))
    answer = workplace.answer(sdk3, "sdk3/serve.py", image=serve_image, model=str(model))
    assert answer == {"answer": [9.0, 11.0], "strategy": "MultiRecord"}
    assert (workplace.path / "transformed/x.csv.out").read_text().split() == ["9.0", "11.0", "-1.0"]


def test_model_builder(sdk3: Path, workplace: Workplace, serve_image: str) -> None:
    """It always pulls, serves on port 8080 only, and mounts MODEL/code as /opt/ml/model."""
    try:
        socket.create_server(("0.0.0.0", 8080)).close()
    except OSError:
        pytest.skip("the SDK can serve at port 8080 alone, and something listens there")
    handlers = workplace.path / "model/code/code"
    handlers.mkdir(parents=True)
    (handlers.parent / "line.json").write_text(json.dumps(LINE))
    (handlers / "inference.py").write_bytes((PROJECT / "inference.py").read_bytes())
    # Then the SDK starts a second container in local mode, and mistakes the /ping of the first for its own.
    workplace.configure()
    with registry(workplace.path) as address:
        image = f"{address}/{serve_image}"
        docker("tag", serve_image, image)
        try:
            docker("push", image)
            answer = workplace.answer(
                sdk3,
                "sdk3/model_builder.py",
                image=image,
                model=str(workplace.path / "model"),
                sagemaker_validate_role="false",
            )
        finally:
            docker("rmi", "--force", image, check=False)
    assert answer == [[9.0, 11.0]]
