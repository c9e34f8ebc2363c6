"""The reason of a failure: the exception first, then as much of the traceback's end as fits."""

from __future__ import annotations

import pytest

from optml.training.outcome import reason
from optml.training.supervisor import Ended

TRACE = """Traceback (most recent call last):
  File "/opt/ml/code/train.py", line 3, in <module>
    main()
  File "/opt/ml/code/train.py", line 2, in main
    raise ValueError("learning rate must be positive")
ValueError: learning rate must be positive
"""

TORCHRUN = """Traceback (most recent call last):
  File "run.py", line 1, in main
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
=====
train.py FAILED
-----
Failures:
[1]:
  rank      : 0 (local_rank: 0)
  exitcode  : -15 (pid: 11)  (SIGTERM)
  traceback : Signal 15 (SIGTERM) received by PID 11
-----
Root Cause (first observed failure):
[0]:
  time      : 2026-11-23_01:15:59
  host      : algo-2
  rank      : 3 (local_rank: 1)
  exitcode  : {code} (pid: 12)
  error_file: <N/A>
  traceback : To enable traceback see: https://pytorch.org/docs/stable/elastic/errors.html
=====
"""


def why(
    tail: str, code: int = 1, signal: int = 0, stopped: int = 0, oom_kills: int = 0, lost: str | None = None
) -> str:
    return reason(
        "train.py", Ended(code=code, signal=signal, stopped=stopped, tail=tail, lost=lost), oom_kills, []
    )


@pytest.mark.parametrize(
    ("tail", "first"),
    [
        (TRACE, "ValueError: learning rate must be positive"),
        ("warming up\n" + TRACE + "wandb: bye\n", "ValueError: learning rate must be positive"),
        (
            TRACE + "\nDuring handling of the above exception, another exception occurred:\n\n"
            "Traceback (most recent call last):\n  File \"x\", line 1, in f\nKeyError: 'a'\n",
            "KeyError: 'a'",
        ),
        (
            "".join(f"[rank0]: {line}\n" for line in TRACE.splitlines()),
            "ValueError: learning rate must be positive",
        ),
        (
            '  File "train.py", line 1\n    x = (\n        ^\nSyntaxError: never closed\n',
            "SyntaxError: never closed",
        ),
        (
            "".join(f"[rank1]: {line}\n" for line in TRACE.splitlines()) + TORCHRUN.format(code=1),
            "ValueError: learning rate must be positive",
        ),
        ("no data here\n" + TORCHRUN.format(code=1), "rank 3 exited with code 1"),
        (TORCHRUN.format(code=-11), "rank 3 was killed by signal 11 (SIGSEGV)"),
        (
            TRACE.replace(
                "\nValueError", "\n[5f1e:00000] *** An error occurred in Socket closed\nValueError"
            ),
            "ValueError: learning rate must be positive",
        ),
        ("cp: cannot stat 'x'\n", "cp: cannot stat 'x'"),
        ("", "train.py exited with code 1"),
    ],
)
def test_first_line(tail: str, first: str) -> None:
    assert why(tail).splitlines()[0] == first


def test_the_traceback_follows() -> None:
    assert why(TRACE).splitlines()[1:4] == ["train.py exited with code 1", "", TRACE.splitlines()[0]]


def test_a_long_traceback_loses_its_start() -> None:
    frames = "".join(f'  File "module{i}.py", line {i}, in f\n' for i in range(1000))
    text = why(f"Traceback (most recent call last):\n{frames}RuntimeError: deep\n")
    assert len(text) <= 1024
    assert text.startswith("RuntimeError: deep\n")
    assert text.endswith('  File "module999.py", line 999, in f\nRuntimeError: deep')


def test_a_message_that_is_too_long_is_truncated() -> None:
    assert len(why("Traceback (most recent call last):\nValueError: " + "x" * 5000)) == 1024


def test_killed_by_a_signal() -> None:
    assert why("", code=137, signal=9).startswith("train.py was killed by signal 9 (SIGKILL)")


def test_killed_by_a_signal_without_a_name() -> None:
    assert why("", code=168, signal=40) == "train.py was killed by signal 40"


def test_out_of_memory() -> None:
    assert "out of memory" in why("", code=137, signal=9, oom_kills=1).splitlines()[0]


def test_asked_to_stop() -> None:
    assert "asked to stop" in why("", code=143, signal=15, stopped=15).splitlines()[0]


def test_a_lost_host_is_named_first() -> None:
    assert (
        why(TRACE, lost="host algo-2 vanished").splitlines()[0].startswith("host algo-2 vanished; train.py")
    )


def test_a_host_that_follows_another_reports_only_the_end_of_that() -> None:
    assert why("", code=0, lost="host algo-1 ended with code 7") == "host algo-1 ended with code 7"


def test_the_last_output_of_a_rank_follows_how_it_ended() -> None:
    assert why("no data here\n" + TORCHRUN.format(code=3)).splitlines() == [
        "rank 3 exited with code 3",
        "train.py exited with code 1",
        "",
        "no data here",
    ]


def test_a_line_without_letters_is_not_a_reason() -> None:
    assert why("it broke\n-----\n \x00\n").splitlines()[0] == "it broke"
