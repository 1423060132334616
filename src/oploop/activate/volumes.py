"""Volumes of the ledger: the plan table of a large delivery stands as a part of it, so that nothing is written twice.

`oploop.change_log` is a view: the rows of small deliveries, `oploop.change_rows`, and of each volume its plan table, of
which `before` and `after` are made when somebody asks. A volume has just the changes whose delivery began.

Where all of them went well (`activate/smooth.py`) the plan table also tells what became of them and who is who: so
`oploop.change_outcomes` and `oploop.records` are views too, over `oploop.outcome_rows`, `oploop.record_rows` and such volumes.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime

from oploop.warehouse.base import Warehouse, literal, quote_table

#: A delivery that began so many changes becomes a volume, where the warehouse reads tables column by column.
FROM = 100_000
#: What begins the name of a plan table among the state tables.
PLANS = "oploop_state.plan_"
#: With more volumes than this, the oldest becomes rows: each adds to the time that any question about the ledger takes.
MOST = 20

_COLUMNS = "run_id, sync, number, app, object, key, op, before, after, why, planned_at, release"
_OUTCOMES = "run_id, sync, number, seq, status, error, attempts, remote_id, sent_at, confirmed_at, event_at"
_RECORDS = "app, object, key_fields, canonical_key, remote_id, created_by, known_since"
#: Each view, the table of its rows, and their columns. An earlier release had tables of the views' names.
_VIEWS = (
    ("change_log", "change_rows", _COLUMNS),
    ("change_outcomes", "outcome_rows", _OUTCOMES),
    ("records", "record_rows", _RECORDS),
)
_OUTCOME = (
    "SELECT run_id, sync, number, max(seq) AS seq, arg_min(status, seq) AS said, arg_max(status, seq) AS status, "
    "arg_max(error, seq) AS error, max(remote_id) AS remote_id, max(sent_at) AS sent_at FROM oploop.change_outcomes"
)
#: What became of each change: `said` at first, `status` at last. A condition on run and sync outside of it makes it of those alone.
OUTCOME_OF_EACH = f"{_OUTCOME} GROUP BY 1, 2, 3"
_TABLES = (
    "CREATE SCHEMA IF NOT EXISTS oploop",
    "CREATE TABLE IF NOT EXISTS oploop.change_rows (run_id VARCHAR NOT NULL, sync VARCHAR NOT NULL, number BIGINT NOT NULL, "
    "app VARCHAR NOT NULL, object VARCHAR NOT NULL, key VARCHAR NOT NULL, op VARCHAR NOT NULL, before VARCHAR, after VARCHAR, "
    "why VARCHAR, planned_at TIMESTAMPTZ NOT NULL, release VARCHAR)",
    # what became of a change: delivery's outcome first, then what each look at the app showed; append-only, the latest counts
    "CREATE TABLE IF NOT EXISTS oploop.outcome_rows (run_id VARCHAR NOT NULL, sync VARCHAR NOT NULL, number BIGINT NOT NULL, "
    "seq BIGINT NOT NULL, status VARCHAR NOT NULL, error VARCHAR, attempts INTEGER, remote_id VARCHAR, sent_at TIMESTAMPTZ, "
    "confirmed_at TIMESTAMPTZ, event_at TIMESTAMPTZ)",
    # which record of an app is meant by which key; independent of the names of files
    "CREATE TABLE IF NOT EXISTS oploop.record_rows (app VARCHAR NOT NULL, object VARCHAR NOT NULL, key_fields VARCHAR NOT NULL, "
    "canonical_key VARCHAR NOT NULL, remote_id VARCHAR NOT NULL, created_by VARCHAR, known_since TIMESTAMPTZ NOT NULL)",
    "CREATE TABLE IF NOT EXISTS oploop.volumes (run_id VARCHAR NOT NULL, sync VARCHAR NOT NULL, app VARCHAR NOT NULL, "
    "object VARCHAR NOT NULL, plan_table VARCHAR NOT NULL, before VARCHAR NOT NULL, after VARCHAR NOT NULL, "
    "planned_at TIMESTAMPTZ NOT NULL, release VARCHAR)",
    "CREATE TABLE IF NOT EXISTS oploop.volumes_told (plan_table VARCHAR NOT NULL, key_fields VARCHAR NOT NULL, "
    "remote_id VARCHAR NOT NULL, sent_at VARCHAR NOT NULL, event_at TIMESTAMPTZ NOT NULL, identities BOOLEAN NOT NULL)",
)


def memory(fields: int) -> int:
    """Megabytes that the warehouse may take for a large delivery of so many fields, however many its changes are: two threads
    have some 100,000 rows each at hand. Less would do for fields of ten bytes, as fast; what lacks room is done without a bound."""
    return 110 + 4 * fields


def in_little_memory(warehouse: Warehouse, fields: int, changes: int) -> AbstractContextManager[None]:
    """Where so many changes are a large delivery, the warehouse takes no more memory than for a small one, if that can be."""
    return warehouse.bounded(memory(fields)) if changes >= FROM else nullcontext()


@dataclass(frozen=True, slots=True)
class Told:
    """What a plan table tells besides, where each of its changes made a record. `remote_id`, `sent_at`: expressions over its
    columns; `event_at`: when that was noted; `identities`: it tells who is who, which rows of their own do once one is taken away."""

    key_fields: str
    remote_id: str
    sent_at: str
    event_at: datetime
    identities: bool = True


@dataclass(frozen=True, slots=True)
class Volume:
    """A plan table in the ledger. `before`, `after`: expressions over its columns."""

    run_id: str
    sync: str
    app: str
    object: str
    plan_table: str
    before: str
    after: str
    planned_at: datetime
    release: str | None
    told: Told | None = None

    def select(self, wanted: str | None = None) -> str:
        """Its rows as those of `oploop.change_rows`; `wanted`: a table of (run_id, sync, number), just those that it has."""
        run, sync, app, obj = map(literal, (self.run_id, self.sync, self.app, self.object))
        release = "NULL" if self.release is None else literal(self.release)
        at = f"TIMESTAMPTZ {literal(self.planned_at.isoformat())}"
        some = "" if wanted is None else f" WHERE __number IN ({self.of(wanted)})"
        return (
            f"SELECT {run}, {sync}, __number, {app}, {obj}, __key, __status, {self.before}, {self.after}, __why, {at}, {release} "
            f"FROM {quote_table(self.plan_table)}{some}"
        )

    def outcomes(self) -> str:
        """Its rows as those of `oploop.outcome_rows`; it has `told`."""
        assert self.told is not None
        run, sync, at = (
            literal(self.run_id),
            literal(self.sync),
            f"TIMESTAMPTZ {literal(self.told.event_at.isoformat())}",
        )
        return (
            f"SELECT {run}, {sync}, __number, 1, 'sent', NULL, 1, {self.told.remote_id}, {self.told.sent_at}, NULL, {at} "
            f"FROM {quote_table(self.plan_table)}"
        )

    def records(self) -> str:
        """Its rows as those of `oploop.record_rows`; it has `told`."""
        assert self.told is not None
        app, obj, fields, run = map(literal, (self.app, self.object, self.told.key_fields, self.run_id))
        at = f"TIMESTAMPTZ {literal(self.told.event_at.isoformat())}"
        return (
            f"SELECT {app} AS app, {obj} AS object, {fields} AS key_fields, __key AS canonical_key, {self.told.remote_id} AS remote_id, "
            f"{run} AS created_by, {at} AS known_since FROM {quote_table(self.plan_table)}"
        )

    def of(self, changes: str) -> str:
        """A select of the numbers of its changes that `changes` has, a table of (run_id, sync, number)."""
        return (
            f"SELECT number FROM {changes} AS w WHERE run_id = {literal(self.run_id)} AND sync = {literal(self.sync)}"
        )


def ensure(warehouse: Warehouse) -> None:
    """Make the ledger's rows and the views over them where they are missing."""
    there = set(warehouse.tables())
    if {f"oploop.{name}" for views in _VIEWS for name in views[:2]} <= there:
        return
    with warehouse.transaction():
        for view, rows, _ in _VIEWS:
            if f"oploop.{view}" in there and f"oploop.{rows}" not in there:
                warehouse.execute(f"ALTER TABLE oploop.{view} RENAME TO {rows}")
        for statement in _TABLES:
            warehouse.execute(statement)
        _show(warehouse)


def standing(warehouse: Warehouse) -> list[Volume]:
    """All volumes, oldest first."""
    rows = warehouse.rows(
        "SELECT v.run_id, v.sync, v.app, v.object, v.plan_table, v.before, v.after, v.planned_at, v.release, "
        "t.key_fields, t.remote_id, t.sent_at, t.event_at, t.identities FROM oploop.volumes v "
        "LEFT JOIN oploop.volumes_told t ON t.plan_table = v.plan_table ORDER BY v.planned_at, v.run_id, v.sync"
    )
    told = [Told(*r[9:]) if r[9] is not None else None for r in rows]
    return [replace(Volume(*r[:9]), told=t) for r, t in zip(rows, told, strict=True)]


def add(warehouse: Warehouse, volume: Volume) -> None:
    """Let a plan table stand in the ledger, with the changes that `oploop_outcomes` has, or all, if it is `told`. Within the
    caller's transaction."""
    v, plan = volume, quote_table(volume.plan_table)
    if v.told is not None:
        if warehouse.rows(f"SELECT 1 FROM {plan} WHERE __number IS NULL LIMIT 1"):
            warehouse.execute(f"DELETE FROM {plan} WHERE __number IS NULL")
        warehouse.execute(
            "INSERT INTO oploop.volumes_told VALUES (?, ?, ?, ?, ?, ?)",
            (v.plan_table, v.told.key_fields, v.told.remote_id, v.told.sent_at, v.told.event_at, v.told.identities),
        )
    else:
        [(begun, last)] = warehouse.rows("SELECT count(*), max(number) FROM oploop_outcomes")
        # numbers run from 1 without gaps: where as many rows as were begun reach just as far, they are the same
        if warehouse.rows(f"SELECT count(*), count(__number), max(__number) FROM {plan}") != [(begun, begun, last)]:
            warehouse.execute(
                f"DELETE FROM {plan} WHERE __number IS NULL OR __number NOT IN (SELECT number FROM oploop_outcomes)"
            )
    warehouse.execute(
        "INSERT INTO oploop.volumes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (v.run_id, v.sync, v.app, v.object, v.plan_table, v.before, v.after, v.planned_at, v.release),
    )
    stand = standing(warehouse)
    for old in stand[: max(0, len(stand) - MOST)]:
        warehouse.execute(f"INSERT INTO oploop.change_rows {old.select()}")
        if old.told is not None:
            warehouse.execute(f"INSERT INTO oploop.outcome_rows {old.outcomes()}")
            _identify(warehouse, old)
        _drop(warehouse, old)
    _show(warehouse)


def forget_records(warehouse: Warehouse, gone: str) -> None:
    """Take identities away; `gone`: a condition over the columns of `oploop.records`. Within the caller's transaction."""
    warehouse.execute(f"DELETE FROM oploop.record_rows WHERE {gone}")
    for v in standing(warehouse):
        if v.told is None or not v.told.identities:
            continue
        if warehouse.rows(f"SELECT 1 FROM ({v.records()}) AS r WHERE {gone} LIMIT 1"):
            _identify(warehouse, v, f"({gone}) IS NOT TRUE")
            warehouse.execute("UPDATE oploop.volumes_told SET identities = FALSE WHERE plan_table = ?", (v.plan_table,))
            _show(warehouse)


def _identify(warehouse: Warehouse, volume: Volume, some: str = "TRUE") -> None:
    """Write the identities that a volume tells; `some`: a condition over the columns of `oploop.records`."""
    if volume.told is not None and volume.told.identities:
        warehouse.execute(
            f"INSERT INTO oploop.record_rows SELECT {_RECORDS} FROM ({volume.records()}) AS r WHERE {some}"
        )


def among(warehouse: Warehouse, wanted: str) -> str:
    """A select of the ledger's rows of some changes, for which JSON is made of no others: a join with `oploop.change_log` makes
    it of a whole volume first. `wanted`: a table of (run_id, sync, number), or a select of these in parentheses."""
    runs = set(warehouse.rows(f"SELECT DISTINCT run_id, sync FROM {wanted} AS w"))
    columns = ", ".join(f"r.{c}" for c in _COLUMNS.split(", "))
    rows = (
        f"SELECT {columns} FROM oploop.change_rows r JOIN (SELECT DISTINCT run_id, sync, number FROM {wanted} AS w) a "
        "ON a.run_id = r.run_id AND a.sync = r.sync AND a.number = r.number"
    )
    return " UNION ALL ".join([rows, *(v.select(wanted) for v in standing(warehouse) if (v.run_id, v.sync) in runs)])


def outcomes_among(wanted: str) -> str:
    """OUTCOME_OF_EACH of some changes alone; `wanted`: see `among`. Of a large ledger it takes long to make it of all."""
    return (
        f"{_OUTCOME} WHERE (run_id, sync, number) IN (SELECT run_id, sync, number FROM {wanted} AS w) GROUP BY 1, 2, 3"
    )


def forget(warehouse: Warehouse, old: str) -> None:
    """Take changes out of the volumes; `old`: a table of (run_id, sync, number). Within the caller's transaction."""
    gone = []
    for v in standing(warehouse):
        mine = v.of(old)
        if not warehouse.rows(f"{mine} LIMIT 1"):
            continue
        keys = f"SELECT __key FROM {quote_table(v.plan_table)} WHERE __number IN ({mine})"
        _identify(warehouse, v, f"canonical_key IN ({keys})")  # who is who outlives the ledger
        warehouse.execute(f"DELETE FROM {quote_table(v.plan_table)} WHERE __number IN ({mine})")
        if not warehouse.rows(f"SELECT 1 FROM {quote_table(v.plan_table)} LIMIT 1"):
            gone.append(v)
    for v in gone:
        _drop(warehouse, v)
    if gone:
        _show(warehouse)


def sweep(warehouse: Warehouse) -> None:
    """Drop plan tables that were never delivered: of plans that were stopped, or of runs that died before."""
    held = warehouse.rows("SELECT plan_table FROM oploop.volumes UNION ALL SELECT plan_table FROM oploop.deliveries")
    known = {name for (name,) in held}
    for table in warehouse.tables():
        if table.startswith(PLANS) and table not in known:
            warehouse.execute(f"DROP TABLE {quote_table(table)}")


def _drop(warehouse: Warehouse, volume: Volume) -> None:
    for table in ("volumes", "volumes_told"):
        warehouse.execute(f"DELETE FROM oploop.{table} WHERE plan_table = ?", (volume.plan_table,))
    warehouse.execute(f"DROP TABLE {quote_table(volume.plan_table)}")


def _show(warehouse: Warehouse) -> None:
    """Make the views of what stands now."""
    stand = standing(warehouse)
    told = [v for v in stand if v.told is not None]
    parts = {
        "change_log": [v.select() for v in stand],
        "change_outcomes": [v.outcomes() for v in told],
        "records": [v.records() for v in told if v.told is not None and v.told.identities],
    }
    for view, rows, columns in _VIEWS:
        every = " UNION ALL ".join([f"SELECT {columns} FROM oploop.{rows}", *parts[view]])
        warehouse.execute(f"CREATE OR REPLACE VIEW oploop.{view} AS {every}")
