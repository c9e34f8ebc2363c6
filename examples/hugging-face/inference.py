"""Serves a model saved by `save_pretrained`, with the requests of AWS's Hugging Face containers."""

import os

from transformers import pipeline


def model_fn(model_dir):
    return pipeline(os.environ["HF_TASK"], model=model_dir)


def predict_fn(data, model):
    return model(data["inputs"], **data.get("parameters", {}))
