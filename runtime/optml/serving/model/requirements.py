"""Install the requirements of user code, once, before any worker starts."""

from __future__ import annotations

import importlib
import os
import sys

from ... import paths
from ...report import UserError, log

_PACKAGES = "/tmp/optml-packages"  # if the interpreter's own folder is not writable


def find_requirements(program: str | None) -> str | None:
    """The requirements.txt beside the handlers, else the model's."""
    folders = [os.path.dirname(program)] if program else []
    for folder in [*folders, f"{paths.MODEL}/code", paths.MODEL]:
        path = f"{folder}/requirements.txt"
        if os.path.isfile(path):
            return path
    return None


def install(path: str, folder: str | None = None) -> None:
    """Install a requirements.txt into this interpreter, or into a folder that only this process uses.

    Raises UserError with the installer's message.
    """
    import subprocess  # takes 2 ms, and is rarely needed
    import sysconfig

    log(f"installing {path}")
    # Isolated, because pip would otherwise import a logging.py of the user from its working directory.
    command = [sys.executable, "-I", "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
    command += ["-r", path]
    if folder is None and not os.access(sysconfig.get_path("purelib"), os.W_OK):
        folder = _PACKAGES
    if folder is not None:
        command += ["--target", folder, "--upgrade"]
        sys.path.insert(1, folder)
    environment = {**os.environ, "PIP_ROOT_USER_ACTION": "ignore", "PIP_NO_CACHE_DIR": "1"}
    done = subprocess.run(
        command,
        cwd=os.path.dirname(path),  # `./a.whl` is relative to it
        env=environment,
        stdout=2,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        reason = next((line for line in lines if line.startswith("ERROR:")), lines[-1] if lines else "")
        raise UserError(
            f"cannot install {path}: {reason.removeprefix('ERROR: ')}; "
            "correct it, or install it when the image is built"
        )
    importlib.invalidate_caches()
