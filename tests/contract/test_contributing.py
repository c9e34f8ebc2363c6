"""The steps of CONTRIBUTING.md, done."""

from __future__ import annotations

import json
import re
import subprocess
import uuid
from pathlib import Path

import pytest

from tests.support.docker import inspect
from tests.support.images import built_image
from tests.support.matrix import ROOT


@pytest.mark.image("cpu-serve")
@pytest.mark.one_variant
def test_an_image_in_ten_lines_is_in_the_matrix_and_builds(image: str, tmp_path: Path) -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    dockerfile = re.search(r"images/json-serve/Dockerfile`:\n\n```dockerfile\n(.*?)```", text, re.S)
    assert dockerfile and dockerfile[1].count("\n") == 10
    name = f"test-{uuid.uuid4().hex[:12]}"
    (tmp_path / f"images/{name}").mkdir(parents=True)
    (tmp_path / f"images/{name}/Dockerfile").write_text(dockerfile[1])
    printed = subprocess.run(
        ["make", "--file", ROOT / "Makefile", "matrix"], cwd=tmp_path, capture_output=True, text=True
    )
    (entry, *_) = json.loads(printed.stdout)
    assert (entry["image"], entry["parent"]) == (name, "cpu-serve")
    with built_image(tmp_path, name, image) as built:
        config = inspect(built)["Config"]
    assert "SAGEMAKER_MODEL_SERVER_ACCESS_LOG=json" in config["Env"]
    assert config["Cmd"] == ["serve"]
    assert config["Labels"]["org.opencontainers.image.title"] == "optml json-serve"
