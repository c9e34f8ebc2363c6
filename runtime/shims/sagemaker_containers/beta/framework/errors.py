"""Exceptions that handlers raise or catch."""

from sagemaker_inference.errors import UnsupportedFormatError


class ClientError(Exception):
    """A fault of user code: answered with 500."""


__all__ = ["ClientError", "UnsupportedFormatError"]
