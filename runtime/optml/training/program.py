"""The user's program: what is started, how, and what is installed before."""

from __future__ import annotations

import os

from ..report import UserError, log
from .job import Job
from .record import Record

# Run if no program is named and exactly one of these exists.
_DEFAULTS = ("train.py", "train", "train.sh")

# How requirements.txt names its own project.
_ITSELF = (".", "./", "-e .", "-e ./", "--editable .", "--editable=.")

# The user that runs the program and its installer.
RUN_AS = "SAGEMAKER_TRAINING_USER"


class Program(Record):
    """A program: its directory, its name, its kind."""

    directory: str
    """Where the code is and the program starts."""
    name: str
    """The entry point as the job names it: a file of the directory, a module, or a command on PATH."""
    kind: str
    """`script` or `module` of Python, `shell` script, other `executable` file, `command` on PATH, or
    `function`: `module:function` of a framework."""
    python: str
    """The interpreter for user code: the first `python3` on PATH."""

    @property
    def module(self) -> str:
        """Its module name in Python: `pkg/train.py` is `pkg.train`, and so is `src/pkg/train.py`."""
        name = (self.name[:-3] if self.name.endswith(".py") else self.name).strip("/")
        if name.startswith("src/") and not os.path.exists(f"{self.directory}/src/__init__.py"):
            name = name.removeprefix("src/")
        return name.replace("/", ".")

    @property
    def argv(self) -> list[str]:
        """The command line that starts it as one process, without its arguments."""
        if self.kind == "script":
            return [self.python, self.name]
        if self.kind == "module":
            return [self.python, "-m", self.module]
        if self.kind == "function":
            module, _, function = self.name.partition(":")
            return [self.python, "-c", f"import {module}; {module}.{function}()"]
        if self.kind == "shell":
            return [which("bash") or "/bin/sh", self.name]
        return [os.path.join(self.directory, self.name) if self.kind == "executable" else self.name]


class Step(Record):
    """One call of the installer."""

    what: str
    """What it installs, for messages."""
    words: list[str]
    """The arguments of `pip install`; empty for `uv sync`."""
    only_uv: bool = False
    """Whether pip cannot do it."""


def find(job: Job, directory: str, named: str | None = None) -> Program:
    """The program that the job names, or else the default one.

    `named` is the job's code if that is a single file. Raises UserError if there is no such program,
    with what is there instead.
    """
    python = which("python3")
    if not python:
        raise UserError("there is no python3 on PATH; install one, or put the user's interpreter on PATH")
    if job.training_module:
        kind = "function" if ":" in job.training_module else "module"
        return Program(directory=directory, name=job.training_module, kind=kind, python=python)
    name = job.program or named or _default(directory)
    if name.startswith((f"{directory}/", "./")):
        name = os.path.relpath(os.path.join(directory, name), directory)
    kind = _kind(directory, name)
    if kind == "executable":
        _make_executable(os.path.join(directory, name))
    return Program(directory=directory, name=name, kind=kind, python=python)


def which(command: str) -> str | None:
    """The path of a command on PATH (shutil.which without the import of shutil)."""
    for directory in os.environ.get("PATH", os.defpath).split(":"):
        path = f"{directory or '.'}/{command}"
        if os.access(path, os.X_OK) and os.path.isfile(path):
            return path
    return None


def _default(directory: str) -> str:
    names = [name for name in _DEFAULTS if os.path.isfile(f"{directory}/{name}")]
    if len(names) == 1:
        log(f"SAGEMAKER_PROGRAM is not set; using {names[0]}")
        return names[0]
    raise UserError(
        f"no program to run: set SAGEMAKER_PROGRAM to a file of {directory} (which {_content(directory)}),"
        " or to a command"
    )


def _kind(directory: str, name: str) -> str:
    path = os.path.join(directory, name)
    if os.path.isfile(path):
        if name.endswith(".py"):
            # Python takes a further dot for a package separator; an absolute path is outside the package.
            is_in_package = "." not in name[:-3] and not name.startswith("/") and is_package(directory)
            return "module" if is_in_package else "script"
        return "shell" if name.endswith(".sh") else "executable"
    module = os.path.join(directory, name.replace(".", "/"))
    if os.path.isfile(f"{module}.py") or os.path.isfile(f"{module}/__main__.py"):
        return "module"
    if "/" not in name and which(name):
        return "command"
    if not name.endswith((".py", ".sh")):
        if is_package(directory):
            return "module"  # installing the package may put it elsewhere
        if "/" not in name and steps(directory):
            return "command"  # an installed package may bring it
    raise UserError(
        f"there is no program {name!r} in {directory} (which {_content(directory)}), and no command of"
        " that name; set SAGEMAKER_PROGRAM to one of them"
    )


def _content(directory: str) -> str:
    try:
        names = sorted(name for name in os.listdir(directory) if not name.startswith("."))
    except FileNotFoundError:
        return "does not exist"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if not names:
        return "is empty"
    return f"holds {', '.join(names[:8])}" + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _make_executable(path: str) -> None:
    """Code from S3 or a Windows host has lost its execute permission."""
    if os.access(path, os.X_OK):
        return
    try:
        os.chmod(path, os.stat(path).st_mode | 0o111)
    except OSError as error:
        raise UserError(f"{path} is not executable; run chmod +x on it") from error


def steps(directory: str) -> list[Step]:
    """The installer calls that this project needs: the first matching row of the table in
    docs/training.md. Raises UserError for an invalid pyproject.toml."""

    def there(name: str) -> bool:
        return os.path.isfile(f"{directory}/{name}")

    found, package, words = [], is_package(directory), ["."]
    if there("requirements.txt"):
        found = [Step(what="requirements.txt", words=["-r", "requirements.txt"])]
        package = package and not any(line in _ITSELF for line in _lines(f"{directory}/requirements.txt"))
    elif there("uv.lock") and there("pyproject.toml"):
        return [Step(what="uv.lock", words=[], only_uv=True)]
    elif there("pylock.toml"):
        found = [Step(what="pylock.toml", words=["-r", "pylock.toml"], only_uv=True)]
        words = ["--no-deps", "."]
    elif not package and (dependencies := _dependencies(f"{directory}/pyproject.toml")):
        found = [Step(what="the dependencies of pyproject.toml", words=dependencies)]
    return [*found, Step(what="the package", words=words)] if package else found


def is_package(directory: str) -> bool:
    """Whether the directory is a Python project to build and install. As for uv, a [project] without
    [build-system] is not: it is used in place, and nothing builds it."""
    return os.path.isfile(f"{directory}/setup.py") or "[build-system]" in _lines(
        f"{directory}/pyproject.toml"
    )


def _dependencies(path: str) -> list[str]:
    lines = _lines(path)
    if "[project]" not in lines or not any(line.startswith("dependencies") for line in lines):
        return []
    try:
        import tomllib  # only here, and from Python 3.11 on
    except ImportError:
        raise UserError(
            f"this Python cannot read {path}; list its dependencies in a requirements.txt beside it"
        ) from None
    try:
        with open(path, "rb") as file:
            dependencies = tomllib.load(file)["project"].get("dependencies", [])
        if not all(isinstance(each, str) for each in dependencies):
            raise ValueError("dependencies of [project] must be an array of strings")
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise UserError(f"{path} is invalid: {error}; correct it") from error
    return list(dependencies)


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return [line.partition("#")[0].strip() for line in file]
    except OSError:
        return []
