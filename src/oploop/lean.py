"""What keeps a process quick: pyarrow without pandas, and where it can be without numpy, and a collector of garbage that does
not look at rows again and again."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # importing it takes longer than all the rest here
    from importlib.abc import Loader

#: Objects made, less those freed, until the youngest are looked at (CPython: 700). Rows of an API's page are many small
#: dicts that live a moment and hold no cycles.
YOUNG = 50_000
#: The same while modules are loaded, of whose objects hardly one is freed: 20 ms of a start went into looking at them.
LOADING = 2_000_000
_own = False  #: see `own_process`


class _Hidden:
    """Says to one thread that a package is not there."""

    def __init__(self, package: str) -> None:
        self._package, self._thread = package, threading.get_ident()

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name == self._package and threading.get_ident() == self._thread:
            raise ModuleNotFoundError("not needed", name=name)
        return None


@contextmanager
def _hidden(package: str) -> Iterator[None]:
    hide = _Hidden(package)
    sys.meta_path.insert(0, hide)
    try:
        yield
    finally:
        sys.meta_path.remove(hide)


class _Arrow:
    """Finds pyarrow, and has it look for pandas as soon as it is loaded."""

    numpy = True  #: whether pyarrow is to know numpy

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "pyarrow":
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Looking(spec.loader, self.numpy)  # type: ignore[assignment]  # a loader by what it does
        return spec


class _Looking:
    """Loads pyarrow as its own loader does."""

    def __init__(self, own: Loader, numpy: bool) -> None:
        self._own, self._numpy = own, numpy

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._own.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if self._numpy or "numpy" in sys.modules:
            self._own.exec_module(module)
        else:
            with _hidden("numpy"):
                self._own.exec_module(module)
                import_module("pyarrow.compute")  # which asks for itself
        if "pandas" not in sys.modules:  # else it is pandas that imports pyarrow, or has been there before
            _look()

    def __getattr__(self, name: str) -> Any:  # what else is asked of a loader: where the source stands, resources
        return getattr(self._own, name)


def arrow_alone() -> None:
    """Keep pyarrow from importing pandas, where that is installed, at the first list that it is given: it wants to know whether
    the list is a Series, and the import takes a second. Whoever asks Arrow for a data frame later has it then.

    pyarrow has no switch for that; it looks once (`pandas-shim.pxi`), so it is made to look when it is loaded: now, or later,
    as it is loaded only by those who have rows for it.
    """
    if "pandas" in sys.modules:
        return
    if "pyarrow" in sys.modules:
        _look()
    elif not any(isinstance(finder, _Arrow) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Arrow())


def _look() -> None:
    """Let pyarrow look for pandas while there seems to be none."""
    import pyarrow as pa

    with _hidden("pandas"):
        pa.array([None])


def arrow_without_numpy() -> None:
    """Let pyarrow, if it is not loaded yet, do without numpy as if that were not installed: the import takes a fifth of a second.

    For a process in which nobody hands it arrays of numpy, or asks it for some: it knows none as long as the process lives.
    Others may import numpy all the same, and buffers of its arrays are buffers like any. Does nothing where the process is not
    our own (see `own_process`).
    """
    for finder in sys.meta_path:
        if _own and isinstance(finder, _Arrow):
            finder.numpy = False


def own_process() -> None:
    """Say that this process runs a command and nothing else, so that what holds for all of it may be set."""
    global _own
    _own = True
    gc.set_threshold(LOADING, 20, 20)


def loaded() -> None:
    """Say that most of what a command loads is there by now, which the collector need never look at again."""
    if _own:
        gc.freeze()
        collect_seldom()


def collect_seldom() -> None:
    """Let the collector of garbage look at new objects seldom: it costs a third of reading an app."""
    gc.set_threshold(YOUNG, 20, 20)


def leave_quickly() -> None:
    """Let Python not look for cycles in all that is there when the process ends, which takes it a tenth of a second: what is
    to be closed has been closed by then, and memory is the system's."""
    gc.freeze()
