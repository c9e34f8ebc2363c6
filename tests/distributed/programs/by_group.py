"""Trains with the others if torchrun has started it; otherwise records its environment."""

import json
import os
import runpy

if "RANK" in os.environ:
    runpy.run_path("train.py", run_name="__main__")
else:
    with open(f"{os.environ['SM_OUTPUT_DATA_DIR']}/environment.json", "w") as file:
        json.dump(dict(os.environ), file)
