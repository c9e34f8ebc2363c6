"""ModelTrainer: a folder of code and a folder of data, both on this machine, in a local container."""

import json
import os

from sagemaker.train import ModelTrainer
from sagemaker.train.configs import Compute, InputData, SourceCode
from sagemaker.train.model_trainer import Mode

project = os.environ["PROJECT"]
trainer = ModelTrainer(
    training_mode=Mode.LOCAL_CONTAINER,
    training_image=os.environ["IMAGE"],
    role="arn:aws:iam::123456789012:role/SageMaker",
    source_code=SourceCode(source_dir=project, entry_script="train.py"),
    compute=Compute(instance_type="local_cpu", instance_count=int(os.environ["HOSTS"])),
    hyperparameters=json.loads(os.environ["HYPERPARAMETERS"]),
    local_container_root=f"{os.getcwd()}/containers",
)
trainer.train([InputData(channel_name="train", data_source=f"{project}/data")])
