"""Find or fetch the user's code, unpack it, and return its directory.

An explicit submit directory takes precedence over the code in the image: an archive or a prefix is
unpacked over it, into /opt/ml/code; a local directory is used in place.
"""

from __future__ import annotations

import os

from .. import paths
from ..report import UserError, log
from .job import Job

# Where the platform puts the code of a job that is isolated from the network: in a channel.
ISOLATED = f"{paths.DATA}/code/sourcedir.tar.gz"
_ARCHIVES = (".tar.gz", ".tgz", ".tar")
_OTHER_ARCHIVES = (".zip", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".7z")


def fetch(job: Job) -> tuple[str, str | None]:
    """The directory of the user's code and, if the code is a single file, the name of that file.

    Raises UserError if the code is missing, cannot be read, or is an archive that is not safe to unpack.
    """
    return fetch_source(job.submit_directory or (ISOLATED if is_fetched(job) else paths.CODE))


def fetch_source(source: str) -> tuple[str, str | None]:
    """As `fetch`, from a directory, a file or an s3:// address."""
    refuse(source)
    if source.startswith("s3://"):
        return _from_s3(source)
    path = source.removeprefix("file://").rstrip("/") or "/"
    if path == paths.CODE:
        return path, None
    log(f"code: {path}")
    if os.path.isdir(path):
        return path, None
    if not os.path.isfile(path):
        raise UserError(f"the submit directory {source!r} does not exist; mount it, or give an s3:// address")
    if path.endswith(_ARCHIVES):
        return _unpacked(path), None
    return os.path.dirname(path), os.path.basename(path)


def refuse(source: str) -> None:
    """Raise UserError if this cannot be code, whatever is there."""
    if source.endswith(_OTHER_ARCHIVES):
        raise UserError(f"the code {source!r} is not a .tar.gz; pack it as one: tar -czf code.tar.gz .")
    if source.startswith("s3://"):
        from . import aws

        aws.parse(source)


def is_fetched(job: Job) -> bool:
    """Whether the code is still to be downloaded or unpacked."""
    if source := job.submit_directory:
        return source.startswith("s3://") or source.endswith(_ARCHIVES)
    return os.path.isfile(ISOLATED) and not (os.access(paths.CODE, os.R_OK) and os.listdir(paths.CODE))


def _from_s3(uri: str) -> tuple[str, str | None]:
    import shutil  # takes 10 ms to import

    from . import aws

    log(f"code: {uri}")
    if not uri.endswith(_ARCHIVES):
        target = _writable_code_directory()
        return target, aws.download(uri, target)
    scratch = _scratch_directory()
    try:
        return _unpacked(f"{scratch}/{aws.download(uri, scratch)}"), None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _unpacked(archive: str) -> str:
    from .archive import unpack  # tarfile takes 14 ms to import

    target = _writable_code_directory()
    unpack(archive, target)
    return target


def _writable_code_directory() -> str:
    """/opt/ml/code, or a new directory if that is read-only."""
    try:
        os.makedirs(paths.CODE, exist_ok=True)
    except OSError:
        pass
    if os.access(paths.CODE, os.W_OK):
        return paths.CODE
    scratch = _scratch_directory()
    os.chmod(scratch, 0o711)  # the code may run as another user
    directory = f"{scratch}/code"
    os.makedirs(directory, exist_ok=True)
    log(f"{paths.CODE} is not writable: the code goes to {directory}")
    return directory


def _scratch_directory() -> str:
    import tempfile  # takes 15 ms to import

    try:
        return tempfile.mkdtemp(prefix="optml-")
    except OSError as error:
        raise UserError(
            f"there is no writable directory to fetch the code into: {error.strerror}; mount a tmpfs on /tmp"
        ) from error
