"""Volumes of the ledger: the plan table of a large delivery stands as a part of it, so that nothing is written twice.

`oploop.change_log` is a view: the rows of small deliveries, `oploop.change_rows`, and of each volume its plan table, of
which `before` and `after` are made when somebody asks. A volume has just the changes whose delivery began.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from oploop.warehouse.base import Warehouse, literal, quote_table

#: A delivery that began so many changes becomes a volume, where the warehouse reads tables column by column.
FROM = 100_000
#: What begins the name of a plan table among the state tables.
PLANS = "oploop_state.plan_"
#: With more volumes than this, the oldest becomes rows: each adds to the time that any question about the ledger takes.
MOST = 20

_COLUMNS = "run_id, sync, number, app, object, key, op, before, after, why, planned_at, release"
_TABLES = (
    "CREATE SCHEMA IF NOT EXISTS oploop",
    "CREATE TABLE IF NOT EXISTS oploop.change_rows (run_id VARCHAR NOT NULL, sync VARCHAR NOT NULL, number BIGINT NOT NULL, "
    "app VARCHAR NOT NULL, object VARCHAR NOT NULL, key VARCHAR NOT NULL, op VARCHAR NOT NULL, before VARCHAR, after VARCHAR, "
    "why VARCHAR, planned_at TIMESTAMPTZ NOT NULL, release VARCHAR)",
    "CREATE TABLE IF NOT EXISTS oploop.volumes (run_id VARCHAR NOT NULL, sync VARCHAR NOT NULL, app VARCHAR NOT NULL, "
    "object VARCHAR NOT NULL, plan_table VARCHAR NOT NULL, before VARCHAR NOT NULL, after VARCHAR NOT NULL, "
    "planned_at TIMESTAMPTZ NOT NULL, release VARCHAR)",
)


def memory(fields: int) -> int:
    """Megabytes that the warehouse may take for a large delivery of so many fields, however many its changes are: two threads
    have some 100,000 rows each at hand."""
    return 160 + 4 * fields


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

    def of(self, changes: str) -> str:
        """A select of the numbers of its changes that `changes` has, a table of (run_id, sync, number)."""
        return (
            f"SELECT number FROM {changes} AS w WHERE run_id = {literal(self.run_id)} AND sync = {literal(self.sync)}"
        )


def ensure(warehouse: Warehouse) -> None:
    """Make the ledger's rows and the view over them where they are missing."""
    logged = bool(warehouse.columns("oploop.change_log"))
    if logged and warehouse.columns("oploop.change_rows"):
        return
    with warehouse.transaction():
        if logged:  # of an earlier release, which had a table of that name
            warehouse.execute("ALTER TABLE oploop.change_log RENAME TO change_rows")
        for statement in _TABLES:
            warehouse.execute(statement)
        _show(warehouse)


def standing(warehouse: Warehouse) -> list[Volume]:
    """All volumes, oldest first."""
    rows = warehouse.rows(
        "SELECT run_id, sync, app, object, plan_table, before, after, planned_at, release FROM oploop.volumes "
        "ORDER BY planned_at, run_id, sync"
    )
    return [Volume(*r) for r in rows]


def add(warehouse: Warehouse, volume: Volume) -> None:
    """Let a plan table stand in the ledger, with the changes that `oploop_outcomes` has. Within the caller's transaction."""
    v, plan = volume, quote_table(volume.plan_table)
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
        _drop(warehouse, old)
    _show(warehouse)


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


def forget(warehouse: Warehouse, old: str) -> None:
    """Take changes out of the volumes; `old`: a table of (run_id, sync, number). Within the caller's transaction."""
    gone = []
    for v in standing(warehouse):
        mine = v.of(old)
        if not warehouse.rows(f"{mine} LIMIT 1"):
            continue
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
    warehouse.execute("DELETE FROM oploop.volumes WHERE plan_table = ?", (volume.plan_table,))
    warehouse.execute(f"DROP TABLE {quote_table(volume.plan_table)}")


def _show(warehouse: Warehouse) -> None:
    """Make the view of what stands now."""
    parts = [f"SELECT {_COLUMNS} FROM oploop.change_rows", *(v.select() for v in standing(warehouse))]
    warehouse.execute(f"CREATE OR REPLACE VIEW oploop.change_log AS {' UNION ALL '.join(parts)}")
