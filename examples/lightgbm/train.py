"""Trains like AWS's LightGBM samples: from CSV with the target in the first column to `model.txt`."""

import argparse
import os
from pathlib import Path

import lightgbm
import pandas as pd

parser = argparse.ArgumentParser()
parser.add_argument("--num_boost_round", type=int, default=50)
parser.add_argument("--learning_rate", type=float, default=0.1)
parser.add_argument("--num_leaves", type=int, default=8)
parser.add_argument("--min_data_in_leaf", type=int, default=5)
parser.add_argument("--objective", type=str, default="regression")
parser.add_argument("--train", type=str, default=os.environ["SM_CHANNEL_TRAIN"])
parser.add_argument("--model-dir", type=str, default=os.environ["SM_MODEL_DIR"])
args, _ = parser.parse_known_args()

rows = pd.concat(pd.read_csv(file, header=None) for file in sorted(Path(args.train).glob("*.csv"))).to_numpy()
booster = lightgbm.train(
    {
        "objective": args.objective,
        "learning_rate": args.learning_rate,
        "num_leaves": args.num_leaves,
        "min_data_in_leaf": args.min_data_in_leaf,
        "verbose": -1,
    },
    lightgbm.Dataset(rows[:, 1:], label=rows[:, 0]),
    num_boost_round=args.num_boost_round,
)
booster.save_model(os.path.join(args.model_dir, "model.txt"))
print("trees:", booster.num_trees())
