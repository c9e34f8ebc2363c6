"""The serving image without a distribution: what it does like cpu-serve, and what it lacks."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import requests

from scripts.lib.image import exported
from tests.support.docker import HARDENED, Container, inspect, run, wait_for_ping
from tests.support.images import image_from, show_size
from tests.support.matrix import Cell

HANDLER = """
def model_fn(model_dir):
    return 2
def predict_fn(data, model):
    return [model * x for x in data]
"""


@pytest.fixture(scope="session")
def files(cell: Cell) -> list[str]:
    """All files and links of the image: a link can be a program, too."""
    with exported(cell.tag) as tar:
        return [f"/{member.name}" for member in tar if not member.isdir()]


def python(cell: Cell, script: str, *options: str) -> str:
    result = run(cell.tag, "/usr/bin/python3", "-c", script, options=options)
    assert result.code == 0, result.output
    return result.stdout


def test_serves_without_any_right_and_is_healthy(cell: Cell, ml: Path) -> None:
    (ml / "model/code").mkdir()
    (ml / "model/code/inference.py").write_text(HANDLER)
    options = (*HARDENED, f"--volume={ml}:/opt/ml:ro", "--health-interval=1s", "--health-start-period=0s")
    with Container(cell.tag, options=options) as server:
        url = wait_for_ping(server)
        answer = requests.post(f"{url}/invocations", json=[1, 2, 3], timeout=20)
        assert (answer.status_code, answer.json()) == (200, [2, 4, 6])
        server.wait_until_healthy()


def test_is_not_healthy_without_a_server(cell: Cell) -> None:
    check = inspect(cell.tag)["Config"]["Healthcheck"]["Test"]
    with Container(cell.tag, "python3", "-c", "import time; time.sleep(60)") as container:
        assert container.exec(*check[1:], check=False).code != 0


def test_is_configured_as_cpu_serve_is(cell: Cell) -> None:
    slim, full = (inspect(tag)["Config"] for tag in (cell.tag, cell.tag.replace("slim-serve", "cpu-serve")))
    for key in ("Env", "Entrypoint", "Cmd", "ExposedPorts", "WorkingDir", "User", "Healthcheck"):
        assert slim[key] == full[key]
    capabilities = {key: value for key, value in full["Labels"].items() if "sagemaker" in key}
    assert capabilities.items() <= slim["Labels"].items()


def test_train_and_serve_are_on_path(cell: Cell) -> None:
    script = "import shutil; print(shutil.which('train'), shutil.which('serve'))"
    assert python(cell, script) == "/usr/local/bin/train /usr/local/bin/serve\n"


def test_has_nothing_that_serving_does_not_need(files: list[str]) -> None:
    programs = {Path(name).name for name in files if "/bin/" in name or "/sbin/" in name}
    absent = {"apt", "apt-get", "dpkg", "perl", "bash", "pip", "ls", "mount", "su", "ldconfig", "tar"}
    assert not programs & absent
    assert not [name for name in files if "perl" in name or name.startswith("/var/lib/apt")]


def test_every_library_that_something_links_is_there(cell: Cell) -> None:
    script = """
import ctypes, glob
for pattern in ("/usr/lib/*/*.so.*", "/usr/lib/python3*/lib-dynload/*.so", "/opt/optml/deps/**/*.so"):
    for library in glob.glob(pattern, recursive=True):
        ctypes.CDLL(library)
import ssl, sqlite3, lzma, bz2, zlib, ctypes, decimal, hashlib, uuid, multiprocessing, zoneinfo
ctypes.CDLL("libgomp.so.1"), ctypes.CDLL("libstdc++.so.6")
assert ssl.create_default_context().get_ca_certs()
print(zoneinfo.ZoneInfo("Europe/Berlin"))
"""
    assert python(cell, script) == "Europe/Berlin\n"


def test_a_module_of_python_that_imports_in_cpu_serve_imports_here(cell: Cell) -> None:
    script = """
import importlib, sys
for name in sorted(sys.stdlib_module_names - {"this", "antigravity"}):
    try:
        importlib.import_module(name)
    except Exception:
        print(name)
"""
    full = run(cell.tag.replace("slim-serve", "cpu-serve"), "python3", "-W", "ignore", "-c", script)
    # What needs a terminal, Berkeley DB or NIS, and what only developers read.
    left_out = {"_curses", "_curses_panel", "curses", "readline", "_dbm", "nis", "lib2to3", "pydoc_data"}
    assert set(python(cell, script).split()) - set(full.stdout.split()) <= left_out


def test_a_scanner_sees_its_packages_and_a_reader_their_licences(cell: Cell) -> None:
    script = """
import os, pathlib
packages = os.listdir("/var/lib/dpkg/status.d")
print(*packages)
for package in packages:
    text = pathlib.Path("/var/lib/dpkg/status.d", package).read_text()
    assert text.startswith(f"Package: {package}\\n") and "\\nVersion: " in text
    assert pathlib.Path("/usr/share/doc", package, "copyright").stat().st_size
assert pathlib.Path("/opt/optml/NOTICE").stat().st_size
"""
    assert {"libc6", "python3", "tzdata", "dash"} <= set(python(cell, script).split())


def test_is_within_its_budget_also_compressed(cell: Cell) -> None:
    show_size(cell)
    saved = subprocess.run(["docker", "save", cell.tag], capture_output=True, check=True).stdout
    assert len(subprocess.run(["gzip"], input=saved, capture_output=True, check=True).stdout) <= 22_000_000


def test_a_venv_that_was_filled_in_cpu_serve_works_here(cell: Cell, tmp_path: Path) -> None:
    (tmp_path / "inference.py").write_text(HANDLER.replace("return 2", "import helper; return helper.FACTOR"))
    dockerfile = f"""
FROM {cell.tag.replace("slim-serve", "cpu-serve")} AS build
RUN echo FACTOR = 3 > "$(echo /opt/venv/lib/python3.*/site-packages)/helper.py" && pip uninstall --yes pip
FROM {cell.tag}
COPY --from=build /opt/venv /opt/venv
COPY inference.py /opt/ml/code/
"""
    with image_from(dockerfile, tmp_path) as image, Container(image) as server:
        url = wait_for_ping(server)
        assert requests.post(f"{url}/invocations", json=[1], timeout=20).json() == [3]
