"""`TrainingEnv()`: the job of this container."""

from sagemaker_training.environment import Environment as TrainingEnv

__all__ = ["TrainingEnv"]
