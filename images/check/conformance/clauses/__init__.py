"""The clauses, a module for each area, in the order in which they are checked."""

from conformance.clauses import (  # noqa: I001
    image,
    entry,
    training,
    parameters,
    signals,
    security,
    ping,
    invocations,
    streaming,
    multimodel,
)

__all__ = [
    "entry",
    "image",
    "invocations",
    "multimodel",
    "parameters",
    "ping",
    "security",
    "signals",
    "streaming",
    "training",
]
