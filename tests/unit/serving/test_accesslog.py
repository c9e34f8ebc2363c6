from __future__ import annotations

import json
import os
import select
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from optml.serving.journal import Journal, pieces
from optml.serving.scoreboard import Scoreboard


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The end of a pipe to read the log from."""
    reader, writer = os.pipe()
    write = os.write
    monkeypatch.setattr(os, "write", lambda number, data: write(writer if number == 2 else number, data))
    yield reader
    os.close(reader)
    os.close(writer)


def journal(kind: str) -> Journal:
    return Journal(Scoreboard(1), 0, kind)


def request(method: str, path: str) -> Any:
    return SimpleNamespace(method=method, path=path)


@given(some.lists(some.binary(max_size=6000).map(lambda text: text.replace(b"\n", b"") + b"\n")))
def test_pieces_are_whole_lines_in_order_that_a_pipe_takes_whole(lines: list[bytes]) -> None:
    found = list(pieces(b"".join(lines)))
    assert b"".join(found) == b"".join(lines)
    assert all(piece.endswith(b"\n") for piece in found)
    assert all(len(piece) <= 4096 or piece.count(b"\n") == 1 for piece in found)


def test_many_lines_are_few_pieces() -> None:
    assert len(list(pieces(b"x" * 99 + b"\n"))) == 1
    assert len(list(pieces((b"x" * 63 + b"\n") * 640))) == 10


def test_a_line_of_text(written: int) -> None:
    log = journal("text")
    log.note(request("POST", "/invocations"), 200, "id-1", 0.0123, 0.002, 0.01)
    log.note(request("GET", "/a\nb"), 404, "id-2")
    log.flush()
    assert os.read(written, 9999).decode().splitlines() == [
        "optml: POST /invocations 200 12.3 ms (queue 2.0, model 10.0) id-1",
        "optml: GET '/a\\nb' 404 0.0 ms (queue 0.0, model 0.0) id-2",
    ]


def test_a_line_of_json(written: int) -> None:
    log = journal("json")
    log.note(request("POST", "/invocations"), 200, "id-1", 0.0123, 0.002, 0.01)
    log.flush()
    line = json.loads(os.read(written, 9999))
    assert line.pop("time").endswith("Z")
    assert line == {"method": "POST", "path": "/invocations", "status": 200, "ms": 12.3, "queue_ms": 2.0,
                    "model_ms": 10.0, "request_id": "id-1"}  # fmt: skip


def test_off_writes_nothing_and_starts_no_thread(written: int) -> None:
    log = journal("off")
    log.note(request("POST", "/invocations"), 200, "id-1")
    log.flush()
    assert not select.select([written], [], [], 0)[0]


def test_lines_are_written_without_being_asked_for(written: int) -> None:
    journal("text").note(request("GET", "/"), 200, "id")
    assert select.select([written], [], [], 5)[0]
    assert os.read(written, 9999).startswith(b"optml: GET / 200")
