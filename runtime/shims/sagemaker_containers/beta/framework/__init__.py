"""The modules that scripts use, and three that they import and use nothing of."""

from types import ModuleType

from sagemaker_inference import content_types

from . import encoders, env, errors, worker

entry_point, modules, transformer = (
    ModuleType(f"{__name__}.{name}") for name in ("entry_point", "modules", "transformer")
)

training_env = env.TrainingEnv

__all__ = [
    "content_types",
    "encoders",
    "entry_point",
    "env",
    "errors",
    "modules",
    "training_env",
    "transformer",
    "worker",
]
