"""Every shape of project, installed by the real pip and by the real uv, without a network."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from optml.report import UserError
from optml.training import program, requirements
from tests.support.wheels import wheel
from tests.unit.training.conftest import Ml, a_program

UV = shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
BUILD = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
BACKEND = """
import pathlib, shutil
def build_wheel(directory, settings=None, metadata=None):
    return shutil.copy(next(pathlib.Path("dist").glob("*.whl")), directory).rpartition("/")[2]
build_editable = build_wheel
"""


@pytest.fixture(scope="module")
def virtual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with pip in it."""
    directory = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", directory], check=True, timeout=120)
    return directory


@pytest.fixture(params=["pip", "uv"])
def installer(request: pytest.FixtureRequest, virtual: Path, ml: Ml, monkeypatch: pytest.MonkeyPatch) -> str:
    """The installer on PATH; what it installs is removed for the next test."""
    name = str(request.param)
    path = ml.root.parent / "bin"
    path.mkdir()
    if name == "uv":
        assert UV
        (path / "uv").symlink_to(UV)
    monkeypatch.setenv("PATH", f"{virtual}/bin:{path}:/usr/bin:/bin")
    site = next(virtual.glob("lib/python3*/site-packages"))
    there = set(site.iterdir())
    request.addfinalizer(
        lambda: [
            shutil.rmtree(each) if each.is_dir() else each.unlink() for each in set(site.iterdir()) - there
        ]
    )
    return name


def train(ml: Ml, files: dict[str, str], program: str = "train.py") -> subprocess.CompletedProcess[str]:
    (ml.root / "code/wheels").mkdir(exist_ok=True)
    for name, text in files.items():
        ml.code(name, text)
    offline = {"PIP_NO_INDEX": "1", "UV_OFFLINE": "1", "UV_NO_INDEX": "1", "UV_CACHE_DIR": f"{ml.root}/cache"}
    links = {"PIP_FIND_LINKS": f"{ml.root}/code/wheels", "UV_FIND_LINKS": f"{ml.root}/code/wheels"}
    return ml.train(SAGEMAKER_PROGRAM=program, PATH=os.environ["PATH"], **offline, **links)


def put_wheel(ml: Ml, name: str, folder: str = "wheels", **modules: str) -> str:
    """A wheel in a folder beside the code; its sha256."""
    directory = ml.root / "code" / folder
    directory.mkdir(exist_ok=True)
    file = wheel(directory, name, **modules)
    return hashlib.sha256((directory / file).read_bytes()).hexdigest()


def pyproject(*dependencies: str, build: str = "") -> str:
    return f'[project]\nname = "mine"\nversion = "1"\ndependencies = {list(dependencies)!r}\n{build}'


USE = "import one; print(one.NAME)"


@pytest.mark.parametrize(
    ("listed", "files"),
    [
        ("one", {}),
        ("./wheels/one-1.0-py3-none-any.whl", {}),
        ("one\n-c constraints.txt", {"constraints.txt": "one==1.0\n"}),
        ("--no-index\n--find-links wheels\none", {}),
        ("-r base.txt", {"base.txt": "one"}),
        # It would break pip if imported instead of Python's own.
        (
            "one",
            {
                "logging.py": "raise SystemExit(9)",
                "email/__init__.py": "raise SystemExit(9)",
                "pip.py": "1/0",
            },
        ),
    ],
    ids=["name", "wheel beside", "constraints", "index options", "another file", "shadows"],
)
def test_requirements(ml: Ml, installer: str, listed: str, files: dict[str, str]) -> None:
    put_wheel(ml, "one")
    done = train(ml, {"requirements.txt": listed, "train.py": USE, **files})
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("one\n")
    assert f"optml: installing requirements.txt with {installer}" in done.stderr


@pytest.mark.parametrize("listed", ["one==1.0 --hash=sha256:{hash}", "one\n-e .", "one\n."])
def test_requirements_and_the_package(ml: Ml, installer: str, listed: str) -> None:
    listed = listed.format(hash=put_wheel(ml, "one"))
    put_wheel(ml, "mine", "dist", mine_train="import one, mine; print(one.NAME, mine.NAME)")
    files = {
        "requirements.txt": listed,
        "pyproject.toml": pyproject("one", build=BUILD),
        "backend.py": BACKEND,
    }
    done = train(ml, files, "mine_train")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("one mine\n")


def test_a_project_that_is_not_a_package(ml: Ml, installer: str) -> None:
    put_wheel(ml, "one")
    files = {"pyproject.toml": pyproject("one"), "train.py": USE, "models/a.py": "", "data/b.csv": ""}
    done = train(ml, files)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("one\n")
    assert "optml: installing the dependencies of pyproject.toml with" in done.stderr


def test_a_package_under_src(ml: Ml, installer: str) -> None:
    put_wheel(ml, "one")
    put_wheel(ml, "mine", "dist", **{"pk/__init__": "", "pk/train": "from . import __name__ as n; print(n)"})
    files = {"pyproject.toml": pyproject(build=BUILD), "backend.py": BACKEND, "src/pk/train.py": ""}
    done = train(ml, files, "src/pk/train.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("pk\n")
    assert "optml: installing the package with" in done.stderr


def uv_to_be_fetched(ml: Ml) -> None:
    """A wheel of uv that calls the installed uv."""
    with zipfile.ZipFile(ml.root / "code/wheels/uv-1.0-py3-none-any.whl", "w") as archive:
        script = zipfile.ZipInfo("uv-1.0.data/scripts/uv")
        script.external_attr = 0o100755 << 16
        archive.writestr(script, f'#!/bin/sh\nexec {UV} "$@"\n')
        archive.writestr("uv-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: uv\nVersion: 1.0\n")
        archive.writestr(
            "uv-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("uv-1.0.dist-info/RECORD", "")


def test_a_lock_file_of_uv(ml: Ml, installer: str, virtual: Path) -> None:
    """It is installed as locked, without development dependencies; the image's packages stay."""
    put_wheel(ml, "one")
    put_wheel(ml, "two")
    uv_to_be_fetched(ml)
    site = next(virtual.glob("lib/python3*/site-packages"))
    with zipfile.ZipFile(ml.root / wheel(ml.root, "baked")) as archive:
        archive.extractall(site)
        record = "".join(f"{name},,\n" for name in archive.namelist())
        (site / "baked-1.0.dist-info/RECORD").write_text(record)
    settings = '[tool.uv]\nfind-links = ["wheels"]\nno-index = true\n[dependency-groups]\ndev = ["two"]\n'
    ml.code("pyproject.toml", pyproject("one") + settings)
    assert UV
    lock = [UV, "lock", "--offline", "--python", sys.executable, "--cache-dir", f"{ml.root}/cache"]
    subprocess.run(lock, cwd=ml.root / "code", check=True, capture_output=True, timeout=60)
    ml.code("pyproject.toml", pyproject("one", "two") + settings)  # edited since, but not locked again
    use = "import baked, one; from importlib.util import find_spec; print(one.NAME, find_spec('two'))"
    done = train(ml, {"train.py": use})
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("one None\n")
    assert f"optml: installing uv.lock with {installer}" in done.stderr


def test_the_users_own_installer_settings_are_used(ml: Ml, tmp_path: Path) -> None:
    uv = tmp_path / "bin/uv"
    uv.parent.mkdir()
    uv.write_text("#!/bin/sh\necho link:$UV_LINK_MODE, downloads:$UV_PYTHON_DOWNLOADS\n")
    uv.chmod(0o755)
    ml.code("requirements.txt", "x")
    ml.code("train.py", "")
    done = ml.train(PATH=f"{uv.parent}:{os.environ['PATH']}", UV_LINK_MODE="symlink")
    assert "link:symlink, downloads:never" in done.stdout + done.stderr


def test_a_package_beside_a_lock_file_installs_nothing_unlocked(tmp_path: Path) -> None:
    (tmp_path / "setup.py").touch()
    (tmp_path / "pylock.toml").touch()
    locked, package = program.steps(str(tmp_path))
    assert (locked.words, package.words) == (["-r", "pylock.toml"], ["--no-deps", "."])
    assert (locked.only_uv, package.only_uv) == (True, False)


def test_a_lock_file_of_any_tool(ml: Ml, installer: str) -> None:
    digest = put_wheel(ml, "one")
    uv_to_be_fetched(ml)
    lock = f"""lock-version = "1.0"
created-by = "me"
[[packages]]
name = "one"
version = "1.0"
[[packages.wheels]]
path = "wheels/one-1.0-py3-none-any.whl"
hashes = {{ sha256 = "{digest}" }}
"""
    done = train(ml, {"pylock.toml": lock, "train.py": USE})
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("one\n")


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"requirements.txt": "absent-package==9"}, ["install requirements.txt in", "absent-package"]),
        ({"requirements.txt": "one==1.0 --hash=sha256:" + "0" * 64}, ["one==1.0", "ash"]),
        ({"requirements.txt": "one\none==2"}, ["one==2"]),
        ({"requirements.txt": "-r base.txt"}, ["base.txt"]),
        ({"requirements.txt": "one two"}, ["one two"]),
        (
            {
                "pyproject.toml": pyproject(build=BUILD),
                "backend.py": "def build_wheel(*_):\n    raise ValueError('no compiler')",
            },
            ["install the package in", "ValueError: no compiler"],
        ),
        (
            {"pyproject.toml": "[project]\ndependencies = "},
            ["pyproject.toml is invalid", "correct it"],
        ),
        (
            {"pyproject.toml": pyproject("absent-package")},
            ["the dependencies of pyproject.toml", "absent-package"],
        ),
    ],
    ids=["absent", "hash", "conflict", "no file", "syntax", "build", "no toml", "dependency"],
)
def test_a_failure_is_reported_in_one_line(
    ml: Ml, installer: str, files: dict[str, str], words: list[str]
) -> None:
    put_wheel(ml, "one")
    done = train(ml, {"train.py": "print('never')", **files})
    assert (done.returncode, done.stdout.count("never")) == (1, 0)
    assert "\n" not in ml.failure
    assert [word for word in words if word not in ml.failure] == [], ml.failure


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("error: externally-managed-environment\n", r"belongs to the system.*\(PEP 668\)"),
        ("error: The interpreter at /usr is externally managed, and indicates", r"belongs to the system"),
        ("/venv/python3: No module named pip", "has no pip; install pip or uv"),
        ("", "exit code 2; correct the project"),
    ],
)
def test_what_an_environment_lacks_is_reported(output: str, reason: str) -> None:
    import re

    assert re.search(reason, requirements._why(output, 2, a_program()))


def test_the_code_is_only_on_the_path_of_the_program(ml: Ml, installer: str) -> None:
    put_wheel(ml, "mine", "dist", mine_train="import helper")
    backend = BACKEND + "import os; assert os.getcwd() not in os.environ.get('PYTHONPATH', '').split(':')\n"
    files = {"pyproject.toml": pyproject(build=BUILD), "backend.py": backend, "helper.py": "print('helped')"}
    done = train(ml, files, "mine_train")
    assert done.stdout.endswith("helped\n"), done.stderr


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, []),
        ({"train.py": "", "data/x.csv": ""}, []),
        ({"pyproject.toml": "[tool.ruff]\n"}, []),
        ({"pyproject.toml": pyproject()}, []),
        ({"setup.py": ""}, ["the package"]),
        ({"pyproject.toml": BUILD, "requirements.txt": ""}, ["requirements.txt", "the package"]),
        ({"setup.py": "", "requirements.txt": "-e .  # itself\n"}, ["requirements.txt"]),
        ({"pyproject.toml": pyproject("a"), "requirements.txt": "", "uv.lock": ""}, ["requirements.txt"]),
        ({"pyproject.toml": pyproject("a"), "uv.lock": "", "pylock.toml": ""}, ["uv.lock"]),
        ({"pyproject.toml": BUILD, "pylock.toml": ""}, ["pylock.toml", "the package"]),
        ({"pyproject.toml": pyproject("a")}, ["the dependencies of pyproject.toml"]),
    ],
)
def test_the_chosen_steps(tmp_path: Path, files: dict[str, str], expected: list[str]) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert [step.what for step in program.steps(str(tmp_path))] == expected


def test_dependencies_that_are_not_strings_are_refused(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[project]\ndependencies = [1]\n")
    with pytest.raises(UserError, match="must be an array of strings"):
        program.steps(str(tmp_path))


def test_tasks_that_share_a_container_install_one_after_the_other(
    installer: str, virtual: Path, ml: Ml
) -> None:
    put_wheel(ml, "alpha")
    site = next(virtual.glob("lib/python3*/site-packages"))
    there = set(site.iterdir())
    folder = os.open(virtual, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)  # another task is installing
    with ThreadPoolExecutor(1) as threads:
        task = threads.submit(train, ml, {"requirements.txt": "alpha", "train.py": "import alpha"})
        time.sleep(3)
        assert set(site.iterdir()) == there and not task.done()
        os.close(folder)
        result = task.result(60)
    assert result.returncode == 0, result.stderr
    assert "another task in this container is installing: waiting for it" in result.stderr
