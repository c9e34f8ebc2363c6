"""Serves the booster: takes CSV or JSON rows of features, returns predictions."""

import os

import lightgbm


def model_fn(model_dir):
    return lightgbm.Booster(model_file=os.path.join(model_dir, "model.txt"))
