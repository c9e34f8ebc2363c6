"""Which program is started, and the error if there is none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from optml.report import UserError
from optml.training.program import find, is_package
from tests.unit.training.conftest import a_job


def put(directory: Path, *names: str, mode: int = 0o644) -> None:
    for name in names:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
        path.chmod(mode)


def argv(directory: Path, program: str | None) -> list[str]:
    words = find(a_job(program=program), str(directory)).argv
    return [os.path.basename(words[0]), *words[1:]]


def test_script(tmp_path: Path) -> None:
    put(tmp_path, "main.py")
    assert argv(tmp_path, "main.py") == ["python3", "main.py"]


def test_absolute_path_of_a_script(tmp_path: Path) -> None:
    put(tmp_path, "main.py")
    assert argv(tmp_path, f"{tmp_path}/main.py") == ["python3", "main.py"]


def test_script_in_a_folder(tmp_path: Path) -> None:
    put(tmp_path, "pkg/main.py")
    assert argv(tmp_path, "pkg/main.py") == ["python3", "pkg/main.py"]


@pytest.mark.parametrize("marker", ["setup.py", "pyproject.toml"])
def test_a_package_runs_as_a_module(tmp_path: Path, marker: str) -> None:
    put(tmp_path, "pkg/main.py", marker)
    (tmp_path / marker).write_text("[build-system]\n")
    assert argv(tmp_path, "pkg/main.py") == ["python3", "-m", "pkg.main"]


@pytest.mark.parametrize("text", ["[tool.ruff]\nline-length = 100\n", '[project]\nname = "x"\n'])
def test_settings_and_a_name_do_not_make_a_package(tmp_path: Path, text: str) -> None:
    (tmp_path / "pyproject.toml").write_text(text)
    assert not is_package(str(tmp_path))


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("./train.py", ["-m", "train"]),
        ("./pkg/../train.py", ["-m", "train"]),
        ("train.v2.py", ["train.v2.py"]),
        ("src/pkg/train.py", ["-m", "pkg.train"]),
    ],
)
def test_names_in_a_package(tmp_path: Path, program: str, words: list[str]) -> None:
    put(tmp_path, "setup.py", "train.py", "train.v2.py", "src/pkg/train.py", "pkg/x.py")
    assert argv(tmp_path, program) == ["python3", *words]


def test_a_script_outside_the_package_is_not_a_module_of_it(tmp_path: Path) -> None:
    put(tmp_path, "code/setup.py", "elsewhere/train.py")
    script = f"{tmp_path}/elsewhere/train.py"
    assert argv(tmp_path / "code", script) == ["python3", script]


@pytest.mark.parametrize("file", ["pkg/main.py", "pkg/main/__main__.py"])
def test_a_module_by_its_name(tmp_path: Path, file: str) -> None:
    tmp_path = tmp_path / "version.1"
    put(tmp_path, file)
    assert argv(tmp_path, "pkg.main") == ["python3", "-m", "pkg.main"]


def test_shell_script(tmp_path: Path) -> None:
    put(tmp_path, "run.sh")
    assert argv(tmp_path, "run.sh") == ["bash", "run.sh"]


@pytest.mark.parametrize("mode", [0o755, 0o644])
def test_an_executable_gets_its_permission_and_is_started_by_its_path(tmp_path: Path, mode: int) -> None:
    put(tmp_path, "run", mode=mode)
    program = find(a_job(program="run"), str(tmp_path))
    assert (program.name, program.argv) == ("run", [f"{tmp_path}/run"])
    assert os.access(tmp_path / "run", os.X_OK)


def test_a_command_on_path(tmp_path: Path) -> None:
    assert argv(tmp_path, "ls") == ["ls"]


def test_a_command_that_a_requirement_may_provide(tmp_path: Path) -> None:
    put(tmp_path, "requirements.txt")
    assert argv(tmp_path, "accelerate") == ["accelerate"]
    with pytest.raises(UserError):
        argv(tmp_path, "absent.py")


def test_a_function_of_a_framework(tmp_path: Path) -> None:
    found = find(a_job(training_module="frame.work:main"), str(tmp_path))
    assert found.argv[1:] == ["-c", "import frame.work; frame.work.main()"]


@pytest.mark.parametrize("name", ["train.py", "train", "train.sh"])
def test_a_single_default_program_is_run(tmp_path: Path, name: str) -> None:
    put(tmp_path, name, "helper.py")
    assert find(a_job(), str(tmp_path)).name.endswith(name)


def test_two_default_programs_are_ambiguous(tmp_path: Path) -> None:
    put(tmp_path, "train.py", "train.sh")
    with pytest.raises(UserError, match="SAGEMAKER_PROGRAM"):
        find(a_job(), str(tmp_path))


@pytest.mark.parametrize(
    ("files", "said"), [((), "is empty"), (("a.py", "b.py"), "holds a.py, b.py"), (None, "does not exist")]
)
def test_without_a_program_the_error_lists_the_directory(
    tmp_path: Path, files: tuple[str, ...] | None, said: str
) -> None:
    directory = tmp_path / "code"
    if files is not None:
        directory.mkdir()
        put(directory, *files)
    with pytest.raises(UserError, match=said):
        find(a_job(), str(directory))
    with pytest.raises(UserError, match=f"no program 'absent.py'.*{said}"):
        find(a_job(program="absent.py"), str(directory))
