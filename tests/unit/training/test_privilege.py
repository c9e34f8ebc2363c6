"""How a program runs as another user: through setpriv, as the owner of what it writes."""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from typing import Any

import pytest

from optml.report import UserError
from optml.training import phases, privilege
from optml.training.launchers import Launch, launch
from tests.unit.training.conftest import a_job, a_program

NOBODY = pwd.getpwnam("nobody")


@pytest.fixture
def owners(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[int, int]]:
    """The owner that each path gets, as root, with checkpoints among which a link leads out of them."""
    checkpoints = tmp_path / "checkpoints"
    (checkpoints / "epoch").mkdir(parents=True)
    (checkpoints / "epoch/1").touch()
    (tmp_path / "shadow").touch()
    (checkpoints / "link").symlink_to(tmp_path / "shadow")
    owners: dict[str, tuple[int, int]] = {}

    def chown(path: str, user: int, group: int, *, follow_symlinks: bool = True) -> None:
        owners[os.path.realpath(path) if follow_symlinks else os.path.normpath(path)] = user, group

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "chown", chown)
    monkeypatch.setattr(privilege, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(privilege, "_WRITTEN", (f"{tmp_path}/model",))
    monkeypatch.setattr(privilege.paths, "CHECKPOINTS", str(checkpoints))
    return owners


@pytest.mark.parametrize("name", ["nobody", str(NOBODY.pw_uid)])
def test_it_has_no_privileges_and_cannot_gain_any(owners: Any, name: str) -> None:
    argv, environment = privilege.drop(["train", "x"], {"SAGEMAKER_TRAINING_USER": name, "HOME": "/root"})
    assert argv[0] == "/usr/bin/setpriv"
    assert set(argv[1:-3]) == {
        *[f"--reuid={NOBODY.pw_uid}", f"--regid={NOBODY.pw_gid}", "--init-groups"],
        *["--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"],
    }
    assert argv[-3:] == ["--", "train", "x"]
    assert [environment[name] for name in ("HOME", "USER", "LOGNAME")] == [NOBODY.pw_dir, "nobody", "nobody"]


def test_it_owns_what_it_writes_and_no_target_of_a_link(
    owners: dict[str, tuple[int, int]], tmp_path: Path
) -> None:
    privilege.drop(["train"], {"SAGEMAKER_TRAINING_USER": "nobody"})
    parts = ("model", "checkpoints", "checkpoints/epoch", "checkpoints/epoch/1", "checkpoints/link")
    assert owners == {f"{tmp_path}/{part}": (NOBODY.pw_uid, NOBODY.pw_gid) for part in parts}


def test_the_checkpoints_are_those_of_the_job(owners: dict[str, tuple[int, int]], tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/1").touch()
    user = {"SAGEMAKER_TRAINING_USER": "nobody"}
    launch(a_job(checkpoint_dir=f"{tmp_path}/mine"), a_program(), [], user)
    assert sorted(owners) == [f"{tmp_path}/{part}" for part in ("mine", "mine/1", "model")]


def test_the_user_owns_the_pipes_so_that_the_program_can_open_its_stderr(
    owners: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owners: dict[int, tuple[int, int]] = {}

    def fchown(fd: int, user: int, group: int) -> None:
        owners[fd] = user, group
        raise PermissionError

    def execvpe(*_: object) -> None:
        raise FileNotFoundError(2, "not here")

    monkeypatch.setattr(os, "fchown", fchown)
    monkeypatch.setattr(os, "execvpe", execvpe)
    reader, stderr = os.pipe()
    start = Launch(engine="process", argv=["x"], environment={"SAGEMAKER_TRAINING_USER": "nobody"})
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="cannot start x"):
        phases._become(start, ["x"], str(tmp_path), stderr)
    assert owners.pop(stderr) == (NOBODY.pw_uid, NOBODY.pw_gid)
    assert set(owners) <= {1}
    with open(tmp_path / "log", "w") as log:
        owners.clear()
        privilege.give_pipes("nobody", log.fileno())
    assert owners == {}
    os.close(reader)
    os.close(stderr)


def test_the_current_user_needs_nothing(owners: Any) -> None:
    variables = {"SAGEMAKER_TRAINING_USER": "root"}
    assert privilege.drop(["train"], variables) == (["train"], variables)
    assert owners == {}


@pytest.mark.parametrize(("user", "setpriv"), [(1000, "/usr/bin/setpriv"), (0, None)])
def test_a_user_that_cannot_become_another_is_an_error(
    owners: Any, monkeypatch: pytest.MonkeyPatch, user: int, setpriv: str | None
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setattr(privilege, "which", lambda _: setpriv)
    with pytest.raises(UserError, match="cannot become SAGEMAKER_TRAINING_USER=nobody: that needs root"):
        privilege.drop(["train"], {"SAGEMAKER_TRAINING_USER": "nobody"})
