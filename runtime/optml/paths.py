"""The paths of the `/opt/ml` contract and of the runtime itself.

The contract's root is `/opt/ml`, or `SAGEMAKER_BASE_DIR`. Source:
https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-training-algo-running-container.html
"""

from __future__ import annotations

import os

# Absolute, because the program starts in the directory of its code.
BASE = os.path.abspath(os.environ.get("SAGEMAKER_BASE_DIR") or "/opt/ml")

INPUT = f"{BASE}/input"
CONFIG = f"{INPUT}/config"
DATA = f"{INPUT}/data"
CODE = f"{BASE}/code"
MODEL = f"{BASE}/model"
ADDITIONAL_MODEL_DATA = f"{BASE}/additional-model-data-sources"
OUTPUT = f"{BASE}/output"
OUTPUT_DATA = f"{OUTPUT}/data"
OUTPUT_INTERMEDIATE = f"{OUTPUT}/intermediate"
FAILURE = f"{OUTPUT}/failure"
SUCCESS = f"{OUTPUT}/success"
CHECKPOINTS = f"{BASE}/checkpoints"

# The runtime: the package, and beside it its dependencies.
LIB = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DEPS = f"{os.path.dirname(LIB)}/deps"
