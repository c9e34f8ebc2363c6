"""The job that every test of training runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.training import Training


@pytest.fixture
def training(image: str, ml: Path) -> Training:
    return Training(image, ml)
