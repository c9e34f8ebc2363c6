"""One of many models, whose process dies or takes long to load."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from flask import Response

from optml.serving.errors import InferenceError
from optml.serving.multimodel.deployed import Deployed


def start_and_die(order: dict[str, Any], listener: int, reports: int) -> None:
    """A fake forkserver: the process loads the model, but dies before anything connects to it."""
    os.write(reports, b'0\n[200, ""]\n')


def test_a_process_that_dies_as_soon_as_it_is_loaded_is_an_error_of_its_model(tmp_path: Path) -> None:
    deployed = Deployed("m", "/models/m", str(tmp_path), None, start_and_die, 1)
    with pytest.raises(InferenceError, match="The process of model m died before it answered") as caught:
        deployed.ask(timeout=10)
    assert caught.value.status == 500
    for process in deployed._processes:
        process._pipe.close()


def test_a_call_waits_no_longer_for_its_model_to_load_than_a_call_may_take(tmp_path: Path) -> None:
    """Otherwise a few calls to a model that loads for minutes would occupy all slots of the router."""
    loading, loaded = threading.Event(), threading.Event()

    def start_slowly(order: dict[str, Any], listener: int, reports: int) -> None:
        loading.set()
        loaded.wait(10)
        start_and_die(order, listener, reports)

    deployed = Deployed("m", "/models/m", str(tmp_path), None, start_slowly, 1)
    with ThreadPoolExecutor(1) as pool:
        load = pool.submit(deployed.load)
        loading.wait(10)
        try:
            with pytest.raises(InferenceError, match=r"No answer within 0\.1 s") as caught:
                deployed.ask(timeout=0.1)
            assert (caught.value.status, load.done()) == (504, False)
        finally:
            loaded.set()
    for process in deployed._processes:
        process._pipe.close()


def test_one_model_leaves_slots_of_the_router_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    deployed = Deployed("m", "/models/m", "/", None, start_and_die, 1)
    monkeypatch.setattr(deployed, "_ask", Mock(side_effect=[InferenceError("died"), Response(), Response()]))
    with pytest.raises(InferenceError, match="died"):
        deployed.ask(timeout=10)
    answer = deployed.ask(timeout=10)
    with pytest.raises(InferenceError, match="Model m has too many calls") as caught:
        deployed.ask(timeout=10)
    assert (caught.value.status, caught.value.headers) == (503, {"Retry-After": "1"})
    answer.close()
    deployed.ask(timeout=10).close()
