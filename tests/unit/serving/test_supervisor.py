"""Sizing, and what the death of a worker means."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer

from optml import gpus, machine, paths
from optml.gpus import Gpu
from optml.serving.model.requirements import find_requirements
from optml.serving.scoreboard import CALLS, READY, Scoreboard
from optml.serving.settings import Settings
from optml.serving.sizing import fitting, plan_workers
from optml.serving.supervisor import Supervisor, _runs

FOUR = [Gpu(index, f"GPU-{index}", memory=16 << 30, used=1 << 30) for index in range(4)]


@pytest.fixture
def settings() -> Settings:
    settings = Settings({})
    settings.gpus = []
    return settings


def test_as_many_workers_as_cpus(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cpu_count", lambda: 7)
    assert plan_workers(settings) == (7, "7 CPUs")


def test_one_worker_for_each_gpu(settings: Settings) -> None:
    settings.gpus = FOUR
    assert plan_workers(settings)[0] == 4


@pytest.mark.parametrize(
    ("workers", "used", "count"),
    [
        (8, 4, 8),  # GB in use, 1 of them before the first worker started
        (8, 8, 4),
        (16, 4, 16),
        (17, 4, 16),
        (9, 15, 4),  # at least one per GPU
        (8, 1, 8),  # the worker has no model there
        (4, 15, 4),
        (2, 15, 2),
        (8, 40, 8),  # more than there is
    ],
)
def test_workers_that_share_gpus_are_as_many_as_fit(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, workers: int, used: int, count: int
) -> None:
    monkeypatch.setattr(gpus, "memory", lambda: [Gpu(0, "GPU-0", used=used << 30)])
    settings.gpus, settings.workers = FOUR, workers
    found, reason = fitting(workers, "SAGEMAKER_MODEL_SERVER_WORKERS", settings, [])
    assert found == count
    assert ("but only" in reason) == (count < workers)


def test_workers_that_share_gpus_stay_where_nvml_is_silent(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpus, "memory", list)
    settings.gpus, settings.workers = FOUR, 9
    assert fitting(9, "", settings, [])[0] == 9


def test_workers_that_share_gpus_stay_where_nvml_does_not_tell_how_large_they_are(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpus, "memory", lambda: [Gpu(0, "GPU-0", used=4 << 30)])
    settings.gpus, settings.workers = [Gpu(0, "GPU-0")], 3
    assert fitting(3, "", settings, [])[0] == 3


def test_what_the_user_says_counts(settings: Settings) -> None:
    settings.gpus, settings.workers = FOUR, 1
    assert plan_workers(settings)[0] == 1


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


def test_a_child_runs_until_it_has_ended_and_not_until_it_is_reaped() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        assert _runs(child.pid)
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert not _runs(child.pid)
    assert not _runs(child.pid)


class Deaths:
    """A supervisor of two workers that does not fork, and its clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("optml.serving.supervisor.time.monotonic", lambda: self.now)
        self.scoreboard = Scoreboard(2)
        self.supervisor = Supervisor.__new__(Supervisor)
        self.supervisor.failures, self.supervisor.failed_at = 0, 0.0
        self.supervisor.stopping, self.supervisor.retry_at = False, 0.0
        self.supervisor.scoreboard = self.scoreboard
        self.supervisor.app = SimpleNamespace(
            exchange=SimpleNamespace(report_death=lambda: None),
            settings=SimpleNamespace(start_retries=1),
        )

    def die(self, after: float, state: int = 0, calls: int = 0) -> None:
        """A worker dies so many seconds later, while it loads or in another state."""
        self.now += after
        self.scoreboard.begin(0)
        if state:
            self.scoreboard.set_state(0, state)
        self.scoreboard.cells[0, CALLS] = calls
        self.supervisor.on_death(SimpleNamespace(row=0))


def test_who_fails_again_and_again_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    deaths = Deaths(monkeypatch)
    deaths.die(after=0)
    with pytest.raises(HaltServer):
        deaths.die(after=50)


def test_a_failure_of_more_than_a_minute_ago_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    deaths = Deaths(monkeypatch)
    for _ in range(5):
        deaths.die(after=61)
    for _ in range(5):
        deaths.die(after=61, state=READY, calls=1)  # in its first call


def test_the_death_of_an_idle_worker_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    deaths = Deaths(monkeypatch)
    for _ in range(5):
        deaths.die(after=1, state=READY)
    deaths.die(after=1)
    deaths.die(after=1, state=READY)
    deaths.die(after=1)  # the death of an idle worker has reset the count
    with pytest.raises(HaltServer):
        deaths.die(after=1, state=READY, calls=1)


def test_a_worker_that_is_still_loading_is_told_to_stop_until_it_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Right after the fork it still has the supervisor's handlers, which would swallow a single SIGTERM."""
    monkeypatch.setattr(Arbiter, "reap_workers", lambda self: None)
    sent: list[tuple[int, int]] = []
    scoreboard = Scoreboard(2)
    supervisor = Supervisor.__new__(Supervisor)
    supervisor.scoreboard, supervisor.stopping = scoreboard, False
    supervisor.WORKERS = {7: SimpleNamespace(row=0), 8: SimpleNamespace(row=1)}
    supervisor.kill_worker = lambda pid, number: sent.append((pid, number))
    scoreboard.begin(0)
    scoreboard.set_state(1, READY)
    supervisor.reap_workers()
    assert not sent
    supervisor.stopping = True
    supervisor.reap_workers()
    supervisor.reap_workers()
    assert sent == 2 * [(7, signal.SIGTERM)]
