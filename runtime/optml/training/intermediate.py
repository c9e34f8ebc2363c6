"""Copy what the program writes to output/intermediate to S3 while it runs.

The directory is looked at every second rather than watched: that sees renames, links and network
mounts alike, and needs no library. A file is uploaded again whenever its size, time or inode has
changed. A child of PID 1 does it: PID 1 stays small, and whatever a transfer hangs in, it can be ended.
"""

from __future__ import annotations

import os
import select
import stat

from .. import paths
from ..hints import Any, Iterator, TracebackType
from ..report import UserError, log
from .supervisor import Supervisor

_EVERY = 1.0


def place(uri: str, job: str) -> str:
    """Where the files of the job of this name go, if `sagemaker_s3_output` is this address.

    The directory is there then, as far as the mounts allow. Raises UserError where this image cannot upload.
    """
    if not os.path.isdir(f"{paths.DEPS}/boto3"):
        raise UserError("this image cannot upload to S3: boto3 is missing; use the cpu-train image")
    try:
        os.makedirs(paths.OUTPUT_INTERMEDIATE, exist_ok=True)
    except OSError as error:
        log(f"cannot make {paths.OUTPUT_INTERMEDIATE}: {error.strerror}; the program will have to")
    return "/".join(part for part in (uri.rstrip("/"), job, "output/intermediate") if part)


class upload:  # noqa: N801  # a context manager reads as a verb
    """While the block runs, what changes is uploaded; its end waits for the last; to an empty one nothing."""

    def __init__(self, supervisor: Supervisor, uri: str) -> None:
        self._supervisor, self._uri = supervisor, uri

    def __enter__(self) -> None:
        if self._uri:
            log(f"{paths.OUTPUT_INTERMEDIATE} is copied to {self._uri} while the program runs")
            over, self._over = os.pipe()
            self._child = self._supervisor.start(lambda: _work(self._uri, over, self._over))
            os.close(over)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._uri:
            os.close(self._over)
            if not self._supervisor.wait(lambda: self._child.ended):
                self._child.kill()
                log(f"asked to stop: the last changes of {paths.OUTPUT_INTERMEDIATE} may not be uploaded")


def _work(uri: str, over: int, its_other_end: int) -> None:
    """Upload until PID 1 closes the pipe, and what is left then."""
    from . import s3

    os.close(its_other_end)
    try:
        copy = Copy(paths.OUTPUT_INTERMEDIATE, uri, s3.client())
    except UserError as problem:
        log(f"nothing of {paths.OUTPUT_INTERMEDIATE} is uploaded: {problem}")
        return
    while not select.select([over], [], [], _EVERY)[0]:
        copy.update()
    copy.update()
    for reason in sorted(set(copy.failed.values())):
        log(f"not everything of {paths.OUTPUT_INTERMEDIATE} was uploaded: {reason}")


class Copy:
    """A directory's copy at an `s3://` address."""

    def __init__(self, directory: str, uri: str, client: Any) -> None:
        self._directory, self._uri, self._client = directory, uri, client
        self._uploaded: dict[str, tuple[int, ...]] = {}
        self.failed: dict[str, str] = {}
        """Why a file could not be uploaded, by its name."""

    def update(self) -> None:
        """Upload what has changed since the last time."""
        for name, state in files(self._directory):
            if self._uploaded.get(name) != state:
                self._upload(name, state)

    def _upload(self, name: str, state: tuple[int, ...]) -> None:
        from . import s3

        uri = f"{self._uri}/{name}"
        bucket, key = s3.parse(uri)
        try:
            self._client.upload_file(f"{self._directory}/{name}", bucket, key)
        except FileNotFoundError:
            return  # renamed or removed meanwhile
        except Exception as error:
            self.failed[name] = s3.why(error, uri)
            return
        self._uploaded[name] = state
        self.failed.pop(name, None)


def files(directory: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The regular files below a directory by relative name, with what changes when they do. Others, such as
    FIFOs and devices, have no content that could be copied, and to open one may take for ever."""
    for parent, _, names in os.walk(directory):
        for name in names:
            path = f"{parent}/{name}"
            try:
                facts = os.stat(path)
            except OSError:
                continue
            if stat.S_ISREG(facts.st_mode):
                yield os.path.relpath(path, directory), (facts.st_ino, facts.st_size, facts.st_mtime_ns)
