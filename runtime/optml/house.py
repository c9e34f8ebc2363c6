"""The server's house: its modules and what they depend on, which no package or file of the user can replace.

Server and model share an interpreter, and so one `sys.modules`. The modules of our folders therefore see an
`__import__` of their own, and the user's modules Python's:

- What lies in deps is imported as `optml.deps.flask` and so on, beside what the user has by the plain name.
- The standard library's modules that the server imports when it starts are shared. Of one that it imports
  later it gets a copy of its own, since a file of the user may have that name by then.
- Anything else is the user's, such as numpy. Dependencies do not see it: nothing optional of theirs is there.
"""

from __future__ import annotations

import builtins
import os
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import machinery
from types import ModuleType
from typing import Any

from . import paths

_OURS = f"{__package__}."
_DEPS = f"{_OURS}deps"
_STDLIB = os.path.dirname(os.__file__)

_users_path: list[str] = []
_shared: set[str] | None = None  # what is imported when the user's code comes; None until then


def isolate(users_path: list[str]) -> None:
    """Have our modules import as described above. Called while the user's path is not in `sys.path`."""
    _users_path[:] = users_path
    deps = sys.modules[_DEPS] = ModuleType(_DEPS)
    deps.__path__ = [paths.DEPS, _STDLIB]
    sys.meta_path.insert(0, _Finder())


def open_to_user() -> None:
    """Let the user's code import from the user's path, and what it does not have there from ours."""
    global _shared
    _shared = set(sys.modules)
    home = os.path.dirname(paths.LIB)
    sys.path[:] = [paths.LIB, *_users_path, paths.DEPS, f"{home}/shims"]


class _Finder:
    """Finds the modules of our package, its dependencies below it."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: Any = None
    ) -> machinery.ModuleSpec | None:
        if not name.startswith(_OURS):
            return None
        found = (_folder(entry).find_spec(name) for entry in path or ())
        return next((spec for spec in found if spec is not None), None)


@cache
def _folder(path: str) -> machinery.FileFinder:
    compiled = (machinery.ExtensionFileLoader, machinery.EXTENSION_SUFFIXES)
    return machinery.FileFinder(path, compiled, (_Loader, machinery.SOURCE_SUFFIXES))


class _Loader(machinery.SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        vars(module)["__builtins__"] = _BUILTINS
        super().exec_module(module)


def _import(
    name: str,
    globals: Mapping[str, Any] | None = None,
    locals: Mapping[str, Any] | None = None,
    fromlist: Sequence[str] | None = (),
    level: int = 0,
) -> ModuleType:
    """`__import__` for the modules of our folders."""
    top = name.partition(".")[0]
    if not level and _is_ours(top, _shared is None):
        module = __import__(f"{_DEPS}.{name}", globals, locals, fromlist or (), 0)
        return module if fromlist else sys.modules[f"{_DEPS}.{top}"]
    by_a_dependency = f"{_DEPS}." in f"{(globals or {}).get('__name__')}"
    if not level and by_a_dependency and not _is_standard(top):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    return __import__(name, globals, locals, fromlist or (), level)


@cache
def _is_ours(top: str, starting: bool) -> bool:
    """Whether the server has a module of its own by this name."""
    if _is_file(paths.DEPS, top):
        return True
    return not starting and _is_standard(top) and top not in (_shared or ()) and _is_file(_STDLIB, top)


def _is_standard(top: str) -> bool:
    # The data of sysconfig has the platform in its name, so that no list knows it.
    return top in sys.stdlib_module_names or top.startswith("_sysconfigdata_")


def _is_file(folder: str, top: str) -> bool:
    return os.path.isdir(f"{folder}/{top}") or os.path.isfile(f"{folder}/{top}.py")


_BUILTINS = {**vars(builtins), "__import__": _import}
