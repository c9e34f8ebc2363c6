"""The user's packages and files do not affect the server, nor the server's the user."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.docker import run
from tests.support.wheels import installed

from .serving import ECHO, Server

pytestmark = pytest.mark.image("cpu-serve")

# What the server is made of, and standard modules that it uses early, late, or through other packages.
PACKAGES = (
    *("gunicorn", "flask", "werkzeug", "websockets"),
    *("click", "jinja2", "h11", "httptools", "gunicorn_h1c"),
)
MODULES = ("json", "logging", "csv", "decimal", "email", "hashlib", "random", "secrets", "tempfile", "uuid")

HANDLERS = """
import {names}

def model_fn(model_dir):
    return [module.VERSION for module in ({names})]

def predict_fn(data, model):
    return [data, model]

def stream_fn(stream, model):
    for message in stream:
        stream.send(message + str(model))
"""


def write_packages(folder: Path, names: tuple[str, ...]) -> None:
    """Packages with these names, in a version that is useless to the server."""
    for name in names:
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(f"VERSION = __version__ = version = 'own {name}'\n")


def place_packages(image: str, ml: Path, folder: Path, place: str, source: str) -> tuple[str, list[str]]:
    """Give the user the packages in this folder: the handlers that find them, and options of `docker run`."""
    options = [f"--volume={folder}:/srv/own:ro"]
    if place == "beside the handlers":
        return f"import sys; sys.path.insert(0, '/srv/own')\n{source}", options
    (ml / "own.pth").write_text("/srv/own")
    site = run(image, "python3", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").stdout
    return source, [*options, f"--volume={ml}/own.pth:{site.strip()}/own.pth:ro"]


def assert_all_parts_answer(server: Server, streamed: str) -> None:
    """Each of these is made by another package of the server's."""
    assert "optml_requests_total" in server.get("/metrics").text
    assert server.get("/nowhere").json()["code"] == 404
    with server.talk() as session:
        session.send("hello ")
        assert session.recv() == f"hello {streamed}"
    assert "Traceback" not in server.log().output


@pytest.mark.parametrize("place", ["installed", "beside the handlers"])
def test_the_server_is_the_same_and_the_user_has_what_is_theirs(image: str, ml: Path, place: str) -> None:
    own = ["flask", "gunicorn", "websockets", "werkzeug"]
    if place == "installed":
        write_packages(ml / "own", PACKAGES)
    else:
        write_packages(ml / "own", (*PACKAGES, *MODULES))
        own += ["uuid", "secrets"]
    versions = [f"own {name}" for name in own]
    source, options = place_packages(image, ml, ml / "own", place, HANDLERS.format(names=", ".join(own)))
    with Server(image, ml, source, *options) as server:
        odd = {"Content_Type": "application/json; x=y", "Accept": "image/png, text/*;q=0.1, */*;q=0.5"}
        assert server.invoke(b"[1]", **odd).json() == [[1], versions]
        assert server.invoke(b"a,b\n", Content_Type="text/csv").json() == [[["a", "b"]], versions]
        assert server.invoke(b'"%s"' % (b"x" * (3 << 20))).json()[1] == versions  # a file takes the body
        assert server.get("/execution-parameters").json()["MaxPayloadInMB"] == 100
        assert_all_parts_answer(server, str(versions))


def test_variables_of_python_put_nothing_into_the_server(image: str, ml: Path) -> None:
    """PYTHONPATH comes before the standard library."""
    write_packages(ml / "own", (*PACKAGES, *MODULES, "optml"))
    options = (f"--volume={ml}/own:/srv/own:ro", "--env=PYTHONPATH=/srv/own")
    with Server(image, ml, HANDLERS.format(names="flask, gunicorn"), *options) as server:
        assert server.invoke(b"[1]").json() == [[1], ["own flask", "own gunicorn"]]
        assert server.get("/nowhere").json()["code"] == 404


def test_what_the_user_does_not_have_is_the_servers(image: str, ml: Path) -> None:
    source = "import flask\n" + ECHO + "\ndef output_fn(data, accept): return flask.Response(str(data))\n"
    with Server(image, ml, source) as server:
        assert server.invoke(b"[1]").json() == [1]


# Real packages of other years, with the MarkupSafe and setuptools that some of them need without saying so.
WEB_OF_2020 = ("flask==1.1.4", "werkzeug==1.0.1", "click==7.1.2", "jinja2==2.11.3", "markupsafe==2.0.1")
OTHER_YEARS = [
    ("gunicorn==19.10.0", *WEB_OF_2020, "websockets==10.4"),
    *(
        pytest.param(packages, marks=pytest.mark.long)
        for packages in [
            ("gunicorn==20.1.0", "setuptools<70", *WEB_OF_2020, "websockets==10.4"),
            ("gunicorn==23.0.0", "flask==2.3.3", "websockets==12.0", "h11==0.9.0"),
            ("gunicorn==19.10.0", "flask==3.0.3", "werkzeug==3.0.6", "websockets==9.1"),
        ]
    ),
]
VERSIONS = """
from importlib import import_module, metadata

NAMES = {names}

def model_fn(model_dir):
    modules = [import_module(name) for name in NAMES]
    assert all(module.__file__.startswith("/srv/own/") for module in modules), modules
    return [f"{{name}}=={{metadata.version(name)}}" for name in NAMES]

def predict_fn(data, model):
    return model

def stream_fn(stream, model):
    for message in stream:
        stream.send(message + str(len(model)))
"""


@pytest.mark.parametrize("place", ["installed", pytest.param("beside the handlers", marks=pytest.mark.long)])
@pytest.mark.parametrize("packages", OTHER_YEARS, ids=lambda packages: packages[0])
def test_packages_of_other_years_change_nothing(
    image: str, ml: Path, packages: tuple[str, ...], place: str
) -> None:
    own = [name for name in packages if "==" in name]
    names = [name.partition("==")[0] for name in own]
    source = VERSIONS.format(names=names)
    source, options = place_packages(image, ml, installed(*packages), place, source)
    with Server(image, ml, source, *options) as server:
        assert server.invoke(b"[1]").json() == own
        assert_all_parts_answer(server, str(len(own)))
