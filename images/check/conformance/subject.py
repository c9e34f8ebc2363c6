"""The image under check, run as the platform would run it."""

from conformance.serving import Serving
from conformance.training import Training


class Subject(Training, Serving):
    """Every check gets one."""
