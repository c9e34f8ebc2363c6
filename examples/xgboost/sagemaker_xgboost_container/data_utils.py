"""Reads a channel as an XGBoost matrix."""

from pathlib import Path

import xgboost
from pandas import concat, read_csv

from . import encoder


def get_dmatrix(path, content_type, csv_weights=0, is_pipe=False, combine_train_val=False):
    """Read a folder or a file: CSV with the label first and no header, or libsvm."""
    if csv_weights or is_pipe or combine_train_val:
        raise ValueError("weights, pipes and combined channels are not read here")
    if path is None:
        return None
    root = Path(path)
    files = sorted(file for file in root.rglob("*") if file.is_file()) if root.is_dir() else [root]
    if "libsvm" in content_type:
        return encoder.libsvm_to_dmatrix("".join(file.read_text() for file in files))
    rows = concat(read_csv(file, header=None) for file in files).to_numpy("float32")
    return xgboost.DMatrix(rows[:, 1:], label=rows[:, 0])
