"""A scratch /opt/ml, and a container that trains on it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.docker import Container, Result, run


class OptMl:
    """A folder that takes the place of /opt/ml."""

    root: Path

    def code(self, name: str, text: str) -> Path:
        path = self.root / "code" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def config(self, name: str, value: Any) -> None:
        path = self.root / "input/config" / name
        path.write_text(value if isinstance(value, str) else json.dumps(value))

    @property
    def failure(self) -> str:
        return (self.root / "output/failure").read_text()

    @property
    def success(self) -> bool:
        return (self.root / "output/success").exists()


@dataclass
class Training(OptMl):
    """`docker run -v ML:/opt/ml IMAGE train`, and what it leaves behind."""

    image: str
    root: Path

    def code(self, name: str, text: str) -> Path:
        path = super().code(name, text)
        path.chmod(0o755)
        return path

    def options(self, *options: str, **variables: str) -> tuple[str, ...]:
        given = [f"--env={name}={value}" for name, value in variables.items()]
        return (f"--volume={self.root}:/opt/ml", *given, *options)

    def train(self, *options: str, argv: tuple[str, ...] = (), **variables: str) -> Result:
        """Run the job to its end."""
        return run(self.image, "train", *argv, options=self.options(*options, **variables))

    def start(self, *options: str, **variables: str) -> Container:
        """The job as a container that runs while the block does."""
        return Container(self.image, "train", options=self.options(*options, **variables))
