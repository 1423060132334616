"""From a column of a dbt model back to the raw tables' columns, by the statements that dbt compiled at its last build."""

from __future__ import annotations

from pathlib import Path

from oploop.model.base import ColumnSource
from oploop.project.dbt import DbtModel, Manifest
from oploop.warehouse.base import Warehouse


class Lineage:
    """Edges between columns. `folder`: where dbt left what it compiled; a model that it never built has no edges."""

    def __init__(self, manifest: Manifest, folder: Path, warehouse: Warehouse) -> None:
        self._manifest, self._folder, self._warehouse = manifest, folder, warehouse
        self._models = {m.table.lower(): m for m in manifest.models.values() if m.table}

    def edges(self, model: str, column: str) -> list[ColumnSource]:
        """All edges from a column on, nearest first."""
        found: dict[ColumnSource, None] = {}
        todo, done = [(model, column)], {(model, column)}
        while todo:
            at, name = todo.pop(0)
            for source in sorted(self._parents(self._manifest.models[at], name)):
                found[ColumnSource(at, name, *source)] = None
                if source not in done:
                    done.add(source)
                    todo += [source] if source[0] in self._manifest.models else []
        return list(found)

    def _parents(self, m: DbtModel, column: str) -> set[tuple[str, str]]:
        """(model or table, column) that a column is computed from."""
        import sqlglot
        from sqlglot import exp
        from sqlglot.lineage import lineage

        path = self._folder / "compiled" / m.package / m.file
        dialect = self._warehouse.dialect
        try:
            query = sqlglot.parse_one(path.read_text(encoding="utf-8"), dialect=dialect)
            tables = {".".join(p.name for p in t.parts[-2:]) for t in query.find_all(exp.Table)}
            schema = _nested({t: self._warehouse.columns(t) for t in tables})
            root = lineage(column, query, schema=schema, dialect=dialect)
        except (OSError, UnicodeDecodeError, sqlglot.errors.SqlglotError, ValueError, KeyError):
            return set()  # it was never compiled, or in a dialect of its own
        found = set()
        for node in root.walk():
            if isinstance(node.expression, exp.Table) and not node.downstream:
                table = ".".join(p.name for p in node.expression.parts[-2:])
                found.add(self._spelled(table, node.name.rpartition(".")[2].strip('"')))
        return found

    def _spelled(self, table: str, column: str) -> tuple[str, str]:
        """As a user writes them: a model by its name, a column as its table has it."""
        known = self._warehouse.columns(table)
        own = self._models.get(table.lower())
        return own.name if own else table, next((k for k in known if k.lower() == column.lower()), column)


def _nested(tables: dict[str, dict[str, str]]) -> dict[str, dict[str, dict[str, str]]]:
    """By schema, as sqlglot wants it; tables that are not there are left out, as CTEs are."""
    found: dict[str, dict[str, dict[str, str]]] = {}
    for name, columns in tables.items():
        schema, _, table = name.rpartition(".")
        if schema and columns:
            found.setdefault(schema, {})[table] = {f'"{c}"': k for c, k in columns.items()}
    return found


__all__ = ["Lineage"]
