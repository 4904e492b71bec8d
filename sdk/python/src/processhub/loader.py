"""Loads the code of a worker anew in the running process."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import os
import re
import sys
import threading
import types
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from typing import TYPE_CHECKING, Callable, Dict, Optional, Sequence, Tuple

from .errors import CannotAccept, Code, refusal_of

if TYPE_CHECKING:
    from .worker import Worker

Loaded = Tuple["Worker", Callable[[], None]]
"""A worker of other code, and what puts the modules back that were there before."""
Loader = Callable[[str], Loaded]
"""Loads the code of a version."""


class _FromSource(SourceFileLoader):
    """Reads the source itself: compiled files are told apart by their time in seconds and length, which two versions may
    share."""

    def get_code(self, fullname: str) -> Optional[types.CodeType]:
        path = self.get_filename(fullname)
        code: types.CodeType = self.source_to_code(self.get_data(path), path)
        return code


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, root: str) -> None:
        self._root = root

    def find_spec(
        self, fullname: str, path: Optional[Sequence[str]], target: Optional[types.ModuleType] = None
    ) -> Optional[ModuleSpec]:
        if not _within(fullname, self._root):
            return None
        spec = PathFinder.find_spec(fullname, path)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _FromSource(spec.loader.name, spec.loader.path)
        return spec


def _within(name: str, root: str) -> bool:
    return name == root or name.startswith(root + ".")


_loading = threading.local()


def is_loading() -> bool:
    """Whether this thread is inside `load_worker`."""
    return getattr(_loading, "now", False)


def load_worker(module: str) -> Loaded:
    """Imports a module and everything in its package as if for the first time, and gives the worker in it. If that fails
    the modules that were there stay: what runs goes on with the code it has."""
    from .worker import Worker

    root = module.split(".")[0]
    before: Dict[str, types.ModuleType] = {n: m for n, m in sys.modules.items() if _within(n, root)}
    for name in before:
        del sys.modules[name]

    def undo() -> None:
        for name in [name for name in sys.modules if _within(name, root)]:
            del sys.modules[name]
        sys.modules.update(before)

    finder = _Finder(root)
    _loading.now = True
    sys.meta_path.insert(0, finder)
    try:
        importlib.invalidate_caches()
        loaded = importlib.import_module(module)
        workers = {id(value): value for value in vars(loaded).values() if isinstance(value, Worker)}
        if len(workers) != 1:
            raise CannotAccept(f"module `{module}` has {len(workers)} workers, it needs exactly one")
        return next(iter(workers.values())), undo
    except BaseException as error:
        undo()
        if isinstance(error, Exception):
            raise refusal_of(error, f"loading module `{module}`", Code.CANNOT_ACCEPT) from error
        raise
    finally:
        sys.meta_path.remove(finder)
        _loading.now = False


def main_module() -> str:
    """The name under which the program that runs can be imported."""
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return str(spec.name)
    return os.path.splitext(os.path.basename(str(getattr(main, "__file__", ""))))[0]


def module_of(pattern: str, vsn: str) -> str:
    """The module that holds the code of a version: `{vsn}` in the pattern stands for the version, with what cannot be in
    a module's name as an underscore."""
    return pattern.replace("{vsn}", re.sub(r"[^A-Za-z0-9_]", "_", vsn))
