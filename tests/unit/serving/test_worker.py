"""How many clients a worker may have, and what a retiring worker does with its waiting calls."""

from __future__ import annotations

import math
import resource
from typing import Any
from unittest.mock import Mock

import pytest

from optml.serving.worker import Worker, allow_connections


@pytest.mark.parametrize("alive", [True, False])
def test_only_a_worker_that_stays_shares_its_calls(alive: bool) -> None:
    worker: Any = Mock(alive=alive, ppid=0)
    worker.slots.stuck.return_value = worker.slots.late.return_value = worker.slots.give_up.return_value = []
    worker.settings.timeout = 60.0
    Worker.look_at_clock(worker, 0.0)
    assert worker.intake.share.called == alive


@pytest.mark.parametrize("slots", [0, 1])
def test_what_no_other_takes_is_refused_where_no_slot_is_left(slots: int) -> None:
    worker: Any = Mock()
    worker.slots.count, worker.slots.give_up.return_value = slots, []
    Worker.retire(worker, [])
    refused = [call.args for call in worker.intake.read_late.call_args_list]
    assert refused == ([] if slots else [(math.inf,)])


@pytest.mark.parametrize(("limits", "allowed"), [((1, 9), 9), ((1, 90_000), 65_536), ((9, 9), 9)])
def test_a_worker_may_have_as_many_connections_as_it_can(
    limits: tuple[int, int], allowed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    set_limits = Mock()
    monkeypatch.setattr(resource, "setrlimit", set_limits)
    allow_connections()
    assert set_limits.call_args.args == (resource.RLIMIT_NOFILE, (allowed, limits[1]))
