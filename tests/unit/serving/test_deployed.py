"""A model of many whose process dies."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from optml.serving.errors import InferenceError
from optml.serving.multimodel.deployed import Deployed


def start_and_die(order: dict[str, Any], listener: int, reports: int) -> None:
    """In place of the forkserver: a process that loads, and is gone before anybody connects to it."""
    os.write(reports, b'0\n[200, ""]\n')


def test_a_process_that_dies_as_soon_as_it_is_loaded_is_an_error_of_its_model(tmp_path: Path) -> None:
    deployed = Deployed("m", "/models/m", str(tmp_path), None, start_and_die)
    with pytest.raises(InferenceError, match="The process of model m died before it answered") as caught:
        deployed.ask(timeout=10)
    assert caught.value.status == 500
    for process in deployed._processes:
        process._pipe.close()
