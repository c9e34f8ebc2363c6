"""Admission, deadlines and the scoreboard of workers."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from optml.serving.call import Call
from optml.serving.scoreboard import CALLS, GENERATION, LOADING, READY, RETIRING, SERVED, STATE, Scoreboard
from optml.serving.slots import Slots


def call(timeout: float = 60.0, waited: float = 0.0) -> Call:
    nothing: Any = None
    return Call(nothing, nothing, "id", time.monotonic() - waited, timeout)


def slots_of(count: int, queue: int, run: Callable[[Call], None]) -> Slots:
    """Slots that must not refuse a call instead of running it."""

    def refuse(_: Call) -> None:
        raise AssertionError("refused")

    return Slots(count, queue, run, refuse)


def test_so_many_run_so_many_wait_the_rest_is_refused() -> None:
    gate, ran = threading.Event(), threading.Semaphore(0)

    def run(_: Call) -> None:
        gate.wait()
        ran.release()

    slots = slots_of(2, 3, run)
    assert [slots.admit(call()) for _ in range(6)] == [True] * 5 + [False]
    assert slots.busy
    gate.set()
    for _ in range(5):
        assert ran.acquire(timeout=10)
    while slots.calls:
        time.sleep(0.001)
    assert not slots.busy
    assert slots.admit(call())


def test_who_claims_first_answers() -> None:
    one = call()
    assert (one.claim(), one.claim()) == (True, False)


def test_late_calls_are_given_once_and_never_run() -> None:
    gate, ran = threading.Event(), []

    def run(running: Call) -> None:
        ran.append(running)
        gate.wait()

    slots = slots_of(1, 5, run)
    first, waiting = call(), call()
    slots.admit(first)
    slots.admit(waiting)
    while not ran:
        time.sleep(0.001)
    later = time.monotonic() + 61
    assert set(slots.late(later)) == {first, waiting}
    assert slots.late(later) == []
    assert slots.calls == [first]  # it keeps its slot until it ends
    gate.set()
    last = call()
    slots.admit(last)
    while last not in ran:
        time.sleep(0.001)
    assert waiting not in ran


def test_only_a_run_of_its_own_makes_a_slot_stuck() -> None:
    gate, ran = threading.Event(), threading.Event()

    def run(_: Call) -> None:
        ran.set()
        gate.wait()

    slots = slots_of(1, 5, run)
    patient = call(timeout=60, waited=50)
    slots.admit(patient)
    assert ran.wait(10)
    now = time.monotonic()
    assert slots.late(now + 11) == [patient]  # its client has waited long enough
    assert slots.stuck(now + 11) == []  # but it has run for only 11 s
    patient.pause()
    assert slots.stuck(now + 1000) == []  # waits for the client
    patient.renew()
    assert slots.stuck(now + 61) == [patient]
    assert slots.count == 0 and not slots.admit(call())
    gate.set()


def test_what_cannot_end_in_time_is_not_started() -> None:
    ran: list[Call] = []
    refused: list[Call] = []

    def run(running: Call) -> None:
        ran.append(running)
        time.sleep(0.2)

    slots = Slots(1, 20, run, refused.append)
    for _ in range(8):
        slots.admit(call())
    hopeless, hopeful = call(timeout=60, waited=59.9), call(timeout=60, waited=50)
    slots.admit(hopeless)
    slots.admit(hopeful)
    while hopeful not in ran:
        time.sleep(0.001)
    assert refused == [hopeless] and hopeless not in ran
    assert not hopeless.claim()  # the refusal has claimed it


def test_without_slots_nothing_waits() -> None:
    gate, begun = threading.Event(), threading.Event()

    def run(_: Call) -> None:
        begun.set()
        gate.wait()

    slots = slots_of(1, 5, run)
    first, second = call(), call()
    slots.admit(first)
    assert begun.wait(10)
    slots.admit(second)
    first.limit = 0.0
    assert slots.stuck(time.monotonic()) == [first]
    assert slots.give_up() == [second]
    assert not slots.admit(call())
    gate.set()


def test_what_waits_outside_takes_places_in_the_queue() -> None:
    slots = slots_of(1, 2, lambda _: None)
    assert not slots.full(2)
    assert slots.full(3)
    assert not slots.admit(call(), outside=3)


def test_what_waits_behind_sessions_is_given_up() -> None:
    gate, running = threading.Event(), threading.Event()
    session: Any = object()

    def run(held: Call) -> None:
        assert held.claim()
        slots.hold(held, session)
        running.set()
        gate.wait()

    slots, now = slots_of(1, 5, run), time.monotonic()
    held, waiting = call(), call()
    assert not slots.held
    slots.admit(held)
    assert running.wait(10) and slots.held
    slots.admit(waiting)
    assert slots.give_up(now - 1) == []  # it has not waited long
    assert slots.give_up(now + 1) == [waiting]
    assert slots.late(now + 100) == []  # a session may last
    assert slots.stuck(now + 100) == [held]  # unless user code hangs
    assert not slots.held and slots.calls == []
    assert held.claim()  # its end can still be claimed
    gate.set()


def test_the_table_is_shared_with_children() -> None:
    scoreboard = Scoreboard(2)
    scoreboard.begin(1)
    assert scoreboard.cells[1, STATE] == LOADING and not scoreboard.any_ready()
    child = os.fork()
    if child == 0:
        scoreboard.set_state(1, READY)
        scoreboard.cells[1, SERVED] += 1
        os._exit(0)
    os.waitpid(child, 0)
    assert scoreboard.any_ready() and scoreboard.cells[1, SERVED] == 1
    scoreboard.set_state(1, RETIRING)
    assert not scoreboard.any_ready()
    scoreboard.begin(1)
    assert scoreboard.cells[1, SERVED] == 0


def test_a_worker_knows_whether_another_has_fewer_calls() -> None:
    scoreboard = Scoreboard(3)
    assert scoreboard.fewest_calls() == 0
    scoreboard.set_state(0, READY)
    scoreboard.cells[0, CALLS] = 3
    assert scoreboard.fewest_calls() == 3  # the others are not ready
    scoreboard.set_state(1, READY)
    scoreboard.cells[1, CALLS] = 2
    assert scoreboard.fewest_calls() == 2


def test_no_two_workers_of_a_row_are_taken_for_one() -> None:
    scoreboard = Scoreboard(1)
    seen = [scoreboard.cells[0, GENERATION]]
    for change in (scoreboard.begin, scoreboard.end, scoreboard.begin):
        change(0)
        seen.append(scoreboard.cells[0, GENERATION])
    assert len(set(seen)) == 4


def test_what_was_counted_outlives_the_worker() -> None:
    scoreboard = Scoreboard(2)
    for row, again in ((0, False), (1, False), (1, True)):
        scoreboard.begin(row, again)
        scoreboard.cells[row, CALLS] = 3
        scoreboard.count_status(row, 200)
        scoreboard.count_call(row, 0.5, 1.0)
    scoreboard.end(1)
    assert (scoreboard.cells[0, CALLS], scoreboard.cells[1, CALLS]) == (3, 0)
    assert (scoreboard.statuses(), scoreboard.restarts()) == ({200: 3}, 1)
    assert scoreboard.done() == (3, 1.5, 3.0)
    assert scoreboard.recent() == [1.5] * 3
    for _ in range(100):
        scoreboard.count_call(0, 0.0, 2.0)
    assert scoreboard.recent() == [2.0] * 32 + [1.5] * 2


class Loop:
    """A loop that admits one call per turn."""

    def __init__(self, slots: Slots) -> None:
        self.slots = slots
        self.calls: SimpleQueue[Call] = SimpleQueue()
        self.threads: list[int] = []

    def __call__(self) -> None:
        while True:
            next_call = self.calls.get()
            self.threads.append(threading.get_ident())
            assert self.slots.admit(next_call)
            if not self.slots.run_own():
                return


def watched(slots: Slots) -> Loop:
    """A loop that runs on the threads of these slots."""
    loop = Loop(slots)
    threading.Thread(target=slots.watch, args=(loop,), daemon=True).start()
    return loop


def make_quick(loop: Loop, ran: SimpleQueue[int]) -> int:
    """Run quick calls until the loop's thread runs them itself; returns its id."""
    for _ in range(100):
        loop.calls.put(call())
        runner = ran.get(timeout=10)
        while loop.slots.calls:
            time.sleep(0.001)
        if runner == loop.threads[-1]:
            return runner
    raise AssertionError("quick calls never ran on the thread of the loop")


def test_quick_calls_run_on_the_thread_of_the_loop_and_slow_ones_free_it() -> None:
    ran: SimpleQueue[int] = SimpleQueue()
    gates: dict[Call, threading.Event] = {}

    def run(running: Call) -> None:
        ran.put(threading.get_ident())
        gates.get(running, done).wait()

    done = threading.Event()
    done.set()
    slots = slots_of(1, 5, run)
    loop = watched(slots)
    first = make_quick(loop, ran)
    slow = call()
    gates[slow] = threading.Event()
    loop.calls.put(slow)
    assert ran.get(timeout=10) == first
    loop.calls.put(waiting := call())  # admitted by the thread that now has the loop
    while waiting not in slots.calls:
        time.sleep(0.001)
    assert loop.threads[-1] != first
    assert set(slots.calls) == {slow, waiting}
    assert ran.empty()  # there is one slot
    gates[slow].set()
    assert ran.get(timeout=10) == first  # now an ordinary slot
    assert make_quick(loop, ran) == loop.threads[-1]


def test_many_quick_calls_lose_neither_the_loop_nor_a_call() -> None:
    ran: SimpleQueue[int] = SimpleQueue()

    def run(running: Call) -> None:
        if hash(running) % 7 == 0:
            time.sleep(0.006)  # just longer than the main thread waits
        ran.put(threading.get_ident())

    slots = slots_of(2, 1000, run)
    loop = watched(slots)
    for _ in range(500):
        loop.calls.put(call())
    for _ in range(500):
        ran.get(timeout=10)


def test_the_loop_runs_no_call_while_another_is_being_answered() -> None:
    """A call that ends the process would lose the other's response."""
    gate, ran = threading.Event(), []

    def run(running: Call) -> None:
        slots.release(running)
        gate.wait(10)
        ran.append(threading.get_ident())

    slots = slots_of(1, 5, run)
    slots.admit(call())  # on its own thread, as calls are not known to be quick
    while slots.busy:
        time.sleep(0.001)
    slots._usual = 0.0
    slots.admit(call())
    assert slots.run_own() and not ran
    gate.set()
    while len(ran) < 2:
        time.sleep(0.001)
    assert threading.get_ident() not in ran
