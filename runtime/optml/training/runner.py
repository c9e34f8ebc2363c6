"""Run the user's Python program as its interpreter would, and report the exception that ends it.

    python3 runner.py FD script|module|function NAME ARGUMENT...

The user's interpreter, whatever its version, compiles this for each job. So it is short, needs nothing of
ours, and imports only what the interpreter has imported anyway: not even __future__.
"""

import _frozen_importlib_external  # importlib.machinery, without importing importlib
import builtins
import faulthandler
import os
import sys

TYPE_CHECKING = False  # typing takes milliseconds to import
if TYPE_CHECKING:
    from typing import Any


def main() -> None:
    fd, kind, name = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    sys.argv[:] = sys.argv[3:]
    own_pid = os.getpid()
    if fd >= 0:
        os.set_inheritable(fd, False)
    faulthandler.enable()  # a crash in C shows where
    module = type(sys)("__main__")
    module.__dict__.update(__builtins__=builtins, __cached__=None)
    sys.modules["__main__"] = module
    try:
        {"script": _script, "module": _module, "function": _code}[kind](name, module.__dict__)
    except BaseException as error:
        if not isinstance(error, SystemExit) or error.code not in (None, 0):
            _end(error, fd, os.getpid() == own_pid)
        raise


def _script(name: str, variables: "dict[str, Any]") -> None:
    path = os.path.abspath(name)
    if not getattr(sys.flags, "safe_path", False):
        sys.path[0] = os.path.dirname(os.path.realpath(name))
    loader = _frozen_importlib_external.SourceFileLoader("__main__", path)
    variables.update(__file__=path, __loader__=loader)
    exec(compile(loader.get_data(path), path, "exec", dont_inherit=True), variables)


def _module(name: str, _variables: "dict[str, Any]") -> None:
    import runpy

    sys.path[0] = os.getcwd()
    runpy._run_module_as_main(name)  # type: ignore[attr-defined]  # what python -m calls


def _code(text: str, variables: "dict[str, Any]") -> None:
    sys.argv[0], sys.path[0] = "-c", ""
    exec(compile(text, "<string>", "exec", dont_inherit=True), variables)


def _end(error: BaseException, fd: int, reports: bool) -> None:
    """End a program that failed, with code that only failures need."""
    path = os.path.join(os.path.dirname(__file__), "failure.py")
    failure: dict[str, Any] = {"__file__": path}
    exec(compile(_frozen_importlib_external.SourceFileLoader("", path).get_data(path), path, "exec"), failure)
    failure["end"](error, fd, reports, (__file__, path))


if __name__ == "__main__":
    main()
