"""Serves like AWS's XGBoost samples: takes CSV or libsvm, returns comma-separated predictions."""

import os
import pickle

from sagemaker_xgboost_container import encoder


def model_fn(model_dir):
    with open(os.path.join(model_dir, "xgboost-model"), "rb") as file:
        return pickle.load(file)


def input_fn(request_body, request_content_type):
    return encoder.decode(request_body, request_content_type)


def predict_fn(input_data, model):
    return model.predict(input_data)


def output_fn(predictions, content_type):
    return ",".join(str(value) for value in predictions), "text/csv"
