"""Copy what the program writes to output/intermediate to S3 while it runs.

The directory is looked at every second rather than watched: that sees renames, links and network
mounts alike, and needs no library. A file is uploaded again whenever its size, time or inode has
changed.
"""

from __future__ import annotations

import os

from .. import paths
from ..report import log
from .supervisor import Stopped

TYPE_CHECKING = False  # typing takes milliseconds to import
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from .job import Job

_EVERY = 1.0


def start(job: Job) -> Upload | None:
    """Start to upload, where the hyperparameter `sagemaker_s3_output` names an `s3://` address."""
    uri = str(job.framework_parameters.get("sagemaker_s3_output") or "")
    if not uri.startswith("s3://"):
        return None
    place = "/".join(part for part in (uri.rstrip("/"), job.name, "output/intermediate") if part)
    return Upload(paths.OUTPUT_INTERMEDIATE, place)


class Upload:
    """A thread that uploads what has changed in a directory until `finish` is called."""

    def __init__(self, directory: str, uri: str) -> None:
        import threading  # only jobs that upload pay for it

        from . import s3

        self._s3, self._directory, self._uri = s3, directory, uri
        self._client = s3.client()
        self._uploaded: dict[str, tuple[int, ...]] = {}
        self._failed: dict[str, str] = {}
        self._over = threading.Event()
        try:
            os.makedirs(directory, exist_ok=True)
        except OSError as error:
            log(f"cannot make {directory}: {error.strerror}; the program will have to")
        log(f"{directory} is copied to {uri} while the program runs")
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Upload the last changes and stop. What could not be uploaded is told, and does not fail the job."""
        self._over.set()
        try:
            self._thread.join()
        except Stopped:
            log(f"asked to stop: the last changes of {self._directory} may not be uploaded")
            return
        for reason in sorted(set(self._failed.values())):
            log(f"not everything of {self._directory} was uploaded: {reason}")

    def _work(self) -> None:
        while not self._over.wait(_EVERY):
            self._pass()
        self._pass()

    def _pass(self) -> None:
        for name, state in _files(self._directory):
            if self._uploaded.get(name) != state:
                self._upload(name, state)

    def _upload(self, name: str, state: tuple[int, ...]) -> None:
        uri = f"{self._uri}/{name}"
        bucket, key = self._s3.parse(uri)
        try:
            self._client.upload_file(f"{self._directory}/{name}", bucket, key)
        except FileNotFoundError:
            return  # renamed or removed meanwhile
        except Exception as error:
            self._failed[name] = self._s3.why(error, uri)
            return
        self._uploaded[name] = state
        self._failed.pop(name, None)


def _files(directory: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The files below a directory by relative name, with what changes when they do."""
    for parent, _, names in os.walk(directory):
        for name in names:
            path = f"{parent}/{name}"
            try:
                facts = os.stat(path)
            except OSError:
                continue
            state: tuple[Any, ...] = (facts.st_ino, facts.st_size, facts.st_mtime_ns)
            yield os.path.relpath(path, directory), state
