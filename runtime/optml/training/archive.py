"""Unpack a tar archive of user code, which is not trusted."""

from __future__ import annotations

import os
import shutil
import tarfile

from ..report import UserError


def unpack(path: str, target: str) -> None:
    """Unpack the archive into the directory; nothing is written outside it.

    Names and links that lead outside it are refused, and so are devices; `./x` is a normal name. Permissions
    are kept, except setuid, setgid and write access for group and others; the files become ours. Everyone
    may read them, because the program may run as another user.
    Raises UserError if the archive is unsafe, broken, or larger than the free disk space.
    """
    try:
        with tarfile.open(path) as archive:
            archive.extraction_filter = lambda member, _path: member  # _check is stricter than tarfile's
            members = archive.getmembers()
            _check_size(path, members, target)
            for member in members:
                _check(path, member, target)
                _extract(archive, member, target)
    except UserError:
        raise
    except Exception as error:  # tarfile and its codecs fail on broken archives in many ways
        if isinstance(error, OSError) and error.strerror:
            raise UserError(f"cannot unpack {path} into {target}: {error.strerror}") from error
        what = " ".join(str(error).split())
        raise UserError(
            f"{path} is no tar archive, or cannot be read ({what}); make it with tar -czf"
        ) from error


def _check_size(path: str, members: list[tarfile.TarInfo], target: str) -> None:
    size = sum(member.size for member in members if member.isreg())
    free = shutil.disk_usage(target).free
    if size > free:
        raise UserError(
            f"{path} unpacks to {size >> 20} MiB but {target} has {free >> 20} MiB free; give it more disk"
        )


def _check(path: str, member: tarfile.TarInfo, target: str) -> None:
    """Refuse a member that could write outside the target, also through links unpacked before it."""
    if not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
        raise UserError(
            f"{path} holds {member.name!r}, a device or FIFO; user code may hold only files and links"
        )
    name = member.name
    member.name = os.path.normpath(name)
    if not _inside(os.path.join(target, member.name), target):
        raise UserError(f"{path} holds {name!r}, which lies outside the code directory; pack it from inside")
    beside = os.path.dirname(member.name) if member.issym() else ""
    linked = member.issym() or member.islnk()
    # tarfile would replace a link to nothing with another member.
    if linked and not (member.linkname and _inside(os.path.join(target, beside, member.linkname), target)):
        raise UserError(
            f"{path} holds the link {member.name!r} → {member.linkname!r}, which leads outside the code"
        )


def _inside(path: str, target: str) -> bool:
    real, root = os.path.realpath(path), os.path.realpath(target)
    return real == root or real.startswith(f"{root}/")


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo, target: str) -> None:
    runs = member.isdir() or member.mode & 0o100
    member.mode = (member.mode & 0o755) | (0o755 if runs else 0o644)
    member.uid, member.gid = os.geteuid(), os.getegid()
    member.uname = member.gname = ""
    destination = os.path.join(target, member.name)
    if not member.isdir() and os.path.lexists(destination) and not os.path.isdir(destination):
        os.unlink(destination)  # never write through an existing link
    archive.extract(member, target, numeric_owner=True)
