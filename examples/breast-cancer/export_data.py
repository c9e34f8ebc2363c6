"""Writes the Wisconsin breast cancer data that ships with scikit-learn as CSV files: a header, label first.

usage: export_data.py DIRECTORY
"""

import csv
import sys
from pathlib import Path

from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

directory = Path(sys.argv[1])
data = load_breast_cancer()
rows = [[label, *features] for label, features in zip(data.target, data.data, strict=True)]
parts = dict(zip(("train", "test"), train_test_split(rows, test_size=0.2, random_state=0), strict=True))
for part, lines in parts.items():
    (directory / part).mkdir(parents=True, exist_ok=True)
    with open(directory / part / f"{part}.csv", "w", newline="") as file:
        csv.writer(file).writerows([["benign", *data.feature_names], *lines])
    print(f"{part}: {len(lines)} rows")
