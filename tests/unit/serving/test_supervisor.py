"""Sizing, and what a batch job is told."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from optml import machine, paths
from optml.serving.model.requirements import find_requirements
from optml.serving.settings import Settings, read_settings
from optml.serving.sizing import plan_workers


@pytest.fixture
def settings() -> Settings:
    return dataclasses.replace(read_settings({}), gpus=0)


def test_as_many_workers_as_cpus(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cpu_count", lambda: 7)
    assert plan_workers(settings) == (7, "7 CPUs")


def test_one_worker_for_each_gpu(settings: Settings) -> None:
    assert plan_workers(dataclasses.replace(settings, gpus=4))[0] == 4


def test_what_the_user_says_counts(settings: Settings) -> None:
    assert plan_workers(dataclasses.replace(settings, gpus=4, workers=1))[0] == 1


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
