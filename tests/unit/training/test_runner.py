"""The exception that ended a Python program is the reason, whatever else it wrote. The runner that reports
it changes nothing for the program."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from optml.training import launchers, outcome
from optml.training.launchers import Launch
from tests.unit.training.conftest import Ml, a_program

LOGGED = "import logging, sys\ntry: 1 / 0\nexcept Exception:\n  logging.exception('went on')\n"

REASONS = {
    "raise ValueError('no rows')": "ValueError: no rows",
    "class MyError(Exception): pass\nraise MyError": "MyError",
    "import json; json.loads('x')": "json.decoder.JSONDecodeError: Expecting value: line 1 column 1 (char 0)",
    "x = (\n": "SyntaxError: '(' was never closed (train.py, line 1)",
    LOGGED + "sys.exit('the data set is empty')": "the data set is empty",
    LOGGED + "  sys.exit(3)": "ZeroDivisionError: division by zero",
    LOGGED + "print('no data', file=sys.stderr)\nsys.exit(3)": "no data",
    LOGGED + "  print('no data', file=sys.stderr)\n  raise SystemExit(3) from None": "no data",
    "import os, atexit\natexit.register(lambda: os.write(2, b'wandb: bye\\n' * 9000))\nraise KeyError(1)": (
        "KeyError: 1"
    ),
    "try: {}['a']\nexcept KeyError as e: raise RuntimeError('epoch failed') from e": (
        "RuntimeError: epoch failed; caused by KeyError: 'a'"
    ),
    "import sys; sys.excepthook = lambda *a: print('pretty'); raise ValueError('x')": "ValueError: x",
    "class Odd(Exception):\n  def __str__(self): 1 / 0\nraise Odd": "Odd",
    "import os\nif os.fork() == 0: raise KeyError('child')\nos.wait(); raise ValueError('parent')": (
        "ValueError: parent"
    ),
    "raise ExceptionGroup('many', [ValueError('one'), TypeError('two')])": (
        "ExceptionGroup: many (2 sub-exceptions): ValueError: one; TypeError: two"
    ),
    "e = ValueError('no rows'); e.add_note('in train.csv'); raise e": "ValueError: no rows; in train.csv",
    "e = ValueError('no rows'); e.__notes__ = 5; raise e": "ValueError: no rows",
    LOGGED + "e = ValueError('no rows'); e.exceptions = None; e.add_note('in a.csv'); raise e": (
        "ValueError: no rows; in a.csv"
    ),
    LOGGED + "e = ValueError('no rows'); e.exceptions = ['one']; e.add_note('in a.csv'); raise e": (
        "ValueError: no rows; in a.csv"
    ),
    "a, b = KeyError(1), KeyError(2); a.__cause__, b.__cause__ = b, a; raise a": (
        "KeyError: 1; caused by KeyError: 2"
    ),
    "e = ExceptionGroup('many', [ValueError('one')]); e.exceptions[0].__cause__ = e; raise e": (
        "ExceptionGroup: many (1 sub-exception): ValueError: one"
    ),
}


@pytest.mark.parametrize("code", REASONS)
def test_the_reason_is_what_ended_the_program(ml: Ml, code: str) -> None:
    ml.code("train.py", code)
    done = ml.train()
    assert done.returncode in (1, 3)
    assert ml.failure.splitlines()[0] == REASONS[code]
    assert "runner.py" not in ml.failure + done.stderr


def test_an_exception_of_any_length_is_reported(ml: Ml) -> None:
    """In bytes it is more than a pipe holds before it is read."""
    ml.code("train.py", "raise ValueError('\\N{SNOWMAN}' * 40_000)")
    assert ml.train().returncode == 1
    assert ml.failure.startswith("ValueError: \N{SNOWMAN}\N{SNOWMAN}")
    assert ml.failure.endswith("\N{SNOWMAN}")


def test_an_exception_is_reported_through_the_smallest_pipe(ml: Ml) -> None:
    """The kernel gives no larger one to a user with many pipes."""
    code = "import fcntl, os\nfor fd in map(int, os.listdir('/proc/self/fd')):\n"
    code += "  try: fcntl.fcntl(fd, 1031, 4096)\n  except OSError: pass\n"  # 1031 is F_SETPIPE_SZ
    ml.code("train.py", code + "raise ValueError('no rows' * 900)")
    assert ml.train().returncode == 1
    assert ml.failure.startswith("ValueError: no rowsno rows")


def test_an_interrupt_ends_the_program_as_it_would_without_us(ml: Ml) -> None:
    ml.code("train.py", "raise KeyboardInterrupt")
    assert ml.train().returncode == 130
    assert ml.failure.startswith("train.py was killed by signal 2 (SIGINT)\n")


def test_the_exception_of_a_module_and_of_a_function(ml: Ml) -> None:
    ml.code("pkg/train.py", "def main(): raise ValueError('of a module')\nif __name__ == '__main__': main()")
    ml.train(SAGEMAKER_PROGRAM="pkg.train")
    assert ml.failure.startswith("ValueError: of a module\n")
    ml.train(SAGEMAKER_TRAINING_MODULE="pkg.train:main")
    assert ml.failure.startswith("ValueError: of a module\n")


def test_a_crash_in_c_shows_where(ml: Ml) -> None:
    ml.code("train.py", "import ctypes\ndef deep(): ctypes.string_at(0)\ndeep()")
    assert ml.train().returncode == 139
    assert ml.failure.startswith("train.py was killed by signal 11 (SIGSEGV)")
    assert "line 2 in deep" in ml.failure


LOOK = """
import json, os, signal, sys
__annotations__
x: int = 1
print(json.dumps({
    "name": __name__, "file": __file__, "doc": __doc__, "argv": sys.argv, "path": sys.path,
    "spec": getattr(__spec__, "name", None),
    "loader": type(__loader__).__name__, "names": sorted(n for n in globals() if n != "__annotate__"),
    "is main": sys.modules["__main__"].__dict__ is globals(), "flags": str(sys.flags),
    "pipe": str(signal.getsignal(signal.SIGPIPE)), "int": str(signal.getsignal(signal.SIGINT)),
    "mask": str(signal.pthread_sigmask(0, [])),
    "modules": sorted(set(sys.modules) - {"faulthandler"}), "package": __package__,
}))
"""


@pytest.mark.parametrize("kind", ["script", "module"])
def test_the_program_sees_what_it_would_see_without_us(ml: Ml, kind: str) -> None:
    path = ml.code("pkg/train.py" if kind == "module" else "train.py", '"""Doc."""' + LOOK)
    name = "pkg.train" if kind == "module" else "train.py"
    argv = [*(["-m", name] if kind == "module" else [name]), "--x", "1"]
    environment = ml.environment()
    plain = subprocess.run(
        [sys.executable, *argv], cwd=ml.root / "code", env=environment, capture_output=True, text=True
    )
    program = a_program(python=sys.executable, name=name, kind=kind, directory=str(path.parent))
    launch = Launch(engine="process", argv=[*program.argv, "--x", "1"], environment=environment)
    read, write = os.pipe()
    with_us = subprocess.run(
        launchers.with_runner(launch, program, write),
        cwd=ml.root / "code",
        env=environment,
        capture_output=True,
        text=True,
        pass_fds=[write],
    )
    os.close(read)
    os.close(write)
    assert plain.returncode == with_us.returncode == 0, with_us.stderr
    assert json.loads(with_us.stdout) == json.loads(plain.stdout)


def test_sigpipe_has_its_default_in_the_program(ml: Ml) -> None:
    ml.code("train.sh", "trap 'exit 7' PIPE; kill -PIPE $$; exit 8")
    assert ml.train().returncode == 7  # a shell cannot trap a signal ignored at its start
    ml.code("train.sh", "yes | head -1 > /dev/null; exit ${PIPESTATUS[0]}")
    assert ml.train().returncode == 141


def test_torchrun_gets_the_exception_of_a_rank_in_its_own_format(ml: Ml) -> None:
    """Real torchrun runs the script with `python -u` and names a file for each rank."""
    ml.code("train.py", "raise ValueError('of rank 3')")
    program = a_program(python=sys.executable, directory=str(ml.root / "code"))
    argv = [sys.executable, "-m", "torch.distributed.run", "--nnodes=1", "train.py", "--x"]
    launch = Launch(engine="torchrun", argv=argv, environment={})
    words = launchers.with_runner(launch, program, -1)
    assert words[:4] == argv[:4] and words[-1] == "--x"
    file = ml.root / "error.json"
    environment = {**ml.environment(), "TORCHELASTIC_ERROR_FILE": str(file)}
    done = subprocess.run(
        [sys.executable, "-u", *words[4:]], cwd=ml.root / "code", env=environment, capture_output=True
    )
    assert done.returncode == 1
    report = outcome.read_report(os.open("/dev/null", os.O_RDONLY), str(file))
    assert report and report[0] == "ValueError: of rank 3" and "line 1, in <module>" in report[1]
    assert json.loads(file.read_text())["message"]["extraInfo"]["timestamp"].isdecimal()
