"""User code in S3 or in an archive: fetched once, before any worker starts."""

from __future__ import annotations

import json
import os

from ... import paths
from ...report import UserError
from ...training import source
from ..settings import Settings


def fetch_code(settings: Settings) -> None:
    """Replace the code's address in the settings with the folder it is unpacked to. Raises UserError."""
    remote = settings.submitted.startswith("s3://")
    if not remote and not os.path.isfile(settings.submitted):
        return  # a folder, or none
    if remote and os.path.isfile(f"{paths.MODEL}/code/{settings.program}"):
        return  # the platform has already unpacked it there
    settings.submitted = _fetch(settings.submitted)


def _fetch(address: str) -> str:
    """Fetch in a child process, so that this one does not keep what boto3 imports and allocates."""
    receiver, sender = os.pipe()
    if os.fork() == 0:
        answer = {"error": "the process that fetched the code died"}
        try:
            answer = {"directory": source.fetch_source(address)[0]}
        except UserError as problem:
            answer = {"error": str(problem)}
        finally:
            os.write(sender, json.dumps(answer).encode())
            os._exit(0)
    os.close(sender)
    with os.fdopen(receiver, "rb") as pipe:
        answer = json.loads(pipe.read() or b'{"error": "the process that fetched the code was killed"}')
    os.wait()
    if "error" in answer:
        raise UserError(answer["error"])
    return str(answer["directory"])
