"""Fits a Gaussian naive Bayes classifier to the iris data in the channel `train`, in plain Python."""

import csv
import json
from collections import defaultdict
from pathlib import Path
from statistics import NormalDist

import optml

job = optml.job()
rows = []
for path in sorted(Path(job.channels["train"]).glob("*.csv")):
    with path.open() as file:
        rows += list(csv.reader(file))[1:]
species = defaultdict(list)
for *features, name in rows:
    species[name].append([float(feature) for feature in features])

smoothing = float(job.hyperparameters.get("smoothing", 0))
model = {}
for name, flowers in species.items():
    fits = [NormalDist.from_samples(feature) for feature in zip(*flowers, strict=True)]
    model[name] = [(fit.mean, fit.stdev + smoothing) for fit in fits]
Path(job.model_dir, "model.json").write_text(json.dumps(model))
print(f"fitted {len(model)} species to {len(rows)} flowers")
