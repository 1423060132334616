"""Rows shown to the warehouse under a name, from which they are merged: on a server a temporary table, in DuckDB the Arrow
table itself, which it reads where it stands.

What a failed or killed load left behind is gone with its session: nothing of it was merged and no cursor moved, so the
rows come again.
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from oploop.errors import OploopError
from oploop.warehouse.base import SqlError, Warehouse, quote

NAME = "oploop_staging"


class StagingFailed(OploopError):
    """The warehouse did not take a chunk; nothing of it was merged."""


class Staging:
    """Where chunks are put before they are merged."""

    def __init__(self, warehouse: Warehouse) -> None:
        self._warehouse = warehouse
        self._names: list[str] = []

    def load(self, tables: Mapping[str, pa.Table]) -> Mapping[str, str]:
        """Show each Arrow table under a name of its own; the names, quoted."""
        self.clear()
        names = {key: f"{NAME}_s{i}" for i, key in enumerate(tables)}
        for key, name in names.items():
            self._names.append(name)
            try:
                self._warehouse.register(name, tables[key])
            except SqlError as e:
                raise StagingFailed(f"loading {key} failed: {e.reason}", mend="run again") from e
        return {key: quote(name) for key, name in names.items()}

    def clear(self) -> None:
        """Let go of what was shown."""
        while self._names:
            self._warehouse.unregister(self._names.pop())
