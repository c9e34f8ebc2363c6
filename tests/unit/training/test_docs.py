"""The lists in docs/training.md and the layout in docs/architecture-training.md match the code."""

from __future__ import annotations

import re
from pathlib import Path

from optml.training import environment, launchers, rendezvous
from optml.training.job import Job
from tests.unit.training.conftest import a_job, a_program

ROOT = Path(__file__).parents[3]
DOCS = (ROOT / "docs/training.md").read_text()


def listed(heading: str) -> set[str]:
    """The words in `code` under a heading, up to the next heading."""
    text = DOCS.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    text = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    return {word for code in re.findall(r"`([^`]+)`", text) for word in re.findall(r"[A-Za-z_0-9]+", code)}


def test_every_variable_that_the_program_gets() -> None:
    topology = {"resource_config": {"topology": []}}
    given = set(environment.environment(a_job(**topology), a_program(), [], {}))
    given |= set(launchers._INTERFACE_VARIABLES)
    names = {name for name in listed("Variables that the program gets") if name.isupper() and len(name) > 4}
    kept = {name for name in names if not name.startswith(("SM_HP_", "SM_CHANNEL_"))} - {"SIZE"}
    assert kept == given


def test_every_variable_that_is_read() -> None:
    code = "".join(path.read_text() for path in (ROOT / "runtime/optml/training").glob("*.py"))
    code += (ROOT / "runtime/optml/paths.py").read_text()
    read = set(
        re.findall(r'(?:environ(?:ment)?\.get\(|setting\(|^\w+ = )"([A-Z][A-Z0-9]+_[A-Z_0-9]+)"', code, re.M)
    )
    assert len(read) > 12
    assert read <= listed("Variables that the runtime reads")


def test_every_field_of_the_job() -> None:
    properties = {name for name, value in vars(Job).items() if isinstance(value, property)}
    assert set(Job.__annotations__) | properties <= listed("`import optml`")


def test_the_ports() -> None:
    ports = {environment.MASTER_PORT, str(rendezvous.PORT)}
    assert ports == set(re.findall(r"^\| (\d+) \|", DOCS, re.M))


def test_every_file_of_the_layout() -> None:
    page = (ROOT / "docs/architecture-training.md").read_text()
    drawn = set(re.findall(r"\w+\.py", page.partition("```")[2].partition("```")[0]))
    there = {path.name for path in (ROOT / "runtime/optml/training").glob("*.py")}
    assert there - {"__init__.py", "record.py"} <= drawn
