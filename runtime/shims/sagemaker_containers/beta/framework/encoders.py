"""`encode(prediction, content_type)`, `decode(body, content_type)`, and both for each type."""

from functools import partial

from sagemaker_inference.content_types import CSV, JSON, NPY
from sagemaker_inference.decoder import decode
from sagemaker_inference.encoder import encode

array_to_csv, array_to_json, array_to_npy = (partial(encode, content_type=kind) for kind in (CSV, JSON, NPY))
csv_to_numpy, json_to_numpy, npy_to_numpy = (partial(decode, content_type=kind) for kind in (CSV, JSON, NPY))
