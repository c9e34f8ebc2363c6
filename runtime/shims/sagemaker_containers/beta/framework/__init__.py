"""The modules that scripts use, and three that they import without using them."""

from types import ModuleType

from sagemaker_inference import content_types  # noqa: F401

from . import encoders, env, errors, worker  # noqa: F401

entry_point, modules, transformer = (
    ModuleType(f"{__name__}.{name}") for name in ("entry_point", "modules", "transformer")
)

training_env = env.TrainingEnv
