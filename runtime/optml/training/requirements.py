"""Install what the user's code needs into the user's interpreter, before the program starts."""

from __future__ import annotations

import fcntl
import os
import subprocess
from contextlib import contextmanager

from ..hints import Iterator
from ..report import UserError, log
from . import aws, privilege
from .program import RUN_AS, Program, Step, which
from .stderr import Tail

_DEFAULTS = {
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PIP_ROOT_USER_ACTION": "ignore",
    "UV_LINK_MODE": "copy",  # its cache is on another file system
    "UV_PYTHON_DOWNLOADS": "never",
}

# pip, without the directory of the code on its path, where a logging.py of the user's would break it.
# Python 3.11 has `-P` for that; `-I` would disable installing into the user's home, if pip must do that.
_PIP = """
import runpy, sys
sys.path = [each for each in sys.path if each]
runpy.run_module("pip", run_name="__main__", alter_sys=True)
"""

# How both frame errors: as pip's `error: …`, or `x …` with `╰─> …` below.
_FRAME = "\N{MULTIPLICATION SIGN}├╰│─▶>"
_ERRORS = ("ERROR: ", "error: ", _FRAME[0])
_VAGUE = ("error: subprocess-exited-with-error", "error: metadata-generation-failed")


def install(steps: list[Step], program: Program, environment: dict[str, str]) -> None:
    """Run these steps with uv if it is on PATH, else with pip.

    Both read the user's own configuration (PIP_* and UV_* variables, pip.conf, uv.toml). Raises UserError
    with the installer's error, which names the package.
    """
    venv = os.path.dirname(os.path.dirname(program.python))
    defaults = {**_DEFAULTS, "UV_PROJECT_ENVIRONMENT": venv}
    environment = {**defaults, **environment, **aws.package_index(environment)}
    del environment["PYTHONPATH"]  # it begins with the code
    uv = which("uv")
    what = ", then ".join(step.what for step in steps)
    log(f"installing {what} with {'uv' if uv else 'pip, as uv is not on PATH'}")
    with _locked(venv):
        if not uv and any(step.only_uv for step in steps):
            uv = _fetch_uv(program, environment)
        for step in steps:
            _run(_command(step, program.python, uv), step.what, program, environment)


@contextmanager
def _locked(environment: str) -> Iterator[None]:
    """One installer at a time: under Slurm and mpirun, several tasks may share a container."""
    folder = os.open(environment, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log("another task in this container is installing: waiting for it")
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _command(step: Step, python: str, uv: str | None) -> list[str]:
    """Both installers retry after network errors themselves."""
    if not uv:
        return [python, "-c", _PIP, "install", *step.words]
    if step.words:
        return [uv, "pip", "install", "--python", python, *step.words]
    return [uv, "sync", "--frozen", "--inexact", "--no-dev", "--python", python]


def _fetch_uv(program: Program, environment: dict[str, str]) -> str:
    """Install uv for a lock file, which pip cannot read: from the same index, into a new directory."""
    import tempfile  # takes 15 ms to import

    log("installing uv first, because pip cannot read lock files")
    target = tempfile.mkdtemp(prefix="optml-uv-")
    if user := environment.get(RUN_AS):
        privilege.give(target, privilege.named(user))
    argv = [program.python, "-c", _PIP, "install", "--target", target, "uv"]
    _run(argv, "uv, which the lock file needs,", program, environment)
    return f"{target}/bin/uv"


def _run(argv: list[str], what: str, program: Program, environment: dict[str, str]) -> None:
    """Run an installer and pass its output through. A stop kills it, as it is in our process group."""
    if environment.get(RUN_AS):
        argv, environment = privilege.drop(argv, environment)
    with subprocess.Popen(argv, env=environment, cwd=program.directory, stderr=subprocess.PIPE) as installer:
        tail = Tail(installer.stderr.fileno())  # type: ignore[union-attr]
        while tail.copy():
            pass
    if code := installer.returncode:
        code = code if code > 0 else 128 - code
        raise UserError(f"cannot install {what} in {program.directory}: {_why(tail.text, code, program)}")


def _why(output: str, code: int, program: Program) -> str:
    """The installer's error, and what to do."""
    python = program.python
    if "Permission denied" in output or "Read-only file system" in output:
        return (
            f"the environment of {python} is not writable here; install them when the"
            " image is built, or let the container write there"
        )
    if "No module named pip" in output:
        return f"{python} has no pip; install pip or uv in the image"
    if "externally-managed-environment" in output or "externally managed" in output:
        return (
            f"{python} belongs to the system, which manages its packages (PEP 668); put a virtual environment"
            " first on PATH in the image, or set PIP_BREAK_SYSTEM_PACKAGES=1, UV_BREAK_SYSTEM_PACKAGES=1"
        )
    reason = _reason(output.splitlines()) or f"exit code {code}"
    return f"{reason}; correct the project, or make the package index reachable"


def _reason(lines: list[str]) -> str:
    """The error of pip or uv in one line, with the last line of a failed build."""
    starts = [number for number, line in enumerate(lines) if line.strip().startswith(_ERRORS)]
    telling = [number for number in starts if lines[number].strip() not in _VAGUE] or starts
    if not telling:
        return next((line.strip() for line in reversed(lines) if line.strip()), "")
    built = _last_line_of_a_build(lines)
    # pip's first error is the most useful, but after a failed build the last one, which names the package.
    first = telling[-1 if built and "[stderr]" not in map(str.strip, lines) else 0]
    parts = [lines[first]]
    for line in lines[first + 1 : first + 4]:
        if not line.strip() or not line.startswith((" ", *_FRAME)):
            break
        parts.append(line)
    text = (
        " ".join(part.strip(f" {_FRAME}") for part in parts).removeprefix("ERROR: ").removeprefix("error: ")
    )
    return f"{text.removesuffix('See above for output.').rstrip(' .')}: {built}" if built else text


def _last_line_of_a_build(lines: list[str]) -> str:
    """The last line of a package's failed build; empty if none failed."""
    stripped = [line.strip() for line in lines]
    if "[end of output]" in stripped:  # pip
        return stripped[stripped.index("[end of output]") - 1]
    words = ""
    if "[stderr]" in stripped:  # uv
        for line in lines[stripped.index("[stderr]") + 1 :]:
            if line.strip() and not line.startswith(" "):
                break
            words = line.strip() or words
    return words
