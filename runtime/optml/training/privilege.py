"""Run the program as another user than the container was started with, where the job asks for it."""

from __future__ import annotations

import os

from .. import paths
from ..report import UserError
from .program import which

VARIABLE = "SAGEMAKER_TRAINING_USER"

# What the program writes. The platform mounts these as root.
_WRITTEN = (
    *(paths.MODEL, paths.OUTPUT, paths.OUTPUT_DATA, paths.OUTPUT_INTERMEDIATE),
    *(paths.CHECKPOINTS, paths.CODE),
)


def drop(argv: list[str], environment: dict[str, str]) -> tuple[list[str], dict[str, str]]:
    """The command line and environment that run the program as the user that the variable names.

    The directories that the program writes to become that user's.
    Raises UserError where there is no such user, or no right to become it.
    """
    import pwd  # only here

    name = environment[VARIABLE]
    try:
        user = pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    except (KeyError, ValueError):  # the number may be too long for one
        raise UserError(f"{VARIABLE} is {name!r}, but /etc/passwd has no such user; ml is one") from None
    if user.pw_uid == os.geteuid():
        return argv, environment
    setpriv = which("setpriv")
    if os.geteuid() != 0 or not setpriv:
        raise UserError(
            f"cannot become {VARIABLE}={name}: that takes root and setpriv; start the container as root"
        )
    for directory in _WRITTEN:
        try:
            os.chown(directory, user.pw_uid, user.pw_gid)
        except OSError:
            pass  # not there, read-only, or without the capability: the program says what it misses
    identity = [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--init-groups"]
    home = {"HOME": user.pw_dir, "USER": user.pw_name, "LOGNAME": user.pw_name}
    return [setpriv, *identity, "--", *argv], {**environment, **home}
