"""A processing job: keeps the points whose y is not negative."""

import argparse
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--least", type=float, default=0)
least = parser.parse_args().least

here = Path("/opt/ml/processing")
lines = (here / "input/points.csv").read_text().splitlines()
kept = [line for line in lines if float(line.split(",")[1]) >= least]
(here / "output/points.csv").write_text("\n".join(kept))
print(f"kept {len(kept)} of {len(lines)} points")
