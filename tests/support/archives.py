"""Archives of code, as users and the platform pack them."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path


def archive(**files: str) -> bytes:
    """A gzipped tar of Python files: the names without .py, and their text."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(f"./{name}.py")
            content = text.encode()
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return data.getvalue()


def pack(directory: Path, archive: Path) -> None:
    """Archive what lies in the directory."""
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(directory, ".")
