"""What keeps a process quick: pyarrow without pandas, and a collector of garbage that does not look at rows again and again."""

from __future__ import annotations

import gc
import sys
import threading
from importlib.machinery import ModuleSpec
from typing import Any

#: Objects made, less those freed, until the youngest are looked at (CPython: 700). Rows of an API's page are many small
#: dicts that live a moment and hold no cycles.
YOUNG = 50_000


class _NoPandas:
    """Says to one thread that there is no pandas."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name == "pandas" and threading.get_ident() == self._thread:
            raise ModuleNotFoundError("not needed", name=name)
        return None


def arrow_alone() -> None:
    """Keep pyarrow from importing pandas, where that is installed, at the first list that it is given: it wants to know whether
    the list is a Series, and the import takes a second. Whoever asks Arrow for a data frame later has it then.

    pyarrow has no switch for that; it looks once (`pandas-shim.pxi`), so it is made to look now.
    """
    if "pandas" in sys.modules:
        return
    import pyarrow as pa

    hide = _NoPandas()
    sys.meta_path.insert(0, hide)
    try:
        pa.array([None])
    finally:
        sys.meta_path.remove(hide)


def collect_seldom() -> None:
    """Let the collector of garbage look at new objects seldom: it costs a third of reading an app."""
    gc.set_threshold(YOUNG, 20, 20)
