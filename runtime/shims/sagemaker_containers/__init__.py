"""What scripts written for SageMaker Containers import: our job, our codecs and werkzeug's Response.

What later packages have too it takes from `sagemaker_training` and `sagemaker_inference` beside it. Of what
scripts use all but RecordIO is in `beta.framework`: `training_env`, `env`, `content_types`, `encoders`,
`errors`, `worker.Response`. The other modules of it can be imported, and are empty.
"""

from typing import Any


def training_env() -> Any:
    """The job of this container."""
    from .beta.framework.env import TrainingEnv

    return TrainingEnv()
