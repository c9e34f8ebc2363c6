"""Where an SDK is used: a home directory with its configuration, and what its scripts leave behind."""

from __future__ import annotations

import json
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.docker import Result, docker

HERE = Path(__file__).parent
PROJECT = HERE / "project"
"""What the scripts send to the containers: a program, handlers, a processing job, and data."""

NESTED = {
    "epochs": 3,
    "rate": 0.5,
    "layers": [1, "x"],
    "deep": {"a": {"b": None}},
    "flag": True,
    "words": "a b",
}
"""Hyperparameters of every kind."""
LINE = {"slope": 2.0, "intercept": 1.0}
"""The line through the points of PROJECT, as its program saves it."""


def content(archive: Path) -> dict[str, Any]:
    """The files of an archive by name, decoded where they are JSON."""
    with tarfile.open(archive) as tar:
        files = {member.name: tar.extractfile(member) for member in tar if member.isfile()}
        texts = {name: file.read().decode() for name, file in files.items() if file}
    return {name: json.loads(text) if name.endswith(".json") else text for name, text in texts.items()}


def told(archive: Path) -> list[dict[str, Any]]:
    """What the program of each host noted in output.tar.gz, sorted by host."""
    files = content(archive)
    return [files[name] for name in sorted(files) if name.startswith("data/algo-")]


@dataclass(frozen=True)
class Workplace:
    """A home and working directory, and the environment of its user."""

    path: Path
    environment: dict[str, str]

    @property
    def containers(self) -> Path:
        """Where the SDK puts what it mounts into its containers."""
        return self.path / "containers"

    def configure(self, **local: Any) -> None:
        """Write the SDK's own settings of local mode."""
        local = {"local_code": True, "container_root": str(self.containers), **local}
        self._write(".sagemaker/config.yaml", {"local": local})

    def set_defaults(self, **modules: Any) -> None:
        """Write the SDK's defaults."""
        defaults = {"SchemaVersion": "1.0", "SageMaker": {"PythonSDK": {"Modules": modules}}}
        self._write(".config/sagemaker/config.yaml", defaults)

    def _write(self, name: str, settings: Any) -> None:
        (self.path / name).parent.mkdir(parents=True, exist_ok=True)
        (self.path / name).write_text(json.dumps(settings))  # which is YAML, too

    def run(self, python: Path, script: str, **settings: str) -> Result:
        """Run one of the scripts beside this file to its end, with `settings` in its environment."""
        done = subprocess.run(
            ["timeout", "--signal=INT", "--kill-after=30", "150", python, HERE / script],
            cwd=self.path,
            env=self.environment | {name.upper(): value for name, value in settings.items()},
            capture_output=True,
            text=True,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    def succeed(self, python: Path, script: str, **settings: str) -> None:
        """Run a script, which must succeed."""
        result = self.run(python, script, **settings)
        assert result.code == 0, result.output

    def answer(self, python: Path, script: str, **settings: str) -> Any:
        """Run a script, which must succeed; returns what it wrote into answer.json."""
        self.succeed(python, script, **settings)
        return json.loads((self.path / "answer.json").read_text())

    def remove_containers(self) -> None:
        """Remove the stopped containers that the SDKs leave: those whose compose file lies here."""
        label = "com.docker.compose.project.working_dir"
        listed = docker("ps", "--all", "--format", f'{{{{.ID}}}} {{{{.Label "{label}"}}}}').stdout
        for line in listed.splitlines():
            container, _, folder = line.partition(" ")
            if Path(folder).is_relative_to(self.path):
                docker("rm", "--force", "--volumes", container)
