"""Trains like AWS's XGBoost samples: from CSV or libsvm with the label first to `xgboost-model`."""

import argparse
import json
import os
import pickle

import xgboost
from sagemaker_xgboost_container import distributed
from sagemaker_xgboost_container.data_utils import get_dmatrix


def fit(params, dtrain, evals, num_boost_round, model_dir, is_master):
    booster = xgboost.train(params, dtrain, num_boost_round=num_boost_round, evals=evals)
    if is_master:
        with open(os.path.join(model_dir, "xgboost-model"), "wb") as file:
            pickle.dump(booster, file)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--max_depth", type=int)
    parser.add_argument("--eta", type=float)
    parser.add_argument("--num_round", type=int, default=10)
    parser.add_argument("--objective", type=str, default="reg:squarederror")
    parser.add_argument("--content_type", type=str, default="libsvm")
    parser.add_argument("--train", type=str, default=os.environ["SM_CHANNEL_TRAIN"])
    parser.add_argument("--validation", type=str, default=os.environ.get("SM_CHANNEL_VALIDATION"))
    parser.add_argument("--model_dir", type=str, default=os.environ["SM_MODEL_DIR"])
    args, _ = parser.parse_known_args()

    named = {name: get_dmatrix(getattr(args, name), args.content_type) for name in ("train", "validation")}
    training = {
        "params": {"max_depth": args.max_depth, "eta": args.eta, "objective": args.objective},
        "dtrain": named["train"],
        "evals": [(matrix, name) for name, matrix in named.items() if matrix is not None],
        "num_boost_round": args.num_round,
        "model_dir": args.model_dir,
    }
    hosts = json.loads(os.environ["SM_HOSTS"])
    if len(hosts) > 1:
        distributed.rabit_run(fit, training, True, hosts, os.environ["SM_CURRENT_HOST"])
    else:
        fit(**training, is_master=True)
