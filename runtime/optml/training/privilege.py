"""Run the program and its installer as another user, if the job asks for it."""

from __future__ import annotations

import os
import pwd
import stat

from .. import paths
from ..report import UserError, log
from .program import RUN_AS, which

# Where the program writes. The platform mounts these as root.
_WRITTEN = (paths.MODEL, paths.OUTPUT, paths.OUTPUT_DATA, paths.OUTPUT_INTERMEDIATE, paths.CODE)


def drop(
    argv: list[str], environment: dict[str, str], checkpoints: str = ""
) -> tuple[list[str], dict[str, str]]:
    """The command line and environment that run the program as the user that the variable names.

    It has no privileges and cannot gain any. The directories that the program writes to become that user's,
    and so do the checkpoints, which the platform restores as root.
    Raises UserError if there is no such user, or no permission to become it.
    """
    user, setpriv = becoming(environment[RUN_AS])
    if not setpriv:
        return argv, environment
    restored = (
        path
        for at, _, files in os.walk(checkpoints or paths.CHECKPOINTS)
        for path in (at, *(os.path.join(at, each) for each in files))
    )
    kept = [path for path in (*_WRITTEN, *restored) if not give(path, user)]
    if kept:
        log(
            f"{kept[0]} cannot be given to {user.pw_name};"
            f" run `chown -R {user.pw_uid} {kept[0]}` where it comes from"
        )
    identity = [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--init-groups"]
    identity += ["--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
    home = {"HOME": user.pw_dir, "USER": user.pw_name, "LOGNAME": user.pw_name}
    return [setpriv, *identity, "--", *argv], {**environment, **home}


def becoming(name: str) -> tuple[pwd.struct_passwd, str | None]:
    """The named user and, unless that is the current one, setpriv. Raises UserError as `drop`."""
    user = named(name)
    if user.pw_uid == os.geteuid():
        return user, None
    setpriv = which("setpriv")
    if os.geteuid() != 0 or not setpriv:
        raise UserError(
            f"cannot become {RUN_AS}={user.pw_name}: that needs root and setpriv; start the container as root"
        )
    return user, setpriv


def named(name: str) -> pwd.struct_passwd:
    """The user of this name or number. Raises UserError if there is none."""
    try:
        return pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    except (KeyError, ValueError):  # the number may be out of range
        raise UserError(f"{RUN_AS} is {name!r}, but /etc/passwd has no such user; ml is one") from None


def give(path: str, user: pwd.struct_passwd) -> bool:
    """Make this the user's; False if it still is another's."""
    try:
        os.chown(path, user.pw_uid, user.pw_gid, follow_symlinks=False)
    except FileNotFoundError:
        return True
    except OSError:  # read-only, or without the capability
        return os.stat(path, follow_symlinks=False).st_uid == user.pw_uid
    return True


def give_pipes(name: str, *fds: int) -> None:
    """Make the pipes among these the user's, who could otherwise write to them but not open /dev/stderr."""
    user = named(name)
    for fd in fds:
        try:
            if stat.S_ISFIFO(os.fstat(fd).st_mode):
                os.fchown(fd, user.pw_uid, user.pw_gid)
        except OSError:
            pass  # the user can still write to it
