"""The benchmarks' gate and page, with made-up runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench import __main__ as bench
from tests.bench import page, record
from tests.bench.record import Curve, Row, Run


def run_of(**values: float) -> Run:
    """A run with a row of answers and one of times: optml has these figures, and its peer 100 in both."""
    rows = [
        Row("Serving", label, unit, more, {"optml": [values[label]], "peer": [100.0]})
        for label, unit, more in (("rate", "1/s", True), ("time", "ms", False))
        if label in values
    ]
    return Run("2026-01-01", {"cores": 2}, {"peer": "1"}, {}, rows)


PUBLISHED = [run_of(rate=120, time=90), run_of(rate=125, time=80), run_of(rate=110, time=85)]


@pytest.mark.parametrize(
    ("now", "lost"),
    [
        ({"rate": 120, "time": 85}, []),
        ({"rate": 95, "time": 105}, []),  # a noisy machine
        ({"rate": 84, "time": 85}, []),  # 0.76 of the lowest that was published
        ({"rate": 80, "time": 85}, ["rate"]),
        ({"rate": 120, "time": 125}, ["time"]),
        ({"rate": 60, "time": 300}, ["rate", "time"]),
        ({"time": 85}, []),  # what was not measured is not lost
    ],
)
def test_the_gate_names_what_is_lost(
    now: dict[str, float], lost: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench.check(run_of(**now), PUBLISHED) == (1 if lost else 0)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[1].split(",")[1].strip() for line in lines] == lost
    assert all("× peer, published are" in line for line in lines)


def test_an_absent_peer_is_not_compared() -> None:
    now = run_of(rate=10, time=1000)
    for row in now.rows:
        del row.values["peer"]
    assert bench.check(now, PUBLISHED) == 0


def test_the_page_has_the_rows_that_are_lost_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr(page, "PLOTS", tmp_path / "plots")
    monkeypatch.setattr(page, "README", tmp_path / "README.md")
    monkeypatch.setattr(page, "summary", lambda runs: "")
    monkeypatch.setattr(page, "_line", lambda curve, path: None)
    (tmp_path / "README.md").touch()
    rising = Curve(
        "Training", "start, by hosts", "hosts", "ms", [(1, 10.0), (11, 15.0)], "100 hosts: no room"
    )
    runs = [run_of(rate=120, time=150) for _ in range(3)]
    runs[0].curves = [rising]  # the last run that has any
    page.write(runs)
    text = (tmp_path / "page.md").read_text()
    lost, won = text.index("## Rows that optml loses"), text.index("## Rows that optml wins")
    assert lost < text.index("Serving: time (ms) | 150 | 100 | peer | 0.67 ×") < won
    assert won < text.index("Serving: rate (1/s) | 120 | 100 | peer | 1.20 ×")
    assert "quote none" not in text
    assert "| ms for each more | – | 0.5 |" in text
    assert "No more: 100 hosts: no room." in text
    page.write(runs[:2])
    assert "Fewer than three runs" in (tmp_path / "page.md").read_text()


def test_the_quoted_figure_is_the_median_of_the_runs_own_ratios(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ratio of the medians differs: 2 here, outside the spread."""
    runs = [run_of(rate=0) for _ in range(3)]
    for run in runs:
        run.rows[0].values = {"optml": [100.0, 300.0, 200.0], "peer": [100.0, 100.0, 400.0]}
    for name in ("PAGE", "PLOTS", "README"):
        monkeypatch.setattr(page, name, tmp_path / name)
    monkeypatch.setattr(page, "summary", lambda runs: "")
    (tmp_path / "README").touch()
    page.write(runs)
    assert "| 200 | 100 | peer | 1.00 × | 1.00–1.00 |" in (tmp_path / "PAGE").read_text()


def test_the_published_figures_come_from_the_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published = {name: getattr(page, name).read_text() for name in ("PAGE", "README")}
    for name, text in published.items():
        monkeypatch.setattr(page, name, tmp_path / name)
        (tmp_path / name).write_text(text)
    for plot in ("_line", "_bars"):
        monkeypatch.setattr(page, plot, lambda *_: None)
    page.write(record.load())
    assert {name: (tmp_path / name).read_text() for name in published} == published
