"""Measures optml against its peers, in turn, on this machine. `make bench` calls it.

usage: python -m tests.bench [--quick] [--only NAME...] [--keep] [--check]

A run takes some twenty minutes, --quick under five. --keep adds it to the published runs and writes
docs/benchmarks.md anew; --check compares it with them, and ends with 1 where optml has lost ground.
"""

from __future__ import annotations

import argparse
import shutil
import sys

from tests.bench import coldstart, contenders, curves, page, record, serving, training

BENCHES = {
    "training": training.measure,
    "serving": serving.measure,
    "curves": curves.measure,
    "coldstart": coldstart.measure,
}
LOSS = 0.75
"""A ratio to the best peer below this part of the published one is a loss, and not noise."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one round instead of five, and less of all")
    parser.add_argument("--only", nargs="+", choices=BENCHES, default=list(BENCHES), metavar="NAME",
                        help=f"some of: {', '.join(BENCHES)}")  # fmt: skip
    parser.add_argument("--keep", action="store_true", help="add this run to the published ones")
    parser.add_argument("--check", action="store_true", help="fail where a published ratio is lost")
    options = parser.parse_args()
    if not shutil.which("wrk"):
        parser.error("wrk is not installed: apt-get install wrk")
    run = record.begin()
    contenders.build(run)
    for name in options.only:
        print(f"measuring {name}", flush=True)
        BENCHES[name](run, 1 if options.quick else 5)
    print(page.table(run))
    for name, why in run.absent.items():
        print(f"not measured: {name}: {why}")
    published = record.load()
    if options.keep:
        record.save([*published, run])
        page.write(record.load())
    return check(run, published) if options.check else 0


def check(run: record.Run, published: list[record.Run]) -> int:
    """Print each row in which optml has lost ground to the best peer of the published runs."""
    then = {(row.group, row.label): row for row in record.merged(published)}
    lost = 0
    for row in run.rows:
        before = then.get((row.group, row.label))
        peer = before and before.best_peer()
        if not (before and peer and "optml" in row.values and peer in row.values):
            continue
        if row.advantage(peer) < LOSS * before.advantage(peer):
            lost += 1
            print(
                f"lost: {row.group}, {row.label}: {row.advantage(peer):.2f} × {peer},"
                f" published are {before.advantage(peer):.2f} ×",
                file=sys.stderr,
            )
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
