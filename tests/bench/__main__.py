"""Measures optml against its peers, in turn, on this machine; `make bench` runs it.

usage: python -m tests.bench [--quick] [--only NAME...] [--keep | --check]

A run takes twenty minutes, with --quick under five. --keep adds it to the published runs and rewrites
docs/benchmarks.md. --check compares it with them, and exits with 1 if optml has lost ground. A quick run has
one round, too few for either.
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
"""A ratio to the best peer below this fraction of the least published one is a loss, not noise."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one round instead of five, and smaller curves")
    parser.add_argument("--only", nargs="+", choices=BENCHES, default=list(BENCHES), metavar="NAME",
                        help=f"some of: {', '.join(BENCHES)}")  # fmt: skip
    parser.add_argument("--keep", action="store_true", help="add this run to the published ones")
    parser.add_argument("--check", action="store_true", help="fail if a published ratio is lost")
    options = parser.parse_args()
    if options.quick and (options.keep or options.check):
        parser.error("--quick has one round, too few to be kept or compared")
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
    """Print each row in which optml has lost ground against the best peer of the published runs."""
    lost = 0
    for row in record.merged(published):
        now = next((each for each in run.rows if each.name == row.name), None)
        peer = row.best_peer()
        if not (now and peer and {"optml", peer} <= now.values.keys() & row.values.keys()):
            continue
        least = min(record.advantages(published, row, peer))
        if now.advantage(peer) < LOSS * least:
            lost += 1
            print(
                f"lost: {row.group}, {row.label}: {now.advantage(peer):.2f} × {peer},"
                f" published are {least:.2f} × and more",
                file=sys.stderr,
            )
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
