"""Parts of documents that a program writes, between two lines that mark them."""

from __future__ import annotations

from pathlib import Path


def write_between(path: Path, begin: str, end: str, text: str) -> None:
    """Put `text` in the place of what stands between the marks, which stay; all of them end their lines."""
    before, _, rest = path.read_text().partition(begin)
    path.write_text(before + begin + text + end + rest.partition(end)[2])
