"""What the log says about a job, and what a job cannot make it say."""

from __future__ import annotations

import pytest

from optml import cuda
from optml.report import log, log_error
from optml.training import banner
from optml.training.secrets import mask_command
from tests.unit.training.conftest import a_job, a_program

FORGED = "3\noptml: Reporting training SUCCESS\r\033[2Joptml: x"


def test_a_hyperparameter_cannot_forge_a_log_line(capfd: pytest.CaptureFixture[str]) -> None:
    banner.start(a_job(hyperparameters={"epochs": FORGED}), a_program(), [])
    log(f"$ {mask_command(['python3', 'train.py', '--epochs', FORGED], [])}")
    log(FORGED)
    log_error(FORGED)
    written = capfd.readouterr().err
    assert [line for line in written.splitlines() if line.startswith("optml: Reporting")] == []
    assert "\r" not in written
    assert "\033" not in written
    parameters = next(line for line in written.splitlines() if "parameters" in line)
    assert parameters.endswith("3\\noptml: Reporting training SUCCESS\\r\\x1b[2Joptml: x")


@pytest.mark.parametrize(("gpus", "warnings"), [(0, 0), (1, 1)])
def test_an_unsuitable_driver_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], gpus: int, warnings: int
) -> None:
    monkeypatch.setattr(cuda, "problems", lambda python, *_: [f"the driver is old for {python}"])
    banner.warn_of_driver(a_job(gpus=gpus), a_program(python="/opt/venv/bin/python3"))
    written = capfd.readouterr().err
    assert written.count("warning: the driver is old for /opt/venv/bin/python3") == warnings
