"""Whether user ml can serve, tested in a child process."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

import optml
from optml import paths
from optml.serving import privilege
from optml.serving.settings import Settings

_TRY = """
import os
from optml.serving import privilege
privilege.become = lambda uid, home: None
privilege._unreadable = lambda folder: {unreadable}
{further}
print(ascii(privilege._why_not(1000, "/", ["/opt/ml/model"])))
"""


def try_out(unreadable: str, further: str = "") -> str:
    """What is printed if `unreadable` is what ml cannot read, by each process that gets that far."""
    return subprocess.run(
        [sys.executable, "-c", _TRY.format(unreadable=unreadable, further=further)],
        env={"PYTHONPATH": f"{optml.__path__[0]}/.."},
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout


def test_a_name_that_is_no_utf_8_is_told_as_any_other() -> None:
    assert try_out(r'iter(["/opt/ml/model/\udcff"])') == r"'cannot read /opt/ml/model/\\udcff'" + "\n"


def test_who_cannot_be_tried_out_does_not_serve() -> None:
    assert try_out("1 / 0") == "'could not be tested'\n"


def test_ml_serves_where_it_can_read_all() -> None:
    assert try_out("iter([])") == "''\n"


def test_who_cannot_be_told_to_stop_does_not_serve() -> None:
    """As in a container with CAP_SETUID and CAP_SETGID, but without CAP_KILL."""
    kill = (
        "def kill(child, number): os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT); raise PermissionError"
    )
    further = f"{kill}\nos.kill = kill"
    assert try_out("iter([])", further) == "'cannot be signalled (without CAP_KILL)'\n"
    assert try_out('iter(["/a"])', further) == "'cannot read /a'\n"


def test_ml_must_be_able_to_read_the_code_of_an_application(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at: list[str] = []
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(pwd, "getpwnam", lambda name: pwd.getpwuid(os.getuid()))
    monkeypatch.setattr(paths, "CODE", str(tmp_path))
    monkeypatch.setattr(privilege, "_why_not", lambda uid, home, folders: looked_at.extend(folders))
    settings = Settings({"SAGEMAKER_SERVING_MODULE": "app"})
    assert privilege.decide_user(settings, None) is not None
    assert looked_at == [paths.MODEL, str(tmp_path)]  # there is no code beside the model
