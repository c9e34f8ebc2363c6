"""The time that a stop leaves, on a clock that runs only where somebody waits: nobody here waits so long."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.unit.training.conftest import RUNTIME

# The supervisor takes the signals of its whole process, so each test has one of its own.
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
        # What has happened is seen, and else the time is over at once; the end of a child takes a moment.
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


def test_programs_have_nine_tenths_of_the_time_and_the_upload_has_the_rest_but_for_the_report() -> None:
    script = """
child = program(signal.SIG_IGN)
stop()
ended = supervisor.run(child, stderr, Peers("", {}, ""))
print(ended.code, ended.stopped, round(now - 1000))
print(supervisor.wait(lambda: False), round(now - 1000, 1))
"""
    assert output(script) == "137 15 108\nFalse 119.5\n"


def test_what_is_killed_and_has_not_ended_yet_is_no_success() -> None:
    """With 5 GB it takes more than a second to go."""
    script = """
child = program(signal.SIG_IGN)
kill, child.kill = child.kill, lambda: None
stop()
ended = supervisor.run(child, stderr, Peers("", {}, ""))
kill()
print(ended.code, ended.signal, ended.stopped, round(now - 1000))
"""
    assert output(script) == "137 9 15 109\n"


def test_a_second_signal_gives_no_more_time_and_is_not_the_one_that_stopped() -> None:
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


def test_a_program_without_the_host_that_it_lost_gets_its_time() -> None:
    """Ten seconds to fail by itself, and thirty to obey a signal."""
    script = """
child = program(signal.SIG_IGN)
peers = SimpleNamespace(fds=[], follows="", lost="host b vanished", stopped=0)
ended = supervisor.run(child, stderr, peers)
print(ended.code, ended.stopped, ended.lost, round(now - 1000))
"""
    assert output(script) == "137 0 host b vanished 40\n"


def test_what_a_shell_left_in_our_own_group_is_signalled_alone() -> None:
    """`sleep 100 & exec train`: its group is ours, and for PID 1 that is kill(-1), which means everybody."""
    ours = "from optml.training.children import orphans; left = orphans([])"
    script = f"sleep 100 >&2 & exec {sys.executable} -c '{ours}; import os; print(*left); os.kill(*left, 15)'"
    environment = {**os.environ, "PYTHONPATH": str(RUNTIME.parents[1])}
    done = subprocess.run(
        ["sh", "-c", script], env=environment, capture_output=True, text=True, process_group=0, timeout=30
    )
    assert done.returncode == 0 and int(done.stdout) > 0, done
