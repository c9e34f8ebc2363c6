"""Converts rows of text to an XGBoost matrix."""

import io

import xgboost
from pandas import read_csv
from sklearn.datasets import load_svmlight_file


def csv_to_dmatrix(text, dtype="float32"):
    """Rows of features, without a header."""
    return xgboost.DMatrix(read_csv(io.StringIO(_text(text)), header=None, dtype=dtype).to_numpy())


def libsvm_to_dmatrix(text):
    """Rows of `label index:value …`; XGBoost counts features from 0."""
    features, labels = load_svmlight_file(io.BytesIO(_text(text).encode()), zero_based=True)
    return xgboost.DMatrix(features, label=labels)


def decode(body, content_type):
    """Convert the body of a request; raises ValueError for a type that is neither CSV nor libsvm."""
    kind = content_type.partition(";")[0].strip()
    if kind in ("text/csv", "csv"):
        return csv_to_dmatrix(body)
    if kind in ("text/libsvm", "text/x-libsvm", "libsvm"):
        return libsvm_to_dmatrix(body)
    raise ValueError(f"{content_type} is neither text/csv nor text/libsvm")


def _text(body):
    return body.decode() if isinstance(body, bytes) else body
