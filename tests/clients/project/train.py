"""Fits a line through the points of the channel `train`, and notes what it was given."""

import argparse
import csv
import json
import os
import statistics
import sys
import time
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, required=True)
parser.add_argument("--train", default=os.environ["SM_CHANNEL_TRAIN"])
parser.add_argument("--model-dir", default=os.environ["SM_MODEL_DIR"])
parser.add_argument("--broken")
arguments, _ = parser.parse_known_args()

host = os.environ["SM_CURRENT_HOST"]
given = {
    "arguments": sys.argv[1:],
    "hyperparameters": json.loads(os.environ["SM_HPS"]),
    "hosts": json.loads(os.environ["SM_HOSTS"]),
    "channels": json.loads(os.environ["SM_CHANNELS"]),
    "job": os.environ["TRAINING_JOB_NAME"],
}
Path(os.environ["SM_OUTPUT_DATA_DIR"], f"{host}.json").write_text(json.dumps(given))

if arguments.broken:
    raise ValueError("the points lie on no line")

# The local mode ends every host as soon as one has ended.
while len(list(Path(arguments.model_dir).glob("*.host"))) < len(given["hosts"]):
    Path(arguments.model_dir, f"{host}.host").touch()
    time.sleep(0.05)

with Path(arguments.train, "points.csv").open() as file:
    x, y = zip(*((float(a), float(b)) for a, b in csv.reader(file)), strict=True)
slope, intercept = statistics.linear_regression(x, y)
Path(arguments.model_dir, "line.json").write_text(json.dumps({"slope": slope, "intercept": intercept}))
print(f"{host} fitted {len(x)} points")
