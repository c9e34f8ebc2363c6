"""An image that has its program inside, on as many hosts as are wanted."""

import json
import os

from sagemaker.estimator import Estimator

estimator = Estimator(
    image_uri=os.environ["IMAGE"],
    role="arn:aws:iam::123456789012:role/SageMaker",
    instance_type="local",
    instance_count=int(os.environ["HOSTS"]),
    hyperparameters=json.loads(os.environ["HYPERPARAMETERS"]),
    output_path=f"file://{os.getcwd()}/output",
)
estimator.fit({"train": f"file://{os.environ['PROJECT']}/data"})
