"""ModelTrainer with an image that has its program inside, on as many hosts as are wanted."""

import json
import os

from sagemaker.train import ModelTrainer
from sagemaker.train.configs import Compute, InputData
from sagemaker.train.model_trainer import Mode

trainer = ModelTrainer(
    training_mode=Mode.LOCAL_CONTAINER,
    training_image=os.environ["IMAGE"],
    role="arn:aws:iam::123456789012:role/SageMaker",
    compute=Compute(instance_type="local_cpu", instance_count=int(os.environ["HOSTS"])),
    hyperparameters=json.loads(os.environ["HYPERPARAMETERS"]),
    local_container_root=f"{os.getcwd()}/containers",
)
trainer.train([InputData(channel_name="train", data_source=f"{os.environ['PROJECT']}/data")])
