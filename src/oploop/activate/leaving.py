"""Rows that have left the model, as rows of the plan table: cleared, archived or removed in the app (design: §5.4).

A record has left when its key is in no row of the model after `where` (rows that are held are still there), and when no
row of the model has found it under another key. A row without a key may be anyone's, so it keeps all of them. What may be
removed is what this sync made; `adopt: all` widens that. What the app shows as deleted, or no longer shows after a
complete read, is gone already.
"""

from __future__ import annotations

from oploop.activate import keys, references, sql
from oploop.activate.bound import BoundField, BoundSync
from oploop.project import Adopt, Mode, OnLeave
from oploop.records import FieldType
from oploop.warehouse.base import Warehouse, literal, quote_table

#: Statuses of left records that are sent as such; `clear` is an update.
STATUS = {OnLeave.DELETE: "remove", OnLeave.ARCHIVE: "archive", OnLeave.CLEAR: "update"}


def looks_for_left(bound: BoundSync, known: sql.Known) -> bool:
    """Whether the diff must look for records whose rows have left: there may be some, and something is done with them."""
    return bound.on_leave is not OnLeave.KEEP and (known.has_state or _adopts_all(bound))


def ctes(bound: BoundSync, warehouse: Warehouse, known: sql.Known, only: str | None) -> list[str]:
    """The statement's part that ends in `gone_rows`, with the columns of `sql.plan_columns`."""
    found = [
        f"candidates AS ({_candidates(bound, known)})",
        f"left_base AS ({_left_base(bound, warehouse, known, only)})",
    ]
    found.append(f"left_compared AS ({sql.compared(bound, warehouse, known, 'left_base', lists=False)})")
    return [*found, f"left_rows AS ({_left_rows(bound, warehouse)})"]


def _adopts_all(bound: BoundSync) -> bool:
    return bound.sync.adopt is Adopt.ALL and bound.sync.mode is Mode.MIRROR and not bound.blind


def _candidates(bound: BoundSync, known: sql.Known) -> str:
    """(the app's id, canonical key or NULL, the id in the state) of records that may have left."""
    rec = (
        f"rec.app = {literal(bound.sync.app)} AND rec.object = {literal(bound.sync.object)} "
        f"AND rec.key_fields = {literal(bound.key_names)}"
    )
    if _adopts_all(bound):
        return f"SELECT a.__remote AS rid, a.__akey AS ckey, a.__remote AS sid FROM ({_app(bound)}) a WHERE NOT a.__deleted"
    known_by = keys.in_form(bound, "rec.canonical_key")
    same = f"{known_by} = s.remote_id" if bound.blind else "rec.remote_id = s.remote_id"
    rid = "COALESCE(rec.remote_id, s.remote_id)"
    if not known.has_records:
        if bound.on_leave is not OnLeave.CLEAR and bound.sync.adopt is not Adopt.ALL:
            return "SELECT NULL::VARCHAR AS rid, NULL::VARCHAR AS ckey, NULL::VARCHAR AS sid WHERE FALSE"
        key = "s.remote_id" if bound.blind else "NULL::VARCHAR"
        return f"SELECT s.remote_id AS rid, {key} AS ckey, s.remote_id AS sid FROM {known.state} s"
    made = (
        "" if bound.on_leave is OnLeave.CLEAR or bound.sync.adopt is Adopt.ALL else "WHERE rec.created_by IS NOT NULL"
    )
    key = f"COALESCE({known_by}, s.remote_id)" if bound.blind else known_by
    return (
        f"SELECT {rid} AS rid, {key} AS ckey, s.remote_id AS sid FROM {known.state} s "
        f"LEFT JOIN oploop.records rec ON {rec} AND {same} {made}"
    )


def _app(bound: BoundSync) -> str:
    """The app's records with the canonical text of their keys."""
    return sql.app_select(bound, with_key=True)


def _left_base(bound: BoundSync, warehouse: Warehouse, known: sql.Known, only: str | None) -> str:
    """Candidates that are no longer in the model, beside what the app holds, and their state."""
    n = range(len(bound.fields))
    joins, gone = "FROM candidates c", "FALSE"
    key = "COALESCE(c.ckey, c.rid)"
    if bound.blind:
        app = "NULL::BIGINT AS __version, NULL::TIMESTAMPTZ AS __read_at"
        nows = [f"NULL::{warehouse.sql_type(bound.fields[i].field.type)} AS n{i}" for i in n]
    else:
        joins += f" LEFT JOIN ({_app(bound)}) a ON a.__remote = c.rid"
        key = "COALESCE(c.ckey, a.__akey, c.rid)"
        app = "a.__version, a.__read_at" + (", a.__stamp" if bound.stamp is not None else "")
        nows = [f"a.n{i}" for i in n]
        gone = "a.__deleted IS TRUE"
        if known.has_state and known.vouched is not None:
            gone = f"({gone} OR (a.__remote IS NULL AND {sql.vouched('s.acked_at', known.vouched)}))"
    state = "NULL::TIMESTAMPTZ AS __acked, NULL::BIGINT AS __receipt"
    if known.has_state:
        joins += f" LEFT JOIN {known.state} s ON s.remote_id = c.sid"
        state = "s.acked_at AS __acked, s.receipt_version AS __receipt"
    values = [sql.state_values(bound, warehouse, known, i) for i in n]
    here = [f"SELECT 1 FROM model m WHERE m.__key = {key}", "SELECT 1 FROM base b WHERE b.__remote = c.rid"]
    if not bound.blind:  # known by one key, shown by another: a row with either is its row
        here.append("SELECT 1 FROM model m WHERE m.__key = a.__akey")
    # one by one: of `NOT (EXISTS ... OR EXISTS ...)` Postgres makes no join, but looks through all of the model for each record
    left = " AND ".join(f"NOT EXISTS ({row})" for row in here)
    removed = ""
    if known.has_removed:  # archived before: it may still be shown
        removed = (
            f" AND NOT EXISTS (SELECT 1 FROM oploop.removed z WHERE z.app = {literal(bound.sync.app)} "
            f"AND z.object = {literal(bound.sync.object)} AND z.remote_id = c.rid AND (z.op = 'archive'"
            + (f" OR {sql.not_news_to('z.removed_at', 'a.__read_at', known.lag)}))" if not bound.blind else "))")
        )
    if known.has_parked:  # an undo brought it back
        listed = ", ".join(map(literal, known.names))
        removed += f" AND NOT EXISTS (SELECT 1 FROM oploop.parked u WHERE u.reason = 'undone' AND u.sync IN ({listed}) AND {keys.in_form(bound, 'u.key')} = {key})"
    mine = f" AND {key} = {literal(only)}" if only is not None else ""
    return (
        f"SELECT {key} AS __key, c.rid AS __remote, {', '.join([app, *nows, state, *values])} {joins} "
        f"WHERE {left} AND NOT COALESCE({gone}, FALSE){removed}{mine}"
    )


def _left_rows(bound: BoundSync, warehouse: Warehouse) -> str:
    """What is done with each, in the columns of the plan."""
    clears = bound.on_leave is OnLeave.CLEAR
    fields = [_cleared(f, i, warehouse) if clears else _untouched(f, i, warehouse) for i, f in enumerate(bound.fields)]
    cols = ["__key", *(_key_value(bound, i, warehouse) for i in range(len(bound.keys))), "__remote"]
    cols += ["__stamp"] if bound.stamp is not None else []
    unsure = "(SELECT count(*) FROM model WHERE __key IS NULL) > 0"
    any_sent = " OR ".join(f"c{i}" for i in range(len(bound.fields))) or "FALSE"
    any_kept = " OR ".join(f"d{i}" for i in range(len(bound.fields))) or "FALSE"
    done = literal(STATUS[bound.on_leave])
    if clears:
        done = f"CASE WHEN {any_sent} THEN 'update' WHEN {any_kept} THEN 'kept' ELSE 'same' END"
        unsure = f"({any_sent}) AND {unsure}"
    inner = f"SELECT {', '.join([*cols, *fields])} FROM left_compared"
    rank = ", NULL::BIGINT AS __rank" if bound.order else ""
    rank += "".join(f", NULL::VARCHAR AS __q{i}" for i in references.own_waits(bound))
    return (
        f"SELECT *, CASE WHEN {unsure} THEN 'left' ELSE {done} END AS __status, 0 AS __bad, NULL::VARCHAR AS __value, "
        f"NULL::VARCHAR AS __why, TRUE AS __left{rank} FROM ({inner}) AS t"
    )


def _key_value(bound: BoundSync, i: int, warehouse: Warehouse) -> str:
    """The key's i-th part in its field's type, from its canonical text."""
    part = "__key" if len(bound.keys) == 1 else f"split_part(__key, chr(31), {i + 1})"
    kind = warehouse.sql_type(bound.keys[i].field.type)
    return f"{part} AS k{i}" if kind == "VARCHAR" else f"TRY_CAST({part} AS {kind}) AS k{i}"


def _untouched(f: BoundField, i: int, warehouse: Warehouse) -> str:
    none = f"NULL::{warehouse.sql_type(f.field.type)}"
    return f"{none} AS w{i}, b{i}, FALSE AS c{i}, FALSE AS d{i}, NOT __known{i} AS o{i}"


def _cleared(f: BoundField, i: int, warehouse: Warehouse) -> str:
    """Only what we set is cleared, and only where it still stands as the app stored it."""
    kind, stands = warehouse.sql_type(f.field.type), f"__known{i} AND b{i} IS NOT NULL"
    if f.in_place:
        left = warehouse.list_merge(f"b{i}", (), f.add)
        return (
            f"{left} AS w{i}, b{i}, ({stands} AND {left} IS DISTINCT FROM b{i}) AS c{i}, FALSE AS d{i}, FALSE AS o{i}"
        )
    if not f.field.nullable:
        return _untouched(f, i, warehouse)
    empty = "'[]'" if f.field.type is FieldType.LIST else f"NULL::{kind}"
    b, t = (sql.comparable(f"{p}{i}", f.field.canonical) for p in ("b", "t"))
    stands += f" AND b{i} <> '[]'" if f.field.type is FieldType.LIST else ""
    return (
        f"{empty} AS w{i}, b{i}, COALESCE({stands} AND {b} IS NOT DISTINCT FROM {t}, FALSE) AS c{i}, "
        f"COALESCE({stands} AND {b} IS DISTINCT FROM {t}, FALSE) AS d{i}, FALSE AS o{i}"
    )


def blocked_by(bound: BoundSync, warehouse: Warehouse) -> int:
    """How many rows of the model have no key, and so keep every left record."""
    parts = [f"({k.wanted}) IS NULL" for k in bound.keys]
    where = f" AND ({bound.where})" if bound.where else ""
    rows = warehouse.rows(
        f"SELECT count(*) FROM {quote_table(bound.model_table)} AS m WHERE ({' OR '.join(parts)}){where}"
    )
    return int(rows[0][0])
