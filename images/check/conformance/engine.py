"""The containers of one run of the check: each has the run's label, and all are removed when it ends.

Files go in and out through the engine's API, without mounts, so that the check works the same on the host and
in a container with the engine's socket.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import tarfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import docker
from docker.errors import APIError, NotFound
from docker.models.containers import Container
from docker.types import LogConfig, Mount

LABEL = "optml.check"
STOPS = (signal.SIGINT, signal.SIGTERM)
ML = "/opt/ml"
# Only the end of a container's output is kept: all of it is read, and it must not fill the disk.
LOG = LogConfig(type=LogConfig.types.JSON, config={"max-size": "10m", "max-file": "2"})
Files = dict[str, bytes | str | None]
"""Path below /opt/ml → content; None is a folder."""


class Engine:
    """Creates containers, and removes them on exit: `with Engine() as engine`."""

    def __init__(self) -> None:
        self.client = docker.from_env(timeout=180)
        self.run = uuid.uuid4().hex[:12]
        self._own_container = self._find_own_container()

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with _stops_held():
            mine = {"label": f"{LABEL}={self.run}"}
            for container in self.client.containers.list(all=True, filters=mine, ignore_removed=True):
                remove(container)
            for volume in self.client.volumes.list(filters=mine):
                volume.remove(force=True)
            for network in self.client.networks.list(filters=mine):
                if self._own_container:
                    network.disconnect(self._own_container, force=True)
                network.remove()
        self.client.close()

    def _find_own_container(self) -> Container | None:
        """The container in which the check runs, if it is one of this engine."""
        name = os.uname().nodename
        try:
            found = self.client.containers.get(name)
        except NotFound:
            return None
        return found if found.id.startswith(name) else None

    def create(self, image: str, *command: str, files: Files | None = None, **options: Any) -> Container:
        """A container with a volume at /opt/ml, which holds the image's files at that path, and `files`."""
        mounts = options.pop("mounts", [])
        with _stops_held():
            container = self.client.containers.create(
                image,
                list(command),
                labels={LABEL: self.run},
                mounts=[Mount(ML, None, type="volume", labels={LABEL: self.run}), *mounts],
                network=options.pop("network", "bridge"),
                log_config=LOG,
                **options,
            )
        folders: Files = {f"{ML}/{name}": None for name in _FOLDERS}
        for covered in (m["Target"] for m in mounts if m["ReadOnly"]):
            del folders[covered]
        container.put_archive(ML, archive(folders | (files or {})))
        return container

    def sealed(self, image: str, target: str, files: Files) -> Mount:
        """A read-only volume with the image's files at `target`, and `files`."""
        with _stops_held():
            name = self.client.volumes.create(labels={LABEL: self.run}).name
        remove(self.create(image, "serve", files=files, mounts=[Mount(target, name, type="volume")]))
        return Mount(target, name, type="volume", read_only=True)

    def isolated_network(self) -> str:
        """A network on which the container can reach only the check."""
        name = f"optml-check-{self.run}-{uuid.uuid4().hex[:6]}"
        with _stops_held():
            network = self.client.networks.create(name, internal=True, labels={LABEL: self.run})
        if self._own_container:
            network.connect(self._own_container)
        return str(network.name)


_FOLDERS = ("input", "input/config", "input/data", "model", "output", "output/data", "code", "checkpoints")


@contextlib.contextmanager
def _stops_held() -> Iterator[None]:
    """Hold stop signals: what is being created or removed now would be left behind."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def remove(container: Container) -> None:
    """Remove it with its volumes. The engine may still be at a removal that a signal interrupted."""
    try:
        container.remove(force=True, v=True)
    except NotFound:
        pass
    except APIError as error:
        if error.status_code != 409:
            raise
        try:
            container.wait(condition="removed", timeout=120)
        except NotFound:
            pass


def archive(files: Files) -> bytes:
    """A tar for /opt/ml, whose files any user may read and write."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, content in files.items():
            entry = tarfile.TarInfo(path.removeprefix(f"{ML}/"))
            entry.mtime = int(time.time())
            if content is None:
                entry.type, entry.mode = tarfile.DIRTYPE, 0o777
                tar.addfile(entry)
            else:
                data = content.encode() if isinstance(content, str) else content
                entry.size, entry.mode = len(data), 0o666
                tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def folder(source: Path, target: str) -> Files:
    """The files below `source`, for the folder `target`."""
    found: Files = {}
    for path in sorted(source.rglob("*")):
        found[f"{target}/{path.relative_to(source)}"] = None if path.is_dir() else path.read_bytes()
    return found


def read(container: Container, path: str) -> bytes | None:
    """A file of a running or exited container; None if there is none."""
    try:
        stream, _ = container.get_archive(path)
    except NotFound:
        return None
    with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as tar:
        content = tar.extractfile(tar.getmembers()[0])
        return content.read() if content else None


def streamed(chunks: Iterator[bytes]) -> tarfile.TarFile:
    """An archive that is read as it arrives, so that its size does not matter."""
    return tarfile.open(fileobj=_Stream(chunks), mode="r|")


class _Stream(io.RawIOBase):
    """Chunks as a file to read from."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self._rest = chunks, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            try:
                self._rest = next(self._chunks)
            except StopIteration:
                return 0
        count = min(len(buffer), len(self._rest))
        buffer[:count], self._rest = self._rest[:count], self._rest[count:]
        return count
