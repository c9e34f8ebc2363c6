"""Packages for pip to install, made on the spot."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.locks import exclusive
from tests.support.matrix import ARCH, ROOT


def wheel(directory: Path, name: str, **modules: str) -> str:
    """A minimal wheel, with these modules besides. `main` of a module whose name ends in `command` becomes a
    console script."""
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


def of_the_images(name: str) -> Path:
    """The wheel of this package that the images contain."""
    folder = ROOT / "build/wheels" / ARCH
    found = list(folder.glob(f"{name}-*.whl"))
    if not found:  # to skip would hide what the test shows
        pytest.fail(f"no wheel of {name} in {folder}: run make build-all")
    return found[0]


def fetched(name: str, python: str, *requirements: str) -> Path:
    """A folder with the wheels of these requirements and their dependencies, from pip's index.

    Skips the test if there are none for this machine.
    """
    folder = ROOT / f"build/wheels-{name}"
    wanted = " ".join((*requirements, python))
    with exclusive(f"wheels-{name}"):
        stamp = folder / "requirements"
        if not stamp.exists() or stamp.read_text() != wanted:
            shutil.rmtree(folder, ignore_errors=True)
            _download(folder, python, *requirements)
            stamp.write_text(wanted)
    return folder


def _download(folder: Path, python: str, *requirements: str) -> None:
    machine = platform.machine()
    options = ["--quiet", "--dest", str(folder), "--only-binary", ":all:", "--python-version", python]
    options += ["--platform", f"manylinux2014_{machine}", "--platform", f"manylinux_2_28_{machine}"]
    command = [sys.executable, "-m", "pip", "download", *options, *requirements]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1]
        pytest.skip(f"pip finds no wheels of {', '.join(requirements)} here: {last}")


def installed(*requirements: str) -> Path:
    """A folder with these packages and their dependencies, kept for the next run.

    Its C extensions work with this machine's Python only.
    """
    name = re.sub(r"[^\w.]+", "-", "-".join(requirements))
    folder = ROOT / "build/packages" / name
    with exclusive(f"packages-{name}"):
        if not folder.exists():
            fresh = folder.with_name(f"{name}.new")
            shutil.rmtree(fresh, ignore_errors=True)
            options = ["--target", str(fresh), "--python", sys.executable]
            command = [sys.executable, "-m", "uv", "pip", "install", *options, *requirements]
            subprocess.run(command, check=True, timeout=300)
            fresh.rename(folder)
    return folder
