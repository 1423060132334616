"""What a dbt project's manifest tells of its models, for one environment; see `oploop.model.base.Names`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from oploop.errors import FixConfig
from oploop.model.dbt_process import Dbt


class DbtNames:
    """Models, snapshots and seeds by dbt's own names."""

    def __init__(self, dbt: Dbt) -> None:
        self.dbt = dbt

    def files(self) -> Mapping[str, Path]:
        return {name: self.dbt.block.path / m.file for name, m in self.dbt.manifest().models.items()}

    def table(self, model: str) -> str:
        found = self.dbt.manifest().models.get(model)
        if found is None:
            return model
        if not found.table:
            raise FixConfig(
                f"{model} is ephemeral in dbt and stands nowhere", mend="materialize it as a view or a table"
            )
        return found.table

    def declared(self, model: str) -> list[str] | None:
        return None  # its files name what they like; a built model tells


__all__ = ["DbtNames"]
