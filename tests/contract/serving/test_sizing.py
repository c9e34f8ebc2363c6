"""Section 6 of the contract: what each worker may use. GPUs are counted by their device files here."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from .serving import Models, Server, eventually, write_model

pytestmark = pytest.mark.image("cpu-serve")

TWO_GPUS = [f"--device=/dev/null:/dev/nvidia{each}" for each in ("ctl", 0, 1)]

TELLER = """
import os, time

def model_fn(model_dir):
    return os.environ["CUDA_VISIBLE_DEVICES"]

def predict_fn(data, model, context):
    time.sleep(0.1)
    return [os.getpid(), model, os.environ["CUDA_VISIBLE_DEVICES"]]
"""


@pytest.mark.parametrize(("settings", "workers"), [({}, 2), ({"SAGEMAKER_MODEL_SERVER_WORKERS": 4}, 4)])
def test_workers_are_spread_over_the_gpus(
    image: str, ml: Path, settings: dict[str, int], workers: int
) -> None:
    with Server(image, ml, TELLER, *TWO_GPUS, **settings) as server, ThreadPoolExecutor(8) as pool:
        told: set[tuple[int, str, str]] = set()

        def ask() -> bool:
            told.update(tuple(answer.json()) for answer in pool.map(lambda _: server.invoke(), range(8)))
            return len(told) == workers

        eventually(ask)
        assert all(loaded == called for _, loaded, called in told)
        assert Counter(gpu for _, gpu, _ in told) == {"0": workers / 2, "1": workers / 2}


def test_models_are_spread_over_the_gpus(image: str, ml: Path) -> None:
    write_model(ml, "m", TELLER)
    with Models(image, ml, *TWO_GPUS) as server:

        def gpu(name: str) -> int:
            _, loaded, called = server.invoke(name).json()
            assert loaded == called
            return int(called)

        for name in "abcd":
            assert server.load(name, "m").status_code == 200
        assert [gpu(name) for name in "abcd"] == [0, 1, 0, 1]
        for name in "bd":
            assert server.unload(name).status_code == 200
        for name in "ef":
            assert server.load(name, "m").status_code == 200
        assert [gpu(name) for name in "acef"] == [0, 0, 1, 1]


@pytest.mark.parametrize("workers", [1, 2])
def test_the_cpus_are_shared_by_the_threads_of_all_workers(image: str, ml: Path, workers: int) -> None:
    source = """
    import os
    def model_fn(model_dir):
        return len(os.sched_getaffinity(0)), os.environ["OMP_NUM_THREADS"]
    def predict_fn(data, model):
        return model
    """
    with Server(image, ml, source, SAGEMAKER_MODEL_SERVER_WORKERS=workers) as server:
        cpus, threads = server.invoke().json()
        assert threads == str(max(1, cpus // workers))
    with Server(image, ml, source, SAGEMAKER_MODEL_SERVER_WORKERS=workers, OMP_NUM_THREADS=7) as server:
        assert server.invoke().json()[1] == "7"
