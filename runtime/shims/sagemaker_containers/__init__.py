"""SageMaker Containers, for scripts written for it: our job, our codecs and werkzeug's Response.

Names that its successors have, too, come from `sagemaker_training` and `sagemaker_inference`. Everything that
scripts use, except RecordIO, is in `beta.framework`: `training_env`, `env`, `content_types`, `encoders`,
`errors`, `worker.Response`. The other modules there can be imported, but are empty.
"""

from typing import Any


def training_env() -> Any:
    """The job of this container."""
    from .beta.framework.env import TrainingEnv

    return TrainingEnv()
