"""Where a record's values come from: column lineage, and the rows upstream that share its ids.

Rows are followed by evidence only: a column that lineage says is the same id, or one of the same name. What cannot be
followed so is left out, not guessed.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from oploop.activate.bound import BoundSync
from oploop.model.base import ColumnSource, Modeler
from oploop.records import META_COLUMNS
from oploop.trace.nouns import SourceRows, TracedField, TracedSync
from oploop.warehouse.base import literal, quote, quote_table
from oploop.workspace import Workspace

ROWS = 3  #: shown of each table
COLUMNS = 6
TABLES = 12
#: Columns by which people know a record, the best first.
_KNOWN_BY = ("name", "title", "subject", "status", "email", "description", "type", "stage", "amount", "currency")
_TIMES = ("created", "created_at", "timestamp", "occurred_at", "updated_at")


def add_lineage(ws: Workspace, rows: Sequence[tuple[BoundSync, TracedSync]]) -> None:
    """Fill in which raw columns each mapped field is computed from, and through which models."""
    for bound, traced in rows:
        for mapping, t in zip(bound.sync.fields, traced.fields, strict=True):
            used = [mapping.column] if mapping.column is not None else _named(mapping.sql, traced.row)
            for column in used:
                _field_lineage(ws.modeler, traced.model, column, t)


def _named(sql: str | None, row: Mapping[str, Any]) -> list[str]:
    """Which of the model's columns an expression names."""
    words = set(re.findall(r"\w+", sql or ""))
    return [c for c in row if c in words]


def _field_lineage(modeler: Modeler, model: str, column: str, t: TracedField) -> None:
    for edge in modeler.lineage(model, column):
        if is_raw(edge.source):
            known = t.sources.setdefault(edge.source, [])
            if edge.source_column not in known:
                known.append(edge.source_column)
        elif edge.source != model and edge.source not in t.through:
            t.through.append(edge.source)


def is_raw(table: str) -> bool:
    """Whether a table is a raw one."""
    return table.startswith("raw_")


def find_sources(ws: Workspace, rows: Sequence[tuple[BoundSync, TracedSync]]) -> list[SourceRows]:
    """Rows of upstream tables, nearest first."""
    if ws.project.models.engine == "none":
        return []
    found: dict[str, SourceRows] = {}
    for _, traced in rows:
        if traced.row:
            _Follower(ws, traced, found).follow()
    return list(found.values())[:TABLES]


class _Follower:
    """Walks from a model's row up to the raw tables."""

    def __init__(self, ws: Workspace, traced: TracedSync, found: dict[str, SourceRows]) -> None:
        self.ws, self.traced, self.found = ws, traced, found
        self.depends = {m.name: list(m.depends_on) for m in ws.modeler.models()}
        self.relevant = self._relevant()
        self._edges: dict[tuple[str, str], Sequence[ColumnSource]] = {}

    def _relevant(self) -> dict[str, list[str]]:
        """Columns that mapped fields are computed from, by table: those are shown first."""
        out: dict[str, list[str]] = {}
        for t in self.traced.fields:
            for table, columns in t.sources.items():
                out.setdefault(table, []).extend(c for c in columns if c not in out.get(table, []))
        return out

    def follow(self) -> None:
        """Breadth first, each table once, with the ids that are known where it is reached."""
        queue = deque([(self.traced.model, ids_of(self.traced.row))])
        reached = {self.traced.model}
        while queue:
            table, facts = queue.popleft()
            for upstream in self.depends.get(table, []):
                if upstream in reached:
                    continue
                match = self._match(table, upstream, facts)
                if match is None:
                    continue
                reached.add(upstream)
                column, value, total = match
                rows = self._rows(upstream, column, value, total)
                self._note(table, rows)
                queue.append((upstream, {**self._more_facts(upstream, column, value, total), **facts}))

    def _note(self, child: str, rows: SourceRows) -> None:
        """A raw table with as many rows as the one model over it says the same again: it is named there."""
        below = self.found.get(child)
        if below is not None and is_raw(rows.table) and below.total == rows.total and below.same_as is None:
            below.same_as = rows.table
        elif rows.table not in self.found:
            self.found[rows.table] = rows

    def _physical(self, table: str) -> str:
        return table if is_raw(table) else self.ws.names.table(table)

    def _match(self, child: str, table: str, facts: Mapping[str, Any]) -> tuple[str, Any, int] | None:
        """By which column the table's rows belong to the record: the one that finds the fewest, but some."""
        columns = self.ws.warehouse.columns(self._physical(table))
        best: tuple[str, Any, int] | None = None
        for fact, value in facts.items():
            for column in self._candidates(child, table, fact, columns):
                total = self._count(table, column, value)
                if total and (best is None or total < best[2]):
                    best = column, value, total
        return best

    def _candidates(self, child: str, table: str, fact: str, columns: Mapping[str, str]) -> list[str]:
        """Columns of a table that hold the same id as the child's column `fact`."""
        edges = self._lineage(child, fact)
        able = [e.source_column for e in edges if e.source == table and e.source_column in columns]
        if fact in columns:
            able.append(fact)
        stem = fact.removesuffix("_id")
        if f"{stem}s" == table.rpartition(".")[2] and "id" in columns:
            able.append("id")
        return list(dict.fromkeys(able))

    def _lineage(self, model: str, column: str) -> Sequence[ColumnSource]:
        if model not in self.depends:
            return ()
        if (model, column) not in self._edges:
            infos = self.ws.warehouse.columns(self._physical(model))
            self._edges[model, column] = self.ws.modeler.lineage(model, column) if column in infos else ()
        return [e for e in self._edges[model, column] if e.model == model]

    def _count(self, table: str, column: str, value: Any) -> int:
        where = f"CAST({quote(column)} AS VARCHAR) = {literal(str(value))}"
        rows = self.ws.warehouse.rows(f"SELECT count(*) FROM {quote_table(self._physical(table))} WHERE {where}")
        total: int = rows[0][0]
        return total

    def _rows(self, table: str, column: str, value: Any, total: int) -> SourceRows:
        kinds = self.ws.warehouse.columns(self._physical(table))
        times = [c for c in (*_TIMES, *kinds) if kinds.get(c, "").startswith(("TIMESTAMP", "DATE"))]
        newest = next((c for c in times if kinds[c] != "DATE"), next(iter(times), None))
        order = f" ORDER BY {quote(newest)} DESC NULLS LAST" if newest else ""
        able = [c for c in self._by_interest(table, kinds) if c != column] or [column]
        rows = self.ws.warehouse.rows(
            f"SELECT {', '.join(quote(c) for c in able)} FROM {quote_table(self._physical(table))} "
            f"WHERE CAST({quote(column)} AS VARCHAR) = {literal(str(value))}{order} LIMIT {ROWS}"
        )
        told = [i for i in range(len(able)) if any(r[i] not in (None, "") for r in rows)][:COLUMNS] or [0]
        shown = [[r[i] for i in told] for r in rows]
        return SourceRows(
            table, f"{column} = {value}", total, [able[i] for i in told], shown, ordered=newest is not None
        )

    def _by_interest(self, table: str, kinds: Mapping[str, str]) -> list[str]:
        """Narrow columns: its id, its time, those that the fields are computed from, the key, what people know it by, then
        the others in order."""
        plain = [c for c, k in kinds.items() if c not in META_COLUMNS and k != "JSON" and "STRUCT" not in k]
        first = [c for c in ("id", *_TIMES) if c in plain][:2]
        wanted = [c for c in self.relevant.get(table, []) if c in plain]
        known_by = [*(k.lower() for k in self.traced.key), *_KNOWN_BY]
        names = sorted((c for c in plain if c.lower() in known_by), key=lambda c: known_by.index(c.lower()))
        return list(dict.fromkeys([*first, *wanted, *names, *plain]))

    def _more_facts(self, table: str, column: str, value: Any, total: int) -> dict[str, Any]:
        """The ids that a single row adds."""
        if total != 1:
            return {}
        select = f"SELECT * FROM {quote_table(self._physical(table))} WHERE CAST({quote(column)} AS VARCHAR) = {literal(str(value))}"
        return ids_of(self.ws.warehouse.query(select).to_pylist()[0])


def ids_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row's ids by their columns' names."""
    return {c: v for c, v in row.items() if c.endswith("_id") and v not in (None, "")}
