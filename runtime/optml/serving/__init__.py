"""Serving: `docker run IMAGE serve`. User code may import `InferenceError` from here."""

from .errors import InferenceError

__all__ = ["InferenceError"]
