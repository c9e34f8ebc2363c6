"""A model of many whose process dies, or takes long to load."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
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


def test_a_call_waits_no_longer_for_its_model_to_load_than_a_call_may_take(tmp_path: Path) -> None:
    """Else a few calls to a model that takes minutes would leave none of the router's slots to others."""
    loading, loaded = threading.Event(), threading.Event()

    def start_slowly(order: dict[str, Any], listener: int, reports: int) -> None:
        loading.set()
        loaded.wait(10)
        start_and_die(order, listener, reports)

    deployed = Deployed("m", "/models/m", str(tmp_path), None, start_slowly)
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
