"""Trains a classifier on the channel `train` and reports its accuracy on the channel `test`."""

import argparse
import json
import os
from pathlib import Path

import joblib
import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import accuracy_score, roc_auc_score

parser = argparse.ArgumentParser()
parser.add_argument("--learning-rate", type=float, default=0.1)
parser.add_argument("--max-iter", type=int, default=100)
parser.add_argument("--train", type=Path, default=os.environ.get("SM_CHANNEL_TRAIN"))
parser.add_argument("--test", type=Path, default=os.environ.get("SM_CHANNEL_TEST"))
parser.add_argument("--model-dir", type=Path, default=os.environ.get("SM_MODEL_DIR"))
parser.add_argument("--output-data-dir", type=Path, default=os.environ.get("SM_OUTPUT_DATA_DIR"))
args = parser.parse_args()


def load(channel: Path) -> tuple[np.ndarray, np.ndarray]:
    rows = np.concatenate([np.loadtxt(file, delimiter=",", skiprows=1) for file in channel.glob("*.csv")])
    return rows[:, 1:], rows[:, 0]


features, labels = load(args.train)
print(f"training on {len(labels)} rows of {features.shape[1]} features")
model = HistGradientBoostingClassifier(
    learning_rate=args.learning_rate, max_iter=args.max_iter, random_state=0
).fit(features, labels)

features, labels = load(args.test)
metrics = {
    "accuracy": round(accuracy_score(labels, model.predict(features)), 4),
    "roc_auc": round(roc_auc_score(labels, model.predict_proba(features)[:, 1]), 4),
    "rows": len(labels),
}
print(f"on {len(labels)} rows it has not seen: {metrics}")

joblib.dump(model, args.model_dir / "model.joblib")
(args.output_data_dir / "metrics.json").write_text(json.dumps(metrics))
