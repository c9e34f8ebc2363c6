"""Rank 1 ends as the hyperparameter `end` says; the others wait."""

import os
import time

if os.environ["RANK"] == "1":
    exec(os.environ["SM_HP_END"])
time.sleep(600)
