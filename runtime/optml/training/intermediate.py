"""Upload output/intermediate to S3 while the program runs.

The directory is scanned every second rather than watched: that sees renames, links and network mounts, and
needs no library. A file is uploaded again whenever its size, mtime or inode has changed. A child of PID 1
does it: PID 1 stays small, and a transfer that hangs can be killed.
"""

from __future__ import annotations

import os
import select
import stat

from .. import paths
from ..hints import Iterator
from ..report import UserError, log
from .supervisor import Supervisor

_EVERY = 1.0


class upload:  # noqa: N801  # a context manager reads as a verb
    """Upload changes while the block runs, and wait for the last at its end. No `uri`, no upload."""

    def __init__(self, supervisor: Supervisor, uri: str) -> None:
        self._supervisor, self._uri = supervisor, uri

    def __enter__(self) -> None:
        if self._uri:
            log(f"{paths.OUTPUT_INTERMEDIATE} is copied to {self._uri} while the program runs")
            over, self._over = os.pipe()
            self._child = self._supervisor.start(lambda: _work(self._uri, over, self._over))
            os.close(over)

    def __exit__(self, *_: object) -> None:
        if self._uri:
            os.close(self._over)
            why = "the upload died"
            if not self._supervisor.wait(lambda: self._child.ended):
                self._child.kill()
                why = "asked to stop"
            if self._child.status != 0:
                log(f"{why}: the last changes of {paths.OUTPUT_INTERMEDIATE} may not be uploaded")


def _work(uri: str, over: int, its_other_end: int) -> None:
    """Upload changes until PID 1 closes the pipe, and then the rest."""
    from . import aws

    os.close(its_other_end)
    bucket, prefix = aws.parse(uri)
    try:
        client = aws.client()
    except UserError as problem:
        log(f"nothing of {paths.OUTPUT_INTERMEDIATE} is uploaded: {problem}")
        return
    uploaded: dict[str, tuple[int, ...]] = {}
    failed: dict[str, str] = {}
    ends = False
    while not ends:
        ends = bool(select.select([over], [], [], _EVERY)[0])
        for name, state in files(paths.OUTPUT_INTERMEDIATE):
            if uploaded.get(name) == state:
                continue
            try:
                client.upload_file(f"{paths.OUTPUT_INTERMEDIATE}/{name}", bucket, f"{prefix}/{name}")
            except FileNotFoundError:
                pass  # renamed or removed meanwhile
            except Exception as error:
                failed[name] = aws.why(error, f"{uri}/{name}")
            else:
                uploaded[name] = state
                failed.pop(name, None)
    for reason in sorted(set(failed.values())):
        log(f"not everything of {paths.OUTPUT_INTERMEDIATE} was uploaded: {reason}")


def files(directory: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The regular files under a directory: relative name, and a state that changes with the file. Others,
    such as FIFOs and devices, have nothing to copy, and opening one may block forever."""
    for parent, _, names in os.walk(directory):
        for name in names:
            path = f"{parent}/{name}"
            try:
                facts = os.stat(path)
            except OSError:
                continue
            if stat.S_ISREG(facts.st_mode):
                yield os.path.relpath(path, directory), (facts.st_ino, facts.st_size, facts.st_mtime_ns)
