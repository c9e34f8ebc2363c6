"""ModelBuilder: an image of one's own as a local endpoint."""

import json
import os
from pathlib import Path

from sagemaker.serve import ModelBuilder
from sagemaker.serve.builder.schema_builder import SchemaBuilder
from sagemaker.serve.mode.function_pointers import Mode
from sagemaker.serve.utils.types import ModelServer

builder = ModelBuilder(
    image_uri=os.environ["IMAGE"],
    mode=Mode.LOCAL_CONTAINER,
    # Any server but these is refused. This one starts the image with `serve` and asks /invocations.
    model_server=ModelServer.MMS,
    model_path=os.environ["MODEL"],
    role_arn="arn:aws:iam::123456789012:role/SageMaker",
    schema_builder=SchemaBuilder([1, 2], [3.0, 5.0]),
)
builder.build()
try:
    endpoint = builder.deploy_local(endpoint_name="line")
    answer = json.load(endpoint.invoke(body=[4, 5]).body)
finally:
    builder.modes[str(Mode.LOCAL_CONTAINER)].destroy_server()
Path("answer.json").write_text(json.dumps(answer))
