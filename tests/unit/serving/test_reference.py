"""docs/serving.md matches the code: it lists every variable, handler, route and codec, and no other."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace
from typing import Any

import pytest

from optml import gpus
from optml.serving import admin
from optml.serving.model import codecs, handlers
from optml.serving.model.context import Context, ToolkitContext
from optml.serving.scoreboard import Scoreboard
from tests.support.matrix import ROOT
from tests.unit.serving.test_settings import _variables

PAGE = (ROOT / "docs/serving.md").read_text()


def first_cells(heading: str) -> set[str]:
    """The code spans in the first column of the tables below a heading, up to the next one."""
    section = re.split(r"^#+ ", PAGE.partition(f"# {heading}\n")[2], maxsplit=1, flags=re.M)[0]
    rows = re.findall(r"^\| (`[^|]*)\|", section, re.M)
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


def test_every_variable_is_documented() -> None:
    assert first_cells("Variables") == set(_variables())


def test_every_handler_is_documented_with_its_arguments() -> None:
    documented = {}
    for signature in first_cells("Handlers"):
        name, _, arguments = signature.rstrip(")").partition("(")
        documented[name] = len(arguments.split(",")) if arguments else 0
    assert documented == handlers._ARGUMENTS


def test_every_route_is_documented() -> None:
    described = json.loads((ROOT / "runtime/optml/serving/openapi.json").read_text())["paths"]
    routes = {f"{method.upper()} {path}" for path, item in described.items() for method in item}
    assert first_cells("Routes") == {route for route in routes if "PARAMETERS" not in route}


def test_every_metric_is_documented(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "memory", lambda: [gpus.Gpu(0, "GPU-0", memory=2, used=1)])
    worker: Any = SimpleNamespace(
        scoreboard=Scoreboard(1), slots=SimpleNamespace(count=1), settings=SimpleNamespace(gpus=["0"])
    )
    lines = admin._metrics(worker)
    assert first_cells("Metrics and logs") == {line.split()[2] for line in lines if line.startswith("# TYPE")}


def test_every_codec_is_documented() -> None:
    assert first_cells("Codecs") == set(codecs.DECODERS)
    carried = {
        row
        for row, cell in re.findall(r"^\| `([a-z-]+/[^`]+)` \|.*\| (.+) \|$", PAGE, re.M)
        if cell[:2] != "no"
    }
    assert carried == set(codecs.ENCODERS)


def test_every_name_of_the_context_is_documented() -> None:
    own = {name for name in (*Context.__slots__, *vars(Context)) if not name.startswith("_")}
    assert first_cells("The context") == own
    toolkit = {name for name in vars(ToolkitContext) if not name.startswith("_")}
    processor = {"get_request_property", "get_request_properties", "add_response_property", "report_status"}
    assert all(f"`{name}`" in PAGE for name in toolkit - processor)
