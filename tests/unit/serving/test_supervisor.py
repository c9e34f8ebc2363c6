"""Sizing, and what a batch job is told."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from optml import gpus, machine, paths
from optml.gpus import Gpu
from optml.serving.model.requirements import find_requirements
from optml.serving.settings import Settings, read_settings
from optml.serving.sizing import fitting, plan_workers

FOUR = [Gpu(index, f"GPU-{index}", memory=16 << 30, used=1 << 30) for index in range(4)]


@pytest.fixture
def settings() -> Settings:
    return dataclasses.replace(read_settings({}), gpus=[])


def test_as_many_workers_as_cpus(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cpu_count", lambda: 7)
    assert plan_workers(settings) == (7, "7 CPUs")


def test_one_worker_for_each_gpu(settings: Settings) -> None:
    assert plan_workers(dataclasses.replace(settings, gpus=FOUR))[0] == 4


@pytest.mark.parametrize(
    ("workers", "used", "count"),
    [
        (8, 4, 8),  # GB in use, 1 of them before the first worker came
        (8, 8, 4),
        (16, 4, 16),
        (17, 4, 16),
        (9, 15, 4),  # fewer than one a GPU are none
        (8, 1, 8),  # it has no model there
        (4, 15, 4),
        (2, 15, 2),
    ],
)
def test_workers_that_share_gpus_are_as_many_as_fit(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, workers: int, used: int, count: int
) -> None:
    monkeypatch.setattr(gpus, "memory", lambda: [Gpu(0, "GPU-0", used=used << 30)])
    asked = dataclasses.replace(settings, gpus=FOUR, workers=workers)
    found, reason = fitting(workers, "SAGEMAKER_MODEL_SERVER_WORKERS", asked, [])
    assert found == count
    assert ("but only" in reason) == (count < workers)


def test_workers_that_share_gpus_stay_where_nvml_is_silent(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpus, "memory", list)
    assert fitting(9, "", dataclasses.replace(settings, gpus=FOUR, workers=9), [])[0] == 9


def test_what_the_user_says_counts(settings: Settings) -> None:
    assert plan_workers(dataclasses.replace(settings, gpus=FOUR, workers=1))[0] == 1


def test_requirements_lie_beside_the_code_or_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "MODEL", str(tmp_path))
    assert find_requirements(None) is None
    (tmp_path / "requirements.txt").touch()
    assert find_requirements(None) == f"{tmp_path}/requirements.txt"
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "requirements.txt").touch()
    assert find_requirements(f"{tmp_path}/code/inference.py") == f"{tmp_path}/code/requirements.txt"
