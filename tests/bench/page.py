"""Writes docs/benchmarks.md and its plots from the published runs alone."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import median

from tests.bench.record import Curve, Row, Run, advantages, merged
from tests.support.marks import write_between
from tests.support.matrix import ROOT

PAGE = ROOT / "docs/benchmarks.md"
README = ROOT / "README.md"
BEGIN, END = "<!-- written by make bench -->\n", "<!-- end -->\n"
PLOTS = ROOT / "docs/benchmarks"
INTRODUCTION = """\
# Benchmarks

Written by `make bench`, from [results.json](../tests/bench/results.json); do not edit.

All contenders run the same model in the same image (Debian bookworm, Python 3.11), with two workers in
containers with the same limits. They are measured in turn, in rounds. Each figure is the median of the runs,
and a run's figure is the median of its rounds. "optml is" gives how many times better optml is than the best
peer: the median of the runs' own ratios. The spread is their range. Times depend on the machine, so compare
the ratios. Rows that optml loses come first.
"""


def table(run: Run) -> str:
    """All results of a run, for a terminal: the medians of each row, and how much better optml is."""
    lines = []
    for curve in run.curves:
        lines.append(f"\n{curve.group}: {curve.label}, {curve.unit}")
        lines += [f"  {x:>12,.0f} {curve.x}: {_number(y)}" for x, y in curve.points]
        lines += [f"  no more: {curve.end}"] if curve.end else []
    for row in run.rows:
        lines.append(f"\n{row.group}: {row.label}, {row.unit or 'ratio'}")
        for name in sorted(row.values, key=row.median, reverse=row.more_is_better):
            against = (
                ""
                if name == "optml" or "optml" not in row.values
                else f"  optml is {row.advantage(name):.2f} ×"
            )
            lines.append(f"  {name:28}{_number(row.median(name)):>12}{against}")
    return "\n".join(lines)


def write(runs: list[Run]) -> None:
    """Write the page, its plots, and the table in the README."""
    PLOTS.mkdir(exist_ok=True)
    write_between(README, BEGIN, END, summary(runs))
    rows = [row for row in merged(runs) if "optml" in row.values]
    compared = [row for row in rows if row.best_peer()]
    alone = [row for row in rows if "bare" in row.values or not row.best_peer()]
    better = {row.name: median(advantages(runs, row, row.best_peer() or "")) for row in compared}
    compared.sort(key=lambda row: better[row.name])
    lost = [row for row in compared if better[row.name] < 1]
    won = [row for row in compared if row not in lost]
    parts = [INTRODUCTION, _circumstances(runs)]
    parts += ["## Rows that optml loses", _rows(lost, runs)]
    if alone:
        parts += ["## Against bare Python, and rows without a peer", _alone(alone)]
    parts += ["## Rows that optml wins", _rows(won, runs)]
    parts += ["## All contenders", *_groups(rows)]
    curves = next((run.curves for run in reversed(runs) if run.curves), [])
    if curves:
        parts += ["## How costs grow", _curves(curves)]
    PAGE.write_text("\n\n".join(part.strip() for part in parts if part) + "\n")


def summary(runs: list[Run]) -> str:
    """How many times better optml is than the fastest well-known Python server, with the spread."""
    rows = {row.name: row for row in merged(runs)}
    peer = "uvicorn + Starlette"
    counts = ("1 connection", "8 connections", "64 connections")
    lines = [f"| optml to {peer} | {' | '.join(counts)} |", "|---|---|---|---|"]
    for figure, title in (("answers/s", "answers per second"), ("p99", "p99 latency")):
        for kind in ("JSON 100 B", "CSV 10 kB", "NPY 1 MB"):
            found = [rows[f"Serving: {kind}", f"{figure}, {count}"] for count in counts]
            cells = ("{} × ({})".format(*_advantage(row, peer, runs)) for row in found)
            lines.append(f"| {kind}: {title} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _circumstances(runs: list[Run]) -> str:
    last = runs[-1]
    facts = [
        f"{value} {name}" if name == "cores" else f"{name} {value}" for name, value in last.machine.items()
    ]
    versions = ", ".join(f"{name} {version}" for name, version in sorted(last.versions.items()))
    dates = sorted({run.date for run in runs})
    text = (
        f"Runs: {len(runs)}, of {' and '.join(dates)}. Machine: {', '.join(facts)}.\n\nVersions: {versions}."
    )
    if len(runs) < 3:
        text += "\n\nFewer than three runs: these figures may not be repeatable, so quote none."
    if last.absent:
        text += "\n\nNot measured: " + "; ".join(f"{name} ({why})" for name, why in last.absent.items()) + "."
    return text


def _rows(rows: list[Row], runs: list[Run]) -> str:
    if not rows:
        return "None."
    lines = ["| what | optml | the best peer | | optml is | spread |", "|---|---:|---:|---|---:|---|"]
    for row in rows:
        peer = row.best_peer() or ""
        better, spread = _advantage(row, peer, runs)
        lines.append(
            f"| {row.group}: {row.label} ({row.unit or 'ratio'}) | {_number(row.median('optml'))} |"
            f" {_number(row.median(peer))} | {peer} | {better} × | {spread} |"
        )
    return "\n".join(lines)


def _advantage(row: Row, peer: str, runs: list[Run]) -> tuple[str, str]:
    """How many times better optml was: the median of the runs, and their range."""
    found = advantages(runs, row, peer)
    return f"{median(found):.2f}", f"{min(found):.2f}–{max(found):.2f}"


def _alone(rows: list[Row]) -> str:
    lines = ["| what | optml | bare | ratio |", "|---|---:|---:|---:|"]
    for row in rows:
        bare = row.values.get("bare")
        cells = f"{_number(row.median('bare'))} | {row.ratio('bare'):.2f}" if bare else " | "
        lines.append(
            f"| {row.group}: {row.label} ({row.unit or 'ratio'}) | {_number(row.median('optml'))} | {cells} |"
        )
    return "\n".join(lines)


def _groups(rows: list[Row]) -> list[str]:
    """A table for each group and, if it has answers per second, a plot."""
    parts = []
    for group in dict.fromkeys(row.group for row in rows):
        mine = [row for row in rows if row.group == group]
        names = list(dict.fromkeys(name for row in mine for name in row.values))
        lines = [f"### {group}", "", f"| | {' | '.join(names)} |", "|---|" + "---:|" * len(names)]
        for row in mine:
            cells = [_number(row.median(name)) if name in row.values else "–" for name in names]
            lines.append(f"| {row.label} ({row.unit or 'ratio'}) | {' | '.join(cells)} |")
        rates = [row for row in mine if row.label.startswith("answers/s")]
        if rates:
            plot = PLOTS / f"{group.partition(': ')[2].split()[0].lower()}.svg"
            _bars(rates, plot)
            lines += ["", f"![{group}](benchmarks/{plot.name})"]
        parts.append("\n".join(lines))
    return parts


def _curves(curves: list[Curve]) -> str:
    lines = []
    for number, curve in enumerate(curves, 1):
        plot = PLOTS / f"curve-{number}.svg"
        _line(curve, plot)
        cells = " | ".join(f"{x:,.0f}" for x, _ in curve.points)
        values = " | ".join(_number(y) for _, y in curve.points)
        lines += [f"### {curve.group}: {curve.label}", "", f"| {curve.x} | {cells} |"]
        lines += ["|---|" + "---:|" * len(curve.points), f"| {curve.unit} | {values} |"]
        if curve.unit in ("ms", "MiB"):
            lines.append(f"| {curve.unit} for each more | – | {' | '.join(_steps(curve))} |")
        if curve.why:
            lines += ["", f"Why the cost grows: {curve.why}."]
        if curve.end:
            lines += ["", f"No more: {curve.end}."]
        lines += ["", f"![{curve.label}](benchmarks/{plot.name})", ""]
    return "\n".join(lines)


def _steps(curve: Curve) -> list[str]:
    """The cost of each more, between adjacent points."""
    pairs = zip(curve.points, curve.points[1:], strict=False)
    return [f"{(y - before) / (x - less):.3g}" for (less, before), (x, y) in pairs]


def _axes(width: float, height: float):  # type: ignore[no-untyped-def]  # matplotlib is there for `make bench` alone
    """A figure that is readable on white and on black: transparent, with grey lines."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    grey = "#808080"
    pyplot.rcParams.update(
        {"svg.hashsalt": "optml", "svg.fonttype": "none", "text.color": grey, "axes.edgecolor": grey,
         "axes.labelcolor": grey, "xtick.color": grey, "ytick.color": grey, "font.size": 9}
    )  # fmt: skip
    figure, axes = pyplot.subplots(figsize=(width, height), layout="constrained")
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure, path: Path) -> None:  # type: ignore[no-untyped-def]
    figure.savefig(path, transparent=True, metadata={"Date": None, "Creator": None})


def _bars(rows: list[Row], path: Path) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row.values))
    figure, axes = _axes(7, 0.32 * len(names) * len(rows) ** 0.5 + 0.8)
    height = 0.8 / len(rows)
    shades = ["#9ecae9", "#4c9be8", "#1f6fbf"]
    for number, row in enumerate(rows):
        places = [place - 0.4 + height * (number + 0.5) for place in range(len(names))]
        values = [row.median(name) if name in row.values else 0 for name in names]
        axes.barh(places, values, height * 0.9, label=row.label.partition(", ")[2], color=shades[number % 3])
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel("answers per second")
    axes.legend(frameon=False)
    _save(figure, path)


def _line(curve: Curve, path: Path) -> None:
    figure, axes = _axes(5, 2.6)
    axes.plot(*zip(*curve.points, strict=True), marker="o", color="#1f6fbf")
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_xlabel(curve.x)
    axes.set_ylabel(curve.unit)
    _save(figure, path)


def _number(value: float) -> str:
    """A number with three significant digits."""
    if not math.isfinite(value):
        return "–"
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"
