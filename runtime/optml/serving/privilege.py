"""Which user the workers run as: `ml` if the server was started as root and `ml` can serve."""

from __future__ import annotations

import os
from collections.abc import Iterator

from .. import paths
from ..report import log
from .settings import Settings


def decide_user(settings: Settings, program: str | None) -> tuple[int, str] | None:
    """The uid and home that workers switch to, or None to stay. Logs in one line why they stay root."""
    if os.geteuid() != 0 or settings.user == "root":
        return None
    import pwd

    try:
        entry = pwd.getpwnam("ml")
    except KeyError:
        log("there is no user ml: workers stay root")
        return None
    folders = [paths.MODEL, *(os.path.dirname(p) for p in [program] if p)]
    if settings.app:  # imported by name from whichever has it
        folders += filter(os.path.isdir, settings.code_dirs)
    reason = _why_not(entry.pw_uid, entry.pw_dir, [] if settings.multi_model else folders)
    if reason:
        log(f"user ml {reason}: workers stay root")
        return None
    return entry.pw_uid, entry.pw_dir


def _why_not(uid: int, home: str, folders: list[str]) -> str:
    """Why this uid cannot serve, tested in a child process; empty if it can."""
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        reason = "could not be tested"
        try:
            become(uid, home)
            reason = next((f"cannot read {path}" for folder in folders for path in _unreadable(folder)), "")
        except OSError as error:
            reason = f"cannot be switched to ({error.strerror})"
        finally:  # whatever happens, this process must not continue as the server
            try:
                os.write(sender, reason.encode(errors="backslashreplace")[:4000])
            finally:
                os._exit(0)
    os.close(sender)
    with os.fdopen(receiver, "rb") as pipe:
        reason = pipe.read().decode(errors="replace")
    try:
        os.kill(child, 0)  # not reaped, so it still exists, as ml
    except PermissionError:
        reason = reason or "cannot be signalled (without CAP_KILL)"
    os.waitpid(child, 0)
    return reason


def _unreadable(folder: str) -> Iterator[str]:
    """Paths below the folder, itself included, that this process may not read."""
    if not os.access(folder, os.R_OK | os.X_OK):
        yield folder
        return
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            yield from _unreadable(entry.path)
        elif not os.access(entry.path, os.R_OK) and os.path.exists(entry.path):
            yield entry.path


def become(uid: int, home: str) -> None:
    """Give up root for good: this uid, group 0, no other groups. Raises OSError if not permitted."""
    os.setgroups([])
    os.setgid(0)
    os.setuid(uid)
    os.environ["HOME"] = home
