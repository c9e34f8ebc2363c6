"""Import isolation: no package or file of the user replaces a module or dependency of the server.

Server and model share an interpreter and therefore `sys.modules`. So our modules get their own `__import__`,
and the user's modules get Python's:

- Packages in deps are imported as `optml.deps.flask` etc., beside the user's package of the plain name.
- Standard library modules that the server imports at start-up are shared. Of one imported later the server
  gets its own copy, because by then a file of the user may have that name.
- Anything else, such as numpy, is the user's. Dependencies do not see it, so they find no optional packages.
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
_shared: set[str] | None = None  # modules imported at start-up; None until it is over


def isolate(users_path: list[str]) -> None:
    """Set up the imports described above. Call this before the user's path is in `sys.path`."""
    _users_path[:] = users_path
    deps = sys.modules[_DEPS] = ModuleType(_DEPS)
    deps.__path__ = [paths.DEPS, _STDLIB]
    sys.meta_path.insert(0, _Finder())


def open_to_user() -> None:
    """Let user code import from the user's path and, if a module is not there, from ours."""
    global _shared
    _shared = set(sys.modules)
    home = os.path.dirname(paths.LIB)
    sys.path[:] = [paths.LIB, *_users_path, paths.DEPS, f"{home}/shims"]


class _Finder:
    """Finds modules of our package, including the dependencies below it."""

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
    """`__import__` for our modules and dependencies."""
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
    """Whether the server uses its own module of this name."""
    if _is_file(paths.DEPS, top):
        return True
    return not starting and _is_standard(top) and top not in (_shared or ()) and _is_file(_STDLIB, top)


def _is_standard(top: str) -> bool:
    # sysconfig's data module has the platform in its name, so it is not in the list.
    return top in sys.stdlib_module_names or top.startswith("_sysconfigdata_")


def _is_file(folder: str, top: str) -> bool:
    return os.path.isdir(f"{folder}/{top}") or os.path.isfile(f"{folder}/{top}.py")


_BUILTINS = {**vars(builtins), "__import__": _import}
