"""An endpoint and a batch transform of a model on this machine, through the clients of LocalSession."""

import json
import os
from pathlib import Path

from sagemaker.core.local import LocalSession

project = os.environ["PROJECT"]
session = LocalSession()
local = session.sagemaker_client
local.create_model(
    "line",
    {
        "Image": os.environ["IMAGE"],
        "ModelDataUrl": f"file://{os.environ['MODEL']}",
        "Environment": {
            "SAGEMAKER_PROGRAM": "inference.py",
            "SAGEMAKER_SUBMIT_DIRECTORY": f"file://{project}",
        },
    },
)
variant = {"VariantName": "all", "ModelName": "line", "InstanceType": "local", "InitialInstanceCount": 1}
local.create_endpoint_config("line", [variant])
local.create_endpoint("line", "line")
runtime = session.sagemaker_runtime_client
answer = runtime.invoke_endpoint(b"[4, 5]", "line", "application/json", "application/json")["Body"].read()
local.delete_endpoint("line")

local.create_transform_job(
    "batch",
    "line",
    {
        "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"file://{project}/batch"}},
        "ContentType": "text/csv",
        "SplitType": "Line",
    },
    {"S3OutputPath": f"file://{os.getcwd()}/transformed", "Accept": "text/csv"},
    {"InstanceType": "local", "InstanceCount": 1},
)
job = local.describe_transform_job("batch")
said = {"answer": json.loads(answer), "strategy": job["BatchStrategy"]}
Path("answer.json").write_text(json.dumps(said))
