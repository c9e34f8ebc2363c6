"""The documents: their commands work, their links lead somewhere, and no command is overlooked."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.docs.page import blocks, follow
from tests.support.docker import inspect
from tests.support.matrix import ARCH, ROOT, built, matrix
from tests.support.wheels import fetched

PAGES = sorted(
    subprocess.check_output(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"], cwd=ROOT, text=True
    ).split()
)
FOLLOWED = (
    "README.md",
    "docs/tutorial.md",
    "docs/how-to/dead-endpoint.md",
    "docs/how-to/moving.md",
    "docs/how-to/private-index.md",
    "docs/how-to/serverless.md",
    "examples/lightgbm/README.md",
    "examples/scikit-learn/README.md",
    "examples/token-streamer/README.md",
    "examples/xgboost/README.md",
)
"""The pages whose commands a test runs, with that of HUGGING_FACE. Other pages say why theirs are not run."""
HUGGING_FACE = "examples/hugging-face/README.md"


@pytest.mark.image("cpu-serve")
@pytest.mark.one_variant
@pytest.mark.parametrize("page", FOLLOWED)
def test_what_a_page_says_is_what_happens(image: str, page: str, tmp_path: Path) -> None:
    follow(ROOT / page, tmp_path, image.rpartition(":")[2])


@pytest.mark.long
def test_the_page_of_the_hugging_face_example_holds(tmp_path: Path) -> None:
    cell = next((cell for cell in built() if cell.image == "cpu-serve" and cell.python == "3.11"), None)
    if cell is None:
        pytest.skip("PyTorch for CPUs is had for Python 3.11, and that variant is not built")
    wheels = fetched("hugging-face", cell.python, "torch==2.13.0+cpu", "transformers")
    follow(ROOT / HUGGING_FACE, tmp_path, cell.tag.rpartition(":")[2], wheels)


@pytest.mark.parametrize("page", [page for page in PAGES if page not in (*FOLLOWED, HUGGING_FACE)])
def test_every_command_is_run_or_says_why_not(page: str) -> None:
    silent = [block.text for block in blocks(ROOT / page) if block.kind == "sh" and not block.reason]
    assert not silent, f"{page}: follow the page in a test, or say <!-- not run: why --> before:\n{silent[0]}"


def anchors(page: Path) -> set[str]:
    """The names of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_somewhere(name: str) -> None:
    page = ROOT / name
    text = re.sub(r"^```.*?^```$|`[^`\n]*`", "", page.read_text(), flags=re.M | re.S)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in link or link.startswith("mailto:"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name} links to {link}, which is not there"
        if anchor:
            assert anchor in anchors(target), f"{page.name} links to {link}, and there is no such heading"


def test_the_index_of_examples_has_each_once() -> None:
    indexed = re.findall(r"\[([a-z-]+)\]\(\1\)", (ROOT / "examples/README.md").read_text())
    assert sorted(indexed) == sorted(path.name for path in (ROOT / "examples").iterdir() if path.is_dir())


def test_the_table_of_images_is_that_of_the_images() -> None:
    rows = re.findall(
        r"^\| `([a-z-]+)` \|.*\| (\d+) MB \| \d+ MB \| (.+) \|$", (ROOT / "README.md").read_text(), re.M
    )
    default = {cell.image: cell.tag for cell in reversed(built())}
    assert sorted(name for name, *_ in rows) == sorted({cell.image for cell in matrix()})
    for name, size, budget in rows:
        dockerfile = (ROOT / f"images/{name}/Dockerfile").read_text()
        assert re.search(rf"^# Budget: {re.escape(budget.replace('`', ''))}(,|$)", dockerfile, re.M), name
        assert ARCH != "amd64" or abs(inspect(default[name])["Size"] / 1e6 - int(size)) < 1.5, name


@pytest.mark.long
def test_what_is_pulled_is_as_large_as_the_table_says() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \|.*\| (\d+) MB \| .+ \|$", (ROOT / "README.md").read_text(), re.M)
    default = {cell.image: cell.tag for cell in reversed(built())}
    assert len(rows) == len(default)
    for name, pulled in rows:
        command = f"docker save {default[name]} | gzip | wc -c"
        packed = subprocess.run(command, shell=True, capture_output=True, check=True)
        assert ARCH != "amd64" or abs(int(packed.stdout) / 1e6 - int(pulled)) < 1, name
