"""State per field: a row for each record and sync, in one wide typed table for each object of an app.

A field of an object has one owning sync, so a field's state that stands under another sync's name is that of the sync
which owned it before: its file was renamed, or the field moved to another file. The diff reads it from there; the next
run that may write takes it over (`claim`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from oploop.activate.bound import BoundSync
from oploop.warehouse.base import Warehouse, literal, quote


def state_table(bound: BoundSync) -> str:
    """Where the state per field of an object's records is kept."""
    return table_of(bound.sync.app, bound.sync.object)


def table_of(app: str, obj: str) -> str:
    """The state table of an app's object, quoted."""
    name = obj.replace(".", "__").replace('"', "_")  # Postgres: public.accounts
    return f"oploop_state.{quote(f'{app}__{name}')}"


def state_column(field_name: str, part: str) -> str:
    """A column of the state table: the value `sent` or `stored`, or `at`: when it was last acknowledged."""
    return quote(f"{field_name}.{part}")


def ensure_state(warehouse: Warehouse, table: str, fields: Sequence[tuple[str, str]]) -> None:
    """Make a state table, and the columns of these fields (name, SQL type), where they are missing.

    `log_sync`: the name under which the ledger has the row's last change, when it is no longer the sync's. `as_sent`: the
    app stores all fields as they were sent, whatever stands in the columns of `stored` (see `stored`).
    """
    warehouse.execute(
        f"CREATE TABLE IF NOT EXISTS {table} (remote_id VARCHAR NOT NULL, sync VARCHAR, run_id VARCHAR, number BIGINT, "
        "acked_at TIMESTAMPTZ, receipt_version BIGINT, settled_at TIMESTAMPTZ, log_sync VARCHAR, as_sent BOOLEAN)"
    )
    present = warehouse.columns(table.replace('"', ""))
    for column, kind in (("log_sync", "VARCHAR"), ("as_sent", "BOOLEAN")):
        if column not in present:  # of a warehouse that an earlier release made
            warehouse.execute(f"ALTER TABLE {table} ADD COLUMN {column} {kind}")
    for name, sql_type in fields:
        for part, kind in (("sent", sql_type), ("stored", sql_type), ("at", "TIMESTAMPTZ")):
            if f"{name}.{part}" not in present:
                warehouse.execute(f"ALTER TABLE {table} ADD COLUMN {state_column(name, part)} {kind}")


def stored(row: str, field_name: str) -> str:
    """What the app made of a field that was sent, of a state table's `row`. Mostly just that, and then it stands only once."""
    return f"CASE WHEN {row}.as_sent THEN {row}.{state_column(field_name, 'sent')} ELSE {row}.{state_column(field_name, 'stored')} END"


def former_names(bound: BoundSync, warehouse: Warehouse, present: Mapping[str, str]) -> tuple[str, ...]:
    """The names of other syncs under which state of this sync's fields stands. `present`: the state table's columns."""
    names = [f.field.name for f in bound.fields if f"{f.field.name}.at" in present]
    table, own = state_table(bound), literal(bound.name)
    if not names or not warehouse.rows(f"SELECT 1 FROM {table} WHERE sync <> {own} LIMIT 1"):
        return ()
    known = " OR ".join(f"{state_column(n, 'at')} IS NOT NULL" for n in names)
    rows = warehouse.rows(f"SELECT DISTINCT sync FROM {table} WHERE sync <> {own} AND ({known}) ORDER BY 1")
    return tuple(r[0] for r in rows)


def gone_names(bound: BoundSync, former: Sequence[str]) -> tuple[str, ...]:
    """Of the former owners those that are no sync of the project any more: this sync was called so."""
    return tuple(n for n in former if n not in bound.others)


def source(bound: BoundSync, fields: Sequence[str], former: Sequence[str], present: Mapping[str, str]) -> str:
    """The sync's state as a relation, one row a record; `fields`: the names that the state table has, `present`: its columns."""
    table, own = state_table(bound), literal(bound.name)
    if not former:
        cols = ["remote_id", "sync", "run_id", "number", "acked_at", "receipt_version", "settled_at"]
        for name in fields:
            sent, at = (state_column(name, part) for part in ("sent", "at"))
            cols += [sent, f"{_stored_in(name, present)} AS {state_column(name, 'stored')}", at]
        return f"(SELECT {', '.join(cols)} FROM {table} AS r WHERE sync = {own})"
    return f"({_gathered(table, own, fields, former, (), present)})"


def _stored_in(name: str, present: Mapping[str, str]) -> str:
    return stored("r", name) if "as_sent" in present else state_column(name, "stored")


def _gathered(
    table: str, own: str, fields: Sequence[str], former: Sequence[str], gone: Sequence[str], present: Mapping[str, str]
) -> str:
    """Own rows and those of former owners, one a record. Of one field only one row of a record knows anything.

    The latest change is whose acknowledgement counts; it is the sync's own to judge if it was sent under its name or one
    of `gone`.
    """
    mine = f"sync IN ({', '.join([own, *map(literal, gone)])})"
    cols = ["remote_id"]
    cols += [
        f"any_value({c}) FILTER (WHERE __latest = 1) AS {c}" for c in ("acked_at", "receipt_version", "settled_at")
    ]
    cols += [f"any_value({c}) FILTER (WHERE __latest = 1 AND {mine}) AS {c}" for c in ("run_id", "number")]
    cols.append(f"any_value(sync) FILTER (WHERE __latest = 1 AND {mine}) AS last_name")
    for name in fields:
        at = state_column(name, "at")
        values = (state_column(name, "sent"), _stored_in(name, present), at)
        for part, value in zip(("sent", "stored", "at"), values, strict=True):
            cols.append(f"any_value({value}) FILTER (WHERE {at} IS NOT NULL) AS {state_column(name, part)}")
    names = ", ".join([own, *map(literal, former)])
    rows = (
        "SELECT *, row_number() OVER (PARTITION BY remote_id ORDER BY acked_at DESC NULLS LAST) AS __latest "
        f"FROM {table} WHERE sync IN ({names})"
    )
    return f"SELECT {', '.join(cols)} FROM ({rows}) AS r GROUP BY remote_id"


def claim(warehouse: Warehouse, bound: BoundSync) -> None:
    """Take over what stands under former owners' names: state of the sync's fields, and of a renamed file what is parked.

    All or nothing; afterwards the state is where `source` looks without them.
    """
    table, own = state_table(bound), literal(bound.name)
    present = warehouse.columns(table.replace('"', ""))
    former = former_names(bound, warehouse, present)
    if not former:
        return
    gone = gone_names(bound, former)
    fields = [f.field.name for f in bound.fields if f"{f.field.name}.at" in present]
    values = [state_column(n, part) for n in fields for part in ("sent", "stored", "at")]
    others = f"sync IN ({', '.join(map(literal, former))})"
    every = [quote(c) for c in present if c.endswith(".at")]
    with warehouse.transaction():
        ensure_state(warehouse, table, [])
        present = warehouse.columns(table.replace('"', ""))
        warehouse.execute(
            f"CREATE OR REPLACE TEMP TABLE oploop_claimed AS {_gathered(table, own, fields, former, gone, present)}"
        )
        kept = [c for c in every if c not in values]
        rest = _rest(present, fields)
        whole = {state_column(n, "stored"): stored("t", n) for n in _names(present)}
        kept_too = "".join(f", {whole.get(c, f't.{c}')} AS {c}" for c in rest)
        own_rows = f"SELECT t.remote_id{kept_too} FROM {table} AS t WHERE t.sync = {own}"
        warehouse.execute(f"CREATE OR REPLACE TEMP TABLE oploop_owned AS {own_rows}")
        warehouse.execute(f"DELETE FROM {table} WHERE sync = {own}")
        warehouse.execute(f"UPDATE {table} SET {', '.join(f'{c} = NULL' for c in values)} WHERE {others}")
        nothing = " AND ".join(f"{c} IS NULL" for c in kept) or "TRUE"
        warehouse.execute(f"DELETE FROM {table} WHERE {others} AND {nothing}")
        log = f"CASE WHEN c.last_name <> {own} THEN c.last_name END"
        warehouse.execute(
            f"INSERT INTO {table} (remote_id, sync, run_id, number, acked_at, receipt_version, settled_at, log_sync"
            f"{''.join(f', {c}' for c in [*values, *rest])}) SELECT c.remote_id, {own}, c.run_id, c.number, c.acked_at, "
            f"c.receipt_version, c.settled_at, {log}{''.join(f', c.{c}' for c in values)}{''.join(f', o.{c}' for c in rest)} "
            "FROM oploop_claimed c LEFT JOIN oploop_owned o ON o.remote_id = c.remote_id"
        )
        if gone:
            warehouse.execute(
                f"UPDATE oploop.parked SET sync = {own} WHERE sync IN ({', '.join(map(literal, gone))}) "
                f"AND app = {literal(bound.sync.app)} AND object = {literal(bound.sync.object)}"
            )
            for its in ("paused", "sync_targets"):
                warehouse.execute(
                    f"UPDATE oploop.{its} SET sync = {own} WHERE sync IN ({', '.join(map(literal, gone))})"
                )
            warehouse.execute(f"UPDATE oploop.jobs SET owner = {own} WHERE owner IN ({', '.join(map(literal, gone))})")


def _names(present: Mapping[str, str]) -> list[str]:
    """The fields of a state table with these columns."""
    return [c.removesuffix(".stored") for c in present if c.endswith(".stored")]


def _rest(present: Mapping[str, str], fields: Sequence[str]) -> list[str]:
    """Columns of fields that the sync does not map now, but that its own rows may remember."""
    mapped = {f"{n}.{part}" for n in fields for part in ("sent", "stored", "at")}
    ends = (".sent", ".stored", ".at")
    return [quote(c) for c in present if c.endswith(ends) and c not in mapped]
