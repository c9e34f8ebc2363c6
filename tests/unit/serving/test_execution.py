"""What a worker makes of the errors of its calls."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from optml.serving.execution import Execution


@pytest.mark.parametrize(("gpu", "replaced"), [(0, True), (None, False)])
def test_cuda_cannot_break_where_there_is_no_gpu(gpu: int | None, replaced: bool) -> None:
    posted: list[Any] = []
    host: Any = SimpleNamespace(gpu=gpu, loop=SimpleNamespace(post=posted.append), replace=None)
    Execution(host)._notice(RuntimeError("CUDA error: device-side assert triggered"))
    assert bool(posted) is replaced
