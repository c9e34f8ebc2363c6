"""The routes of a server of many models."""

from __future__ import annotations

from unittest.mock import Mock

import pytest

from optml.serving.multimodel.router import create_router


@pytest.mark.parametrize(
    ("limit", "status"), [("1", 200), ("100", 200), ("101", 400), ("0", 400), ("-1", 400), ("9" * 5000, 400)]
)
def test_how_many_models_are_listed_at_once(limit: str, status: int) -> None:
    client = create_router(Mock(), Mock(), "/").test_client()
    environ = {"optml.request_id": "a-1"}
    assert client.get("/models", query_string={"limit": limit}, environ_base=environ).status_code == status
