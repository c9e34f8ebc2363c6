"""How a worker handles the errors of its calls."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from optml.serving.execution import ClientGone, Execution


@pytest.mark.parametrize(("gpu", "replaced"), [(0, True), (None, False)])
def test_cuda_cannot_break_where_there_is_no_gpu(gpu: int | None, replaced: bool) -> None:
    posted: list[Any] = []
    host: Any = SimpleNamespace(gpu=gpu, loop=SimpleNamespace(post=posted.append), replace=None)
    Execution(host)._check_cuda(RuntimeError("CUDA error: device-side assert triggered"))
    assert bool(posted) is replaced


def test_a_stream_that_was_cut_is_no_fault_of_the_users() -> None:
    sock = socket.socket()
    sock.close()  # as the loop does if a call is stuck
    host: Any = Mock()
    host.settings.timeout = 1.0
    with pytest.raises(ClientGone):
        Execution(host).send_part(Mock(connection=Mock(sock=sock)), b"a")
