"""What every test shares: the images that were built, and how tests of an image run for its children too."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.serving import serving
from tests.support.docker import SERVERLESS, docker
from tests.support.matrix import Cell, built, lineage, matrix


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--image", help="test this image of the matrix alone")
    parser.addoption("--variant", help="test this variant alone")
    parser.addoption("--serverless", action="store_true", help="serve as a serverless endpoint does")
    parser.addoption("--without-long", action="store_true", help="leave out the tests that are marked long")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--serverless"):
        serving.HARDENING = SERVERLESS


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # Pages take longest: started last, one would keep everybody waiting.
    items.sort(key=lambda item: not item.nodeid.startswith("tests/docs"))
    if config.getoption("--without-long"):
        left_out = [item for item in items if item.get_closest_marker("long")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


def _cells(config: pytest.Config) -> list[Cell]:
    """The cells that this run covers. All must be built, so that no test passes for want of its image."""
    image, variant = config.getoption("--image"), config.getoption("--variant")
    wanted = [c for c in matrix() if image in (None, c.image) and variant in (None, c.variant)]
    absent = [c.tag for c in wanted if c not in built()]
    if absent:
        raise pytest.UsageError(f"not built: {', '.join(absent)}; run make build-all")
    return wanted


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrize `cell` and `image`.

    A test below tests/images/NAME that takes `cell` runs for image NAME and for all images built from it.
    Elsewhere a test that takes `image` says which with @pytest.mark.image. It runs in each variant; with
    @pytest.mark.one_variant only in the first, and with @pytest.mark.heavy it is long in all but the first.
    With --image it also runs for a child of its image, which does all that its parent does.
    """
    if "cell" in metafunc.fixturenames:
        name = Path(str(metafunc.definition.path)).parent.name
        cells = [c for c in _cells(metafunc.config) if name in lineage(c)]
        metafunc.parametrize("cell", cells, ids=lambda c: c.id, scope="session")
    elif "image" in metafunc.fixturenames:
        marker = metafunc.definition.get_closest_marker("image")
        assert marker, (
            f"{metafunc.definition.nodeid} takes `image` without saying which, with @pytest.mark.image"
        )
        asked = metafunc.config.getoption("--image")
        cells = [
            c
            for c in _cells(metafunc.config)
            if marker.args[0] == c.image or (asked and marker.args[0] == c.parent)
        ]
        if metafunc.definition.get_closest_marker("one_variant"):
            cells = cells[:1]
        heavy = metafunc.definition.get_closest_marker("heavy")
        images = [
            pytest.param(
                c.tag, id=c.id, marks=pytest.mark.long if heavy and c.variant != cells[0].variant else ()
            )
            for c in cells
        ]
        metafunc.parametrize("image", images)


@pytest.fixture
def ml(tmp_path: Path) -> Path:
    """An empty /opt/ml on the host, to be mounted: `-v {ml}:/opt/ml`. Any uid may write to it."""
    for part in ("input/config", "input/data", "model", "code", "output/data", "checkpoints"):
        (tmp_path / "ml" / part).mkdir(parents=True)
    for path in (tmp_path / "ml", *(tmp_path / "ml").rglob("*")):
        path.chmod(0o777)
    return tmp_path / "ml"


@pytest.fixture
def network() -> Iterator[str]:
    """A user-defined network, on which containers find each other by name."""
    name = f"optml-test-{os.urandom(6).hex()}"
    docker("network", "create", name)
    yield name
    docker("network", "rm", name, check=False)
