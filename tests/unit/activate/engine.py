"""A sync without an app: an object described by hand, its raw table, its state and its model on a real warehouse."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from weakref import WeakKeyDictionary

import pyarrow as pa

from oploop.activate import diff as diffing
from oploop.activate import ledger, states
from oploop.activate.bind import bind
from oploop.activate.bound import BoundSync
from oploop.errors import Place
from oploop.extract.cursors import ensure_table
from oploop.project import FieldMapping, Sync
from oploop.records import Column, ColumnType, Field, FieldType, Object, Op, Operation, Replay, Stream
from oploop.warehouse.base import Warehouse, quote, quote_table
from tests.warehouses import Emptied

APP, OBJECT, MODEL = "crm", "people", "mart.people"
PLACE = Place("syncs/people.yml", 1)
T0 = datetime(2025, 3, 1, 12, tzinfo=UTC)
SAFE = Operation(batch=100, replay=Replay.SAFE)
SCHEMAS = ("mart", f"raw_{APP}", "oploop", "oploop_state")
_emptied: WeakKeyDictionary[Warehouse, Emptied] = WeakKeyDictionary()


def at(seconds: float) -> datetime:
    """An instant on the tests' clock."""
    return T0 + timedelta(seconds=seconds)


def micros(seconds: float) -> int:
    """The same as a version."""
    return round(at(seconds).timestamp() * 1_000_000)


def a_field(name: str, kind: FieldType = FieldType.TEXT, **more: Any) -> Field:
    """A field that stands in a raw column of its own name."""
    return Field(name, kind, **({"source": Column(name)} | more))


def an_object(*fields: Field, operations: Mapping[Op, Operation] | None = None, **more: Any) -> Object:
    key = a_field("email", key=True, canonical=more.pop("canonical", Field("", FieldType.TEXT).canonical))
    listed = {f.name: f for f in (*(() if "email" in {f.name for f in fields} else (key,)), *fields)}
    return Object(
        OBJECT,
        operations if operations is not None else {Op.CREATE: SAFE, Op.UPDATE: SAFE},
        **({"stream": OBJECT} | more),
        fields=listed,
    )


def a_sync(*fields: FieldMapping | str, name: str = "people", **more: Any) -> Sync:
    mapped = tuple(FieldMapping(f, column=f) if isinstance(f, str) else f for f in fields)
    return Sync(
        name=name,
        model=MODEL,
        app=APP,
        object=OBJECT,
        fields=mapped,
        place=PLACE,
        **({"key": {"email": "email"}} | more),
    )


def a_stream(lag: float = 0.0, primary_key: tuple[str, ...] = ("id",)) -> Stream:
    return Stream(OBJECT, primary_key, {"id": ColumnType.TEXT}, lag=lag)


@dataclass
class Engine:
    """A warehouse with one sync's tables; `reset` empties it for the next example."""

    warehouse: Warehouse
    raw: str = field(default=f"raw_{APP}.{OBJECT}__all")
    #: of its plan tables, of which the last few stand: a statement that comes again is not translated for Postgres again
    numbers: Iterator[int] = field(default_factory=lambda: itertools.cycle(range(4)))

    def reset(self) -> None:
        w = self.warehouse
        if w.dialect == "duckdb":
            _emptied.setdefault(w, Emptied(w, SCHEMAS)).empty()
            return
        if w.columns("oploop.change_log"):
            self._empty()
            return
        with w.transaction():
            for schema in SCHEMAS:
                w.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
                w.execute(f"CREATE SCHEMA {schema}")
            ledger.ensure(w)
            ensure_table(w)

    def _empty(self) -> None:
        """Empty our tables of a server, drop all others."""
        found = self.warehouse.connection.execute(
            "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
            f"WHERE c.relkind = 'r' AND n.nspname IN ('mart', 'raw_{APP}', 'oploop', 'oploop_state')"
        ).fetchall()
        ours, others = ([t for t in found if (t[0] == "oploop") is own] for own in (True, False))
        statements = [f'DELETE FROM "{s}"."{t}"' for s, t in ours]
        if others:
            statements.append("DROP TABLE " + ", ".join(f'"{s}"."{t}"' for s, t in others) + " CASCADE")
        self.warehouse.connection.execute("; ".join(statements))

    def table(self, name: str, columns: Mapping[str, str], rows: Sequence[Sequence[Any]]) -> None:
        """Make a table with these SQL types and rows (None is NULL)."""
        made = ", ".join(f"{quote(c)} {t}" for c, t in columns.items())
        self.warehouse.execute(f"CREATE OR REPLACE TABLE {quote_table(name)} ({made})")
        marks = ", ".join("?" * len(columns))
        for row in rows:
            self.warehouse.execute(f"INSERT INTO {quote_table(name)} VALUES ({marks})", list(row))

    def model(self, columns: Mapping[str, str], rows: Sequence[Sequence[Any]]) -> None:
        self.table(MODEL, columns, rows)

    def select(self, query: str) -> None:
        """The model as a query."""
        self.warehouse.execute("CREATE SCHEMA IF NOT EXISTS mart")
        self.warehouse.execute(f"CREATE OR REPLACE TABLE {MODEL} AS {query}")

    def records(self, columns: Mapping[str, str], rows: Sequence[Sequence[Any]]) -> None:
        """The raw table: id, these columns, then version, read time and deleted of each row."""
        meta = {"_version": "BIGINT", "_extracted_at": "TIMESTAMPTZ", "_deleted": "BOOLEAN"}
        self.table(self.raw, {"id": "VARCHAR", **columns, **meta}, rows)

    def complete_read(self, began: datetime) -> None:
        self.warehouse.execute(
            "INSERT INTO oploop.streams (app, stream, reading, complete_began) VALUES (?, ?, FALSE, ?)",
            (APP, OBJECT, began),
        )

    def bind(self, sync: Sync, obj: Object, stream: Stream | None = None) -> BoundSync:
        found = stream if stream is not None else (a_stream() if obj.stream else None)
        return bind(sync, obj, found, obj.fields, self.warehouse, MODEL, self.warehouse.columns(MODEL))

    def diff(self, bound: BoundSync, **more: Any) -> diffing.Diff:
        return diffing.diff(bound, self.warehouse, table=f"plan_{next(self.numbers)}", **more)

    def plan_rows(self, found: diffing.Diff) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.warehouse.query(
            f"SELECT * FROM {quote_table(found.table)} ORDER BY __number NULLS LAST, __key"
        ).to_pylist()
        return rows

    def changes(self, found: diffing.Diff) -> list[Any]:
        """The changes as they are delivered."""
        query = f"SELECT {diffing.change_columns(found.bound, 'wc')} FROM {quote_table(found.table)} WHERE __number IS NOT NULL ORDER BY __number"
        table = self.warehouse.query(query)
        return [c for batch in table.to_batches() for c in diffing.changes_of(found.bound, batch)]

    def held(self, found: diffing.Diff) -> list[tuple[str | None, str]]:
        return [(h.key, h.reason) for h in diffing.held_rows(found, self.warehouse)]

    def state(self, bound: BoundSync, rows: Sequence[Mapping[str, Any]]) -> None:
        """State rows: remote_id, acked_at, receipt_version, and per field `name: (sent, stored)`."""
        spec = ledger.spec_of(bound, self.warehouse, None)
        states.ensure_state(self.warehouse, spec.state_table, spec.fields)
        names = [f.field.name for f in bound.fields]
        for row in rows:
            columns, values = ["remote_id", "sync", "acked_at", "receipt_version"], []
            values = [row["remote_id"], bound.name, row["acked_at"], row.get("receipt_version")]
            for name in names:
                if name in row.get("fields", {}):
                    sent, stored = row["fields"][name]
                    for part, value in (("sent", sent), ("stored", stored), ("at", row["acked_at"])):
                        columns.append(states.state_column(name, part))
                        values.append(value)
            self.warehouse.execute(
                f"INSERT INTO {states.state_table(bound)} ({', '.join(columns)}) VALUES ({', '.join('?' * len(values))})",
                values,
            )

    def identity(self, key: str, remote_id: str, key_fields: str = "email") -> None:
        self.warehouse.execute(
            "INSERT INTO oploop.record_rows VALUES (?, ?, ?, ?, ?, 'r1', ?)",
            (APP, OBJECT, key_fields, key, remote_id, T0),
        )


def arrow(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    return pa.Table.from_pylist([dict(r) for r in rows], schema=schema)
