"""What kind of Python project the user's code is, and so what is to be installed before it runs.

=======================================  ==========================================================
there is                                 installed is
=======================================  ==========================================================
requirements.txt                         what it lists, then the package, if the code is one
else uv.lock                             what it locks and, if the code is one, the package, by uv
else pylock.toml                         what it locks, by uv, then the package, if the code is one
else setup.py or [build-system]          the package, which brings what it depends on
else [project] in pyproject.toml         its dependencies
=======================================  ==========================================================

As for uv, a [project] without [build-system] is no package: it lies beside its data, and nothing builds it.
"""

from __future__ import annotations

import os

from ..report import UserError
from .record import Record

# How requirements.txt names the project that it lies in.
_ITSELF = (".", "./", "-e .", "-e ./", "--editable .", "--editable=.")


class Step(Record):
    """One call of the installer."""

    what: str
    """What it installs, for people."""
    words: list[str]
    """What stands after `pip install`; empty for `uv sync`."""
    only_uv: bool
    """Whether pip does not understand it."""


def steps(directory: str) -> list[Step]:
    """The calls of the installer that this project needs. Raises UserError for a broken pyproject.toml."""

    def there(name: str) -> bool:
        return os.path.isfile(f"{directory}/{name}")

    itself = [Step(what="the package", words=["."], only_uv=False)] if is_package(directory) else []
    if there("requirements.txt"):
        listed = Step(what="requirements.txt", words=["-r", "requirements.txt"], only_uv=False)
        lists_itself = any(line in _ITSELF for line in _lines(f"{directory}/requirements.txt"))
        return [listed, *([] if lists_itself else itself)]
    if there("uv.lock") and there("pyproject.toml"):
        return [Step(what="uv.lock", words=[], only_uv=True)]
    if there("pylock.toml"):
        locked = Step(what="pylock.toml", words=["-r", "pylock.toml"], only_uv=True)
        return [locked, *(Step(what=step.what, words=["--no-deps", "."], only_uv=False) for step in itself)]
    if itself:
        return itself
    dependencies = _dependencies(f"{directory}/pyproject.toml")
    if not dependencies:
        return []
    return [Step(what="the dependencies of pyproject.toml", words=dependencies, only_uv=False)]


def is_package(directory: str) -> bool:
    """Whether the directory is a Python project that is built and installed."""
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
            raise ValueError("dependencies of [project] must be an array of texts")
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise UserError(f"{path} cannot be understood: {error}; correct it") from error
    return list(dependencies)


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return [line.partition("#")[0].strip() for line in file]
    except OSError:
        return []
