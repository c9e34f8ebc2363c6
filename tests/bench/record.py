"""The results of a run of the bench: the figures of each contender in each round, and the machine."""

from __future__ import annotations

import json
import os
import platform
import random
import statistics
import subprocess
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

Contender = TypeVar("Contender")

RESULTS = Path(__file__).parent / "results.json"
"""The published runs, all of the same code; docs/benchmarks.md is written from them."""


@dataclass
class Row:
    """One figure of all contenders, which were measured in turn, in rounds."""

    group: str
    """The heading below which it appears."""
    label: str
    unit: str
    more_is_better: bool
    values: dict[str, list[float]] = field(default_factory=dict)
    """Contender → its figure in each round; absent if the contender could not do it."""

    @property
    def name(self) -> tuple[str, str]:
        return self.group, self.label

    def add(self, contender: str, value: float) -> None:
        self.values.setdefault(contender, []).append(round(value, 3))

    def median(self, contender: str) -> float:
        return statistics.median(self.values[contender])

    def best_peer(self) -> str | None:
        """The contender with the best median, except bare Python and optml's own ("optml, cpu-serve")."""
        peers = [name for name in self.values if name != "bare" and not name.startswith("optml")]
        choose = max if self.more_is_better else min
        return choose(peers, key=self.median) if peers else None

    def ratio(self, peer: str) -> float:
        """optml's figure to a peer's: the median of the rounds' ratios."""
        pairs = zip(self.values["optml"], self.values[peer], strict=False)
        return statistics.median(1 if mine == theirs else mine / max(theirs, 1e-9) for mine, theirs in pairs)

    def advantage(self, peer: str) -> float:
        """How many times better than a peer; above 1 is better, also if a smaller figure is."""
        return self.ratio(peer) if self.more_is_better else 1 / max(self.ratio(peer), 1e-9)


@dataclass
class Curve:
    """One figure over a growing quantity."""

    group: str
    label: str
    x: str
    unit: str
    points: list[tuple[float, float]] = field(default_factory=list)
    end: str = ""
    """Where it ended early, and why."""
    why: str = ""
    """Why the cost of each more grows, if it does."""


@dataclass
class Run:
    """All that one call of `make bench` measured."""

    date: str
    machine: dict[str, Any]
    versions: dict[str, str]
    absent: dict[str, str]
    """Contender → why it was not measured."""
    rows: list[Row] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)


def in_turn(contenders: Iterable[Contender], rounds: int) -> Iterator[Contender]:
    """Each contender once per round, in a random order: some stay busy long after their turn."""
    chance, order = random.Random(1), list(contenders)
    for _ in range(rounds):
        yield from chance.sample(order, len(order))


def begin() -> Run:
    """A run on this machine, which is described but not named."""
    engine = subprocess.run(
        ["docker", "version", "--format", "{{.Server.Version}}"], capture_output=True, text=True, check=True
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    machine = {
        "cores": os.cpu_count(),
        "memory": f"{memory / 2**30:.0f} GiB",
        "machine": platform.machine(),
        "kernel": platform.release().split("-")[0],
        "Docker Engine": engine.stdout.strip(),
    }
    return Run(time.strftime("%Y-%m-%d", time.gmtime()), machine, {}, {})


def load(path: Path = RESULTS) -> list[Run]:
    """The runs in a file; none if it does not exist."""
    if not path.exists():
        return []
    return [
        Run(
            **run
            | {
                "rows": [Row(**row) for row in run["rows"]],
                "curves": [Curve(**curve) for curve in run["curves"]],
            }
        )
        for run in json.loads(path.read_text())
    ]


def save(runs: list[Run], path: Path = RESULTS) -> None:
    path.write_text(json.dumps([asdict(run) for run in runs], indent=1) + "\n")


def advantages(runs: list[Run], row: Row, peer: str) -> list[float]:
    """How many times better than a peer optml was in this row, in each run that has both."""
    return [
        each.advantage(peer)
        for run in runs
        for each in run.rows
        if each.name == row.name and {"optml", peer} <= each.values.keys()
    ]


def merged(runs: list[Run]) -> list[Row]:
    """Each row over all runs, with their medians in place of rounds."""
    rows: dict[tuple[str, str], Row] = {}
    for run in runs:
        for row in run.rows:
            whole = rows.setdefault(row.name, Row(row.group, row.label, row.unit, row.more_is_better))
            for contender in row.values:
                whole.add(contender, row.median(contender))
    return list(rows.values())
