"""One image that trains, serves the model from a local endpoint, and transforms a batch."""

import json
import os
from pathlib import Path

from sagemaker.deserializers import JSONDeserializer
from sagemaker.estimator import Estimator
from sagemaker.serializers import JSONSerializer

project = os.environ["PROJECT"]
estimator = Estimator(
    image_uri=os.environ["IMAGE"],
    role="arn:aws:iam::123456789012:role/SageMaker",
    instance_type="local",
    instance_count=1,
    source_dir=project,
    entry_point="train.py",
    hyperparameters={"epochs": 1},
    output_path=f"file://{os.getcwd()}/output",
)
estimator.fit({"train": f"file://{project}/data"})

# In local mode every call returns when the work is done; to wait would be to look again after half a minute.
predictor = estimator.deploy(
    1,
    "local",
    wait=False,
    entry_point="inference.py",
    source_dir=project,
    serializer=JSONSerializer(),
    deserializer=JSONDeserializer(),
)
answers = [predictor.predict([4, 5]), predictor.predict([-1])]
predictor.delete_endpoint()

transformer = estimator.transformer(
    1, "local", output_path=f"file://{os.getcwd()}/transformed", accept="text/csv"
)
transformer.transform(f"file://{project}/batch", content_type="text/csv", split_type="Line", wait=False)
session = transformer.sagemaker_session
job = session.sagemaker_client.describe_transform_job(transformer.latest_transform_job.name)
said = {"answers": answers, "strategy": job["BatchStrategy"], "status": job["TransformJobStatus"]}
Path("answer.json").write_text(json.dumps(said))
