"""One script like AWS's scikit-learn samples: it trains if run as a program, and serves if imported."""

import argparse
import os

import joblib
import pandas as pd
from sklearn.linear_model import Ridge


def model_fn(model_dir):
    return joblib.load(os.path.join(model_dir, "model.joblib"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--alpha", type=float, default=1.0)
    parser.add_argument("--target", type=str, default="target")
    parser.add_argument("--output-data-dir", type=str, default=os.environ["SM_OUTPUT_DATA_DIR"])
    parser.add_argument("--model-dir", type=str, default=os.environ["SM_MODEL_DIR"])
    parser.add_argument("--train", type=str, default=os.environ["SM_CHANNEL_TRAIN"])
    parser.add_argument("--train-file", type=str, default="train.csv")
    args, _ = parser.parse_known_args()

    data = pd.read_csv(os.path.join(args.train, args.train_file))
    features = data.drop(columns=args.target).to_numpy()
    model = Ridge(alpha=args.alpha).fit(features, data[args.target])
    print(f"train-r2={model.score(features, data[args.target]):.3f};")
    joblib.dump(model, os.path.join(args.model_dir, "model.joblib"))
