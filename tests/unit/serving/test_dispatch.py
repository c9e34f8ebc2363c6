"""Requests that are handled beside the loop."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

import pytest

from optml.serving.dispatch import Dispatcher


def test_a_fault_of_our_own_beside_the_loop_is_in_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    host: Any = Mock()
    host.settings.timeout, host.loop.now = 60.0, 0.0
    host.journal.note.side_effect = RuntimeError("the journal is full")
    requests = Dispatcher(host, Mock())
    connection: Any = Mock()
    requests.beside(lambda call: 200, connection, Mock(path="/status"))
    requests._control.shutdown()
    assert "RuntimeError: the journal is full" in capsys.readouterr().err
