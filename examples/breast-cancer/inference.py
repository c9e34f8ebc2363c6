"""Serves the classifier: takes rows of features, returns the probability that each is benign."""

from pathlib import Path

import joblib


def model_fn(model_dir):
    return joblib.load(Path(model_dir) / "model.joblib")


def predict_fn(data, model):
    return model.predict_proba(data)[:, 1]
