"""A page of Markdown, followed as its reader would follow it: write files, paste commands, compare output.

A page is written like this:

* "`train.py`:" on the line before a block: the block is that file. "`train.py`, at its end:" appends to it.
* A block of `sh`: pasted into the one shell of the page, which ends at the first command that fails.
* A block of `text` after it: what the commands print, line by line, in this order; `…` stands for anything.
* `<!-- not run: REASON -->` before a block: it is not run.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import textwrap
from dataclasses import dataclass
from pathlib import Path

from tests.support.docker import docker
from tests.support.matrix import ROOT
from tests.support.ports import free_port

_BLOCK = re.compile(
    r"(?:^ *<!-- not run: (?P<reason>.+?) -->\n+)?"
    r"(?:^ *(?:[^\n]* )?`(?P<file>[^`\n]+)`(?P<append>, at its end)?:\n+)?"
    r"^(?P<indent> *)```(?P<kind>[a-z]*)\n(?P<text>.*?)^ *```$",
    re.M | re.S,
)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    kind: str
    """The language after the fence: `sh`, `python`, `text`, …"""
    text: str
    file: str | None
    """The file that the block is."""
    append: bool
    reason: str | None
    """Why its commands are not run."""


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    return [
        Block(
            kind=match["kind"],
            text=textwrap.dedent(match["indent"] + match["text"].removeprefix(match["indent"])),
            file=match["file"],
            append=bool(match["append"]),
            reason=match["reason"],
        )
        for match in _BLOCK.finditer(page.read_text())
    ]


def follow(page: Path, workplace: Path, tag: str, wheels: Path | None = None) -> None:
    """Do what a page says, in the folder `workplace` and with the images of optml that have this tag.

    A free port of this machine takes the place of 8080, so that pages can be followed side by side.
    `wheels` is a folder that the reader is to fetch in a block that is not run.
    Raises AssertionError if a command fails or does not print what the page promises.
    """
    if page.is_relative_to(ROOT / "examples"):  # the page of an example is read in its folder
        shutil.copytree(page.parent.parent / "bring-your-own", workplace / "bring-your-own")
        workplace = workplace / page.parent.name
        shutil.copytree(page.parent, workplace, ignore=shutil.ignore_patterns("wheels", "ml"))
        if wheels:
            shutil.copytree(wheels, workplace / "wheels", copy_function=os.link)
    script = ["set -euo pipefail", f"cd {workplace}", f"export PATH={ROOT}/.venv/bin:$PATH"]
    promised: list[str] = []
    port = free_port()
    for block in blocks(page):
        text = re.sub(r"\b(optml/[a-z-]+)(?![\w:/.-])", rf"\1:{tag}", block.text)
        text = text.replace("-p 8080:", f"-p {port}:").replace("localhost:8080", f"localhost:{port}")
        if block.reason:
            continue
        if block.file:
            target = workplace / block.file
            script.append(f"mkdir -p {target.parent}")
            script.append(f"cat {'>>' if block.append else '>'} {target} <<'END_OF_FILE'\n{text}END_OF_FILE")
        elif block.kind == "sh":
            script.append(re.sub(r"^docker build ", f"docker build --build-arg TAG={tag} ", text, flags=re.M))
        elif block.kind == "text":
            promised += text.splitlines()
    commands = "\n".join(script)
    try:
        done = subprocess.run(
            ["bash", "-c", commands],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=540,
            cwd=workplace,
        )
    finally:
        for name in re.findall(r"docker run .*--name (\S+)", commands):
            docker("rm", "--force", "--volumes", name, check=False)
        for name in re.findall(r"docker build .*-t (\S+)", commands):
            docker("rmi", "--force", name, check=False)
        for name in re.findall(r"docker network create (\S+)", commands):
            docker("network", "rm", name, check=False)
    assert done.returncode == 0, f"{page.name}: a command failed\n{done.stdout[-6000:]}"
    rest = done.stdout
    for line in promised:
        found = re.search(re.escape(line.strip()).replace("…", ".*"), rest)
        assert found, f"{page.name}: {line!r} is not in the rest of the output\n{rest[-6000:]}"
        rest = rest[found.end() :]
