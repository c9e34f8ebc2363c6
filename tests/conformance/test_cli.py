"""The check's command line: its exit codes, what it writes, and that it leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
import uuid
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock
from xml.etree import ElementTree

import pytest
import requests
from docker.errors import APIError

from conformance import cli, engine, report
from conformance.clause import CLAUSES, LEVELS, Broken, Clause, NotChecked
from conformance.clauses import image as image_clauses
from conformance.report import Result
from tests.support.docker import docker
from tests.support.matrix import ROOT


def clause(name: str = "T-1", **changes: Any) -> Clause:
    fields = {
        "sentence": "It holds",
        "level": "required",
        "source": "https://a",
        "remedy": "Mend it",
        "verb": None,
    }
    return Clause(name, **{**fields, "slow": False, "check": lambda subject: None, **changes})  # type: ignore[arg-type]


RESULTS = [
    Result(clause("A-1"), "kept", "", 0.5),
    Result(clause("B-1"), "broken", "saw <this> & \x00\x1b[31m", 1.0),
    Result(clause("C-1"), "not checked", "no label", 0.0),
]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "name the image"),
        (["a", "--only=T-NONE"], "there is no clause T-NONE"),
        (["a", "--model=/no/such/folder"], "/no/such/folder is not a folder"),
        (["a", "--payload=/no/such/file"], "/no/such/file is not a file"),
        (["a", "--env=NAME"], "'NAME' is not NAME=VALUE"),
    ],
)
def test_a_wrong_command_line_ends_with_2_and_one_line(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert end.value.code == 2
    assert words in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"DOCKER_HOST": "unix:///no/such/socket"}, "no Docker Engine answers; mount its socket"),
        ({}, "there is no image optml-no-such-image:ever on this engine"),
    ],
)
def test_no_engine_or_image_ends_with_2(environment: dict[str, str], words: str) -> None:
    command = [ROOT / "scripts/check", "optml-no-such-image:ever"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
    assert done.returncode == 2
    assert words in done.stderr.splitlines()[-1]


@pytest.mark.image("check")
@pytest.mark.one_variant
def test_a_socket_that_may_not_be_used_is_no_socket_that_is_not_there(image: str) -> None:
    socket = "/var/run/docker.sock:/var/run/docker.sock"
    done = docker("run", "--rm", "--user=12345:12345", "-v", socket, image, image, check=False)
    assert done.code == 2
    assert "run as root or with the socket's group" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("number", engine.STOPS)
def test_a_stop_while_modules_load_ends_in_silence(number: signal.Signals, tmp_path: Path) -> None:
    (tmp_path / "docker.py").write_text(f"import os, time\nos.kill(os.getpid(), {number})\ntime.sleep(20)\n")
    paths = f"{tmp_path}:{ROOT / 'images/check'}"
    command = [sys.executable, "-m", "conformance", "--list"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths})
    assert (done.returncode, done.stdout, done.stderr) == (128 + number, "", "")


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (APIError("x", explanation="no such command"), "broken"),
        (TimeoutError("timed out"), "broken"),
        (tarfile.ReadError("truncated"), "broken"),
        (requests.ConnectionError("the engine is gone"), None),
    ],
)
def test_an_engine_that_is_gone_breaks_no_clause(error: Exception, state: str | None) -> None:
    with nullcontext() if state else pytest.raises(type(error)):
        result = cli._result(clause(check=Mock(side_effect=error)), None)  # type: ignore[arg-type]
        assert result.state == state


def test_junit_has_each_clause_once() -> None:
    suite = ElementTree.fromstring(report.as_junit("an-image", RESULTS))
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("3", "1", "1")
    failure = suite.find("testcase/failure")
    assert failure is not None and failure.get("message") == "saw <this> &   [31m"
    assert failure.text == "Mend it\nhttps://a"


def test_json_has_what_the_table_has() -> None:
    found = json.loads(report.as_json("an-image", RESULTS))
    assert found["image"] == "an-image"
    assert [(c["id"], c["state"]) for c in found["clauses"]] == [
        ("A-1", "kept"),
        ("B-1", "broken"),
        ("C-1", "not checked"),
    ]
    documented = re.findall(r"^\| `clauses\[\].(\w+)` \|", (ROOT / "docs/check.md").read_text(), re.M)
    assert [list(c) for c in found["clauses"]] == [documented] * 3


def test_the_table_says_what_to_do_and_has_no_colour_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    report.write_table("an-image", RESULTS)
    out = capsys.readouterr().out
    assert "→ Mend it" in out
    assert "1 kept, 1 broken, 1 not checked" in out
    assert "\x1b" not in out


def test_every_clause_is_complete() -> None:
    for c in CLAUSES:
        assert c.level in LEVELS
        assert c.source.startswith("https://")
        assert c.remedy.endswith((".", "+")) and not c.sentence.endswith("."), c.id


@pytest.mark.parametrize(
    ("check", "attributes"),
    [
        (image_clauses.size, {"Size": 11e9}),
        (image_clauses.layers, {"RootFS": {"Layers": ["x"] * 61}}),
    ],
)
def test_images_too_large_to_build_here(check: Any, attributes: dict[str, Any]) -> None:
    with pytest.raises(Broken):
        check(SimpleNamespace(image=SimpleNamespace(attrs=attributes)))


@pytest.mark.parametrize(
    ("line", "secret"),
    [
        ("ENV AWS_SECRET_ACCESS_KEY={}", "abcdefgh"),
        ("RUN pip install --index-url https://user:{}@example.com/simple", "hunter22"),
        ("RUN echo AKIAABCDEF{}", "GHIJKLMNOP"),
    ],
)
def test_secrets_in_history(line: str, secret: str) -> None:
    image = SimpleNamespace(history=lambda: [{"CreatedBy": line.format(secret)}])
    with pytest.raises(Broken) as error:
        image_clauses.no_secret_in_history(SimpleNamespace(image=image, config={}, labels={}))  # type: ignore[arg-type]
    assert secret not in str(error.value)


def test_a_clause_that_cannot_be_checked_is_no_failure() -> None:
    result = cli._result(clause(check=Mock(side_effect=NotChecked("no label"))), None)  # type: ignore[arg-type]
    assert (result.state, result.seen) == ("not checked", "no label")


@pytest.mark.image("cpu-serve")
@pytest.mark.one_variant
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_check_that_is_stopped_leaves_nothing_behind(image: str, number: signal.Signals, code: int) -> None:
    own_name = f"optml-stopped:{uuid.uuid4().hex}"
    docker("tag", image, own_name)
    try:
        checking = subprocess.Popen([ROOT / "scripts/check", own_name], stderr=subprocess.PIPE, text=True)
        run = _run_of(own_name)
        checking.send_signal(number)
        _, words = checking.communicate(timeout=120)
    finally:
        docker("rmi", own_name)
    assert checking.returncode == code, words
    label = ("--quiet", "--filter", f"label=optml.check={run}")
    assert docker("ps", "--all", *label).stdout + docker("volume", "ls", *label).stdout == ""


@pytest.mark.parametrize("number", engine.STOPS)
def test_a_stop_waits_for_what_is_being_made(number: signal.Signals) -> None:
    """The check removes what the engine lists, and the engine lists a container only once it is made."""
    made = []

    def create(*arguments: Any, **options: Any) -> Mock:
        signal.raise_signal(number)
        made.append("container")
        return Mock()

    own = engine.Engine.__new__(engine.Engine)
    own.client, own.run = Mock(), "a-run"
    own.client.containers.create = create
    before = signal.signal(number, lambda *_: sys.exit(1))
    try:
        with pytest.raises(SystemExit):
            own.create("an-image")
    finally:
        signal.signal(number, before)
    assert made == ["container"]


@pytest.mark.parametrize("number", [409, 500])
def test_a_removal_that_goes_on_is_waited_for_and_any_other_error_is_told(number: int) -> None:
    """A volume cannot be removed before its container."""
    container = Mock()
    container.remove.side_effect = APIError("removal is in progress", SimpleNamespace(status_code=number))
    with nullcontext() if number == 409 else pytest.raises(APIError):
        engine.remove(container)
    assert container.wait.called == (number == 409)


def _run_of(image: str) -> str:
    """The label on the containers of the check of this image, once there is one."""
    deadline = time.monotonic() + 60
    while True:
        shown = docker("ps", "--all", "--format", '{{.Image}} {{.Label "optml.check"}}').stdout
        for name, _, run in (line.partition(" ") for line in shown.splitlines()):
            if name == image:
                return run
        assert time.monotonic() < deadline, shown
        time.sleep(0.1)


def test_the_documents_list_every_clause(capsys: pytest.CaptureFixture[str]) -> None:
    """docs/check.md has the table that --list prints."""
    assert cli.main(["--list"]) == 0
    assert capsys.readouterr().out in (ROOT / "docs/check.md").read_text()
