"""A scratch /opt/ml, mounted into a container that trains on it."""

from __future__ import annotations

import json
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.docker import Container, Result, run


@dataclass
class Training:
    """`docker run -v ML:/opt/ml IMAGE train`, and what it leaves behind."""

    image: str
    root: Path

    def code(self, name: str, text: str) -> Path:
        path = self.root / "code" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
        return path

    def config(self, name: str, value: Any) -> None:
        path = self.root / "input/config" / name
        path.write_text(value if isinstance(value, str) else json.dumps(value))

    def options(self, *options: str, **variables: str) -> tuple[str, ...]:
        given = [f"--env={name}={value}" for name, value in variables.items()]
        return (f"--volume={self.root}:/opt/ml", *given, *options)

    def train(self, *options: str, argv: tuple[str, ...] = (), **variables: str) -> Result:
        """Run the job to its end."""
        return run(self.image, "train", *argv, options=self.options(*options, **variables))

    def start(self, *options: str, **variables: str) -> Container:
        """The job as a container that runs while the block does."""
        return Container(self.image, "train", options=self.options(*options, **variables))

    @property
    def failure(self) -> str:
        return (self.root / "output/failure").read_text()

    @property
    def success(self) -> bool:
        return (self.root / "output/success").exists()


def wheel(directory: Path, name: str, **modules: str) -> str:
    """The smallest wheel there is, with these modules besides. The function `main` of one whose name ends in
    `command` becomes a command."""
    path = directory / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", f"NAME = {name!r}\n")
        for module, text in modules.items():
            archive.writestr(f"{module}.py", text)
        info = f"{name}-1.0.dist-info"
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        commands = [f"{module} = {module}:main" for module in modules if module.endswith("command")]
        archive.writestr(f"{info}/entry_points.txt", "\n".join(["[console_scripts]", *commands]))
        archive.writestr(f"{info}/RECORD", "")
    return path.name


def pack(directory: Path, archive: Path) -> None:
    """What lies in the directory as a flat archive."""
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(directory, ".")


@pytest.fixture
def training(image: str, ml: Path) -> Training:
    return Training(image, ml)
