"""`Environment()`: the job of this container, with the field names of sagemaker-training."""

from __future__ import annotations

import os
from typing import Any

import optml
from optml import paths
from optml.training.arguments import arguments
from optml.training.environment import environment, training_env
from optml.training.program import Program


class Environment:
    """The fields of SM_TRAINING_ENV as attributes and, as in sagemaker-training, as items."""

    def __init__(self) -> None:
        job = optml.job()
        name = job.program or os.environ.get("SM_USER_ENTRY_POINT", "")
        directory = os.environ.get("SM_SOURCE_DIR", paths.CODE)
        self._program = Program(directory=directory, name=name, kind="script", python="python3")
        self.__dict__.update(training_env(job, self._program))

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"the training environment has no {name!r}; this image offers optml.job() instead"
        )

    def keys(self) -> list[str]:
        return [name for name in vars(self) if not name.startswith("_")]

    def __getitem__(self, name: str) -> Any:
        return vars(self)[name]

    def to_cmd_args(self) -> list[str]:
        """The hyperparameters as arguments of the program."""
        return arguments(optml.job().hyperparameters)

    def to_env_vars(self) -> dict[str, str]:
        """The variables of the program."""
        ours = environment(optml.job(), self._program, self.to_cmd_args(), {})
        return {name: value for name, value in ours.items() if name.startswith("SM_")}
