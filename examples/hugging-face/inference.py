"""Serves what `save_pretrained` wrote, asked as AWS's Hugging Face containers are."""

import os

from transformers import pipeline


def model_fn(model_dir):
    return pipeline(os.environ["HF_TASK"], model=model_dir)


def predict_fn(data, model):
    return model(data["inputs"], **data.get("parameters", {}))
