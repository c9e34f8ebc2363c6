"""Script mode with code, data and results in S3."""

import json
import os
from pathlib import Path

from sagemaker.estimator import Estimator
from sagemaker.local import LocalSession

project = os.environ["PROJECT"]
session = LocalSession(disable_local_code=True)
estimator = Estimator(
    image_uri=os.environ["IMAGE"],
    role="arn:aws:iam::123456789012:role/SageMaker",
    instance_type="local",
    instance_count=1,
    source_dir=project,
    entry_point="train.py",
    hyperparameters=json.loads(os.environ["HYPERPARAMETERS"]),
    sagemaker_session=session,
)
estimator.fit({"train": session.upload_data(f"{project}/data", key_prefix="points")})
bucket, _, key = estimator.model_data.removeprefix("s3://").partition("/")
session.download_data("output", bucket, key)
Path("answer.json").write_text(json.dumps({"code": estimator.uploaded_code.s3_prefix}))
