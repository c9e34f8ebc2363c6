"""Install what the user's code needs into the user's interpreter, before the program starts."""

from __future__ import annotations

import os

from ..report import UserError, log
from . import command
from .program import is_package, which

TYPE_CHECKING = False  # typing takes milliseconds to import
if TYPE_CHECKING:
    from .command import Done
    from .program import Program

_DEFAULTS = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_ROOT_USER_ACTION": "ignore"}


def install(program: Program, environment: dict[str, str]) -> None:
    """Install `requirements.txt` and, where the code is a package, the package itself.

    With uv where it is on PATH, else pip. Both read the user's own configuration (PIP_* and UV_* variables,
    pip.conf, uv.toml). Raises UserError naming the requirement that failed.
    """
    wanted = []
    if os.path.isfile(f"{program.directory}/requirements.txt"):
        wanted += ["-r", "requirements.txt"]
    if program.kind == "module" and is_package(program.directory):
        wanted += ["."]
    if not wanted:
        return
    log(f"installing {' and '.join(name for name in wanted if name != '-r')}")
    environment = {**_DEFAULTS, **environment, **_code_artifact(environment)}
    done = command.run(_installer(program.python) + wanted, environment, program.directory)
    if done.code:
        raise UserError(_failure(done, program))


def _installer(python: str) -> list[str]:
    """Both retry what the network refuses."""
    if uv := which("uv"):
        return [uv, "pip", "install", "--python", python]
    return [python, "-m", "pip", "install"]


def _code_artifact(environment: dict[str, str]) -> dict[str, str]:
    """The package index in AWS CodeArtifact that CA_REPOSITORY_ARN names, as variables: a process list shows
    arguments, but not the environment of others."""
    repository = environment.get("CA_REPOSITORY_ARN")
    if not repository:
        return {}
    from .codeartifact import index_url  # boto3 takes 200 ms to import

    url = index_url(repository)
    return {"PIP_INDEX_URL": url, "UV_INDEX_URL": url}


def _failure(done: Done, program: Program) -> str:
    lines = [line.strip() for line in done.tail.splitlines() if line.strip()]
    what = f"cannot install the requirements of {program.directory}"
    if any("Permission denied" in line or "Read-only file system" in line for line in lines):
        return (
            f"{what}: the environment of {program.python} is not writable here; install them when the"
            " image is built, or let the container write there"
        )
    if any("No module named pip" in line for line in lines):
        return f"{what}: {program.python} has no pip; install pip or uv in the image"
    errors = [line for line in lines if line.upper().startswith("ERROR")]
    # The line that names a requirement says more than the one that sums up.
    naming = [line for line in errors if "requirement" in line.lower() or "distribution" in line.lower()]
    said = (naming or errors or lines or [f"exit code {done.code}"])[0]
    said = said.removeprefix("ERROR: ")
    return f"{what}: {said}; correct requirements.txt, or make the package index reachable"
