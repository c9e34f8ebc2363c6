"""Script mode: a folder of code and a folder of data, both on this machine."""

import json
import os
from pathlib import Path

from sagemaker.estimator import Estimator

project = os.environ["PROJECT"]
estimator = Estimator(
    image_uri=os.environ["IMAGE"],
    role="arn:aws:iam::123456789012:role/SageMaker",
    instance_type="local",
    instance_count=int(os.environ.get("HOSTS", 1)),
    source_dir=project,
    entry_point="train.py",
    hyperparameters=json.loads(os.environ["HYPERPARAMETERS"]),
    output_path=f"file://{os.getcwd()}/output",
)
estimator.fit({"train": f"file://{project}/data"})
said = {"model": estimator.model_data, "job": estimator.latest_training_job.name}
Path("answer.json").write_text(json.dumps(said))
