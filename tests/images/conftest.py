"""A running container of each image, seen through testinfra."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import testinfra
from testinfra.host import Host

from tests.support.docker import Container, inspect
from tests.support.matrix import Cell


@pytest.fixture(scope="session")
def host(cell: Cell) -> Iterator[Host]:
    """The inside of a container of the image, as root."""
    with Container(cell.tag, "sleep", "infinity", options=("--init",)) as container:
        yield testinfra.get_host(f"docker://{container.name}")


@pytest.fixture(scope="session")
def config(cell: Cell) -> dict[str, Any]:
    """The image's configuration: environment, labels, entry point."""
    found: dict[str, Any] = inspect(cell.tag)["Config"]
    return found
