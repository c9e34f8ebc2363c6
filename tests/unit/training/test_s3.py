"""What is said about transfers. The transfers themselves are tested with containers and a server."""

from __future__ import annotations

import pytest

from optml.training import s3


def test_a_long_download_tells_its_progress(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    clock = iter(range(100))  # one second a call
    monkeypatch.setattr(s3.time, "monotonic", lambda: next(clock))
    progress = s3._Progress("data.tar.gz", 100 << 20)
    for _ in range(10):
        progress(10 << 20)
    assert capfd.readouterr().err.splitlines() == [
        "optml: data.tar.gz: 50 of 100 MiB (50 %)",
        "optml: data.tar.gz: 100 of 100 MiB (100 %)",
    ]


def test_a_short_one_does_not(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    clock = iter(range(0, 100, 60))
    monkeypatch.setattr(s3.time, "monotonic", lambda: next(clock))
    s3._Progress("train.py", 1000)(1000)
    assert capfd.readouterr().err == ""
