"""The time after a stop, on a fake clock that advances only while something waits."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.unit.training.conftest import RUNTIME

# A supervisor handles its whole process's signals, so each test starts a process.
BEFORE = """
import os, signal, time
from types import SimpleNamespace
from optml.training import supervisor as module
from optml.training.peers import Peers

real, now, signals = time.monotonic, 1000.0, []

class Poll:
    def __init__(self, poll):
        self.register, self.unregister, self._poll = poll.register, poll.unregister, poll

    def poll(self, milliseconds=None):
        global now
        # Report pending events; without any, advance the clock. The end of a child takes a moment.
        ready = self._poll.poll(milliseconds and (1 if milliseconds <= 200 else 500))
        if not ready:
            now += milliseconds / 1000
            if signals and now - 1000 >= signals[0][0]:
                os.kill(os.getpid(), signals.pop(0)[1])
        return ready

module.time = SimpleNamespace(monotonic=lambda: now)
supervisor = module.Supervisor()
supervisor._poll = Poll(supervisor._poll)
ready, its_ready = os.pipe()
stderr, its_stderr = os.pipe()

def program(answer):
    def work():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, answer)
        os.write(its_ready, b".")
        time.sleep(600)
    child = supervisor.start(work)
    os.read(ready, 1)
    return child

def stop():
    os.kill(os.getpid(), signal.SIGTERM)
    supervisor.wait(lambda: False)
    assert supervisor.stopped == signal.SIGTERM
"""


def output(script: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", BEFORE + script],
        env={"PYTHONPATH": str(RUNTIME.parents[1])},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_programs_get_nine_tenths_of_the_time_and_the_upload_the_rest_except_the_report() -> None:
    script = """
child = program(signal.SIG_IGN)
stop()
ended = supervisor.run(child, stderr, Peers("", {}, ""))
print(ended.code, ended.stopped, round(now - 1000))
print(supervisor.wait(lambda: False), round(now - 1000, 1))
"""
    assert output(script) == "137 15 108\nFalse 119.5\n"


def test_a_killed_program_that_has_not_ended_yet_is_not_a_success() -> None:
    """With 5 GB it takes over a second to end."""
    script = """
child = program(signal.SIG_IGN)
kill, child.kill = child.kill, lambda: None
stop()
ended = supervisor.run(child, stderr, Peers("", {}, ""))
kill()
print(ended.code, ended.signal, ended.stopped, round(now - 1000))
"""
    assert output(script) == "137 9 15 109\n"


def test_a_second_signal_neither_adds_time_nor_replaces_the_first() -> None:
    script = """
child = program(signal.SIG_IGN)
signals += [(50, signal.SIGINT)]
stop()
ended = supervisor.run(child, stderr, Peers("", {}, ""))
print(ended.stopped, round(now - 1000), signals)
print(supervisor.wait(lambda: False), round(now - 1000))
"""
    assert output(script) == "15 108 []\nFalse 120\n"


def test_a_stop_just_before_the_program_is_watched_reaches_it() -> None:
    script = """
child = program(lambda *_: os._exit(9))
stop()
ended = supervisor.run(child, stderr, Peers("", {}, ""))
print(ended.code, ended.stopped, round(now - 1000))
"""
    assert output(script) == "9 15 0\n"


def test_a_program_gets_time_after_the_loss_of_a_host() -> None:
    """Ten seconds to fail by itself, and thirty to end after SIGTERM."""
    script = """
child = program(signal.SIG_IGN)
peers = SimpleNamespace(fds=[], follows="", lost="host b vanished", stopped=0)
ended = supervisor.run(child, stderr, peers)
print(ended.code, ended.stopped, ended.lost, round(now - 1000))
"""
    assert output(script) == "137 0 host b vanished 40\n"


def test_an_orphan_in_our_own_group_is_signalled_alone() -> None:
    """`sleep 100 & exec train`: its group is ours, and kill(-1), as PID 1, reaches every process."""
    ours = "from optml.training.children import orphans; left = orphans([])"
    script = f"sleep 100 >&2 & exec {sys.executable} -c '{ours}; import os; print(*left); os.kill(*left, 15)'"
    environment = {**os.environ, "PYTHONPATH": str(RUNTIME.parents[1])}
    done = subprocess.run(
        ["sh", "-c", script], env=environment, capture_output=True, text=True, process_group=0, timeout=30
    )
    assert done.returncode == 0 and int(done.stdout) > 0, done
