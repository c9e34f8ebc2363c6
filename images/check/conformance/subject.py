"""The image that is checked, run as the platform would run it."""

from conformance.serving import Serving
from conformance.training import Training


class Subject(Training, Serving):
    """Each clause is checked on one."""
