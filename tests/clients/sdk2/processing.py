"""Processing jobs: a script, which the SDK starts with python3, and a folder, which it starts with bash."""

import os

from sagemaker.processing import FrameworkProcessor, ProcessingInput, ProcessingOutput, ScriptProcessor
from sagemaker.pytorch import PyTorch
from sagemaker.s3 import S3Downloader

project = os.environ["PROJECT"]
where = {
    "image_uri": os.environ["IMAGE"],
    "command": ["python3"],
    "role": "arn:aws:iam::123456789012:role/SageMaker",
    "instance_type": "local",
    "instance_count": 1,
}


def files(name):
    """Where the points come from, and where those that are kept go."""
    return {
        "inputs": [ProcessingInput(f"{project}/data", "/opt/ml/processing/input")],
        "outputs": [ProcessingOutput("/opt/ml/processing/output", f"s3://points/{name}")],
    }


ScriptProcessor(**where).run(f"{project}/clean.py", arguments=["--least", "3"], **files("script"))
FrameworkProcessor(PyTorch, "2.8", **where).run(
    "clean.py", source_dir=project, arguments=["--least", "5"], **files("framework")
)
for name in ("script", "framework"):
    S3Downloader.download(f"s3://points/{name}", name)
