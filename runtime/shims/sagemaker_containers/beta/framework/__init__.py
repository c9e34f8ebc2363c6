"""The modules that an inference.py uses, and three that its examples import and use nothing of."""

from types import ModuleType

from sagemaker_inference import content_types

from . import encoders, errors, worker

env, modules, transformer = (ModuleType(f"{__name__}.{name}") for name in ("env", "modules", "transformer"))

__all__ = ["content_types", "encoders", "env", "errors", "modules", "transformer", "worker"]
