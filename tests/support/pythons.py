"""The Pythons that this machine has."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest


def interpreter(version: str) -> Path:
    """The Python of this version, from pyenv or from PATH; skips the test if there is none."""
    pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser() / "versions"
    for place in (*pyenv.glob(f"{version}.*/bin/python3"), shutil.which(f"python{version}")):
        if place and subprocess.run([place, "-c", ""], capture_output=True).returncode == 0:
            return Path(place)
    pytest.skip(f"there is no Python {version} here")
