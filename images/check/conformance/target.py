"""What the check knows about an image, shared by training and serving.

The check puts its own small programs (probes/) where users of the toolkits put theirs. If an image runs them,
nearly every clause can be checked without knowing the image; an image with its own code is checked as it is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from docker.errors import APIError
from docker.models.containers import Container

from conformance.clause import Broken
from conformance.engine import Engine

PROBES = Path(__file__).parent / "probes"


class NotStarted(Broken):
    """The engine could not start the container."""


@dataclass(frozen=True)
class Options:
    """What the user says about the image."""

    code: Path | None = None
    model: Path | None = None
    input: Path | None = None
    payload: bytes | None = None
    content_type: str = "application/json"
    environment: dict[str, str] = field(default_factory=dict)
    start_timeout: float = 120
    train_timeout: float = 600


class Target:
    def __init__(self, engine: Engine, image: str, options: Options) -> None:
        self.engine, self.options = engine, options
        self.image = engine.client.images.get(image)
        self.config: dict[str, Any] = self.image.attrs["Config"]
        self.labels: dict[str, str] = self.config.get("Labels") or {}
        self.name = image
        self.remembered: dict[str, Any] = {}


def probe(name: str, plan: dict[str, Any]) -> str:
    """The source of one of the check's programs, with the plan that it follows."""
    return f"PLAN = {plan!r}\n" + (PROBES / name).read_text()


def start(container: Container) -> None:
    """Start it; if the engine cannot, the clause is broken."""
    try:
        container.start()
    except APIError as error:
        raise NotStarted(f"the container does not start: {error.explanation}") from None
