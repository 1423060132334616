"""What reads tell of changes whose answer was lost, and of records that were removed."""

from __future__ import annotations

from datetime import datetime

from oploop.verify.compare import sent_in, unlike_noted
from oploop.verify.nouns import Target
from oploop.warehouse.base import Warehouse, literal, quote, quote_table

#: The outcomes so far of changes that were unknown once; of the others nothing is asked.
MAYBE_UNKNOWN = (
    "SELECT z.run_id, z.sync, z.number, max(z.seq) AS seq, arg_max(z.status, z.seq) AS status, max(z.remote_id) AS remote_id, "
    "max(z.sent_at) AS sent_at FROM oploop.change_outcomes z JOIN (SELECT DISTINCT run_id, sync, number FROM oploop.change_outcomes "
    "WHERE status = 'unknown') u ON u.run_id = z.run_id AND u.sync = z.sync AND u.number = z.number GROUP BY 1, 2, 3"
)


def settle_removed(target: Target, warehouse: Warehouse, run_id: str, *, now: datetime) -> dict[str, int]:
    """Look whether what was removed is away; counts of a run's removals by status ("waiting": no read can tell yet).

    One that a read of after the removal still shows was brought back by somebody: `drifted`. An archived record may be
    shown for ever, so it counts as confirmed by its acknowledgement.
    """
    if not warehouse.rows("SELECT 1 FROM oploop.removed WHERE sync = ? LIMIT 1", (target.sync,)):
        return {}
    at = f"TIMESTAMPTZ {literal(now.isoformat())}"
    news = f"a._extracted_at > z.removed_at + INTERVAL '{target.lag:f} seconds'"
    absent = "FALSE"
    if target.vouched is not None:
        absent = f"(a.rid IS NULL AND z.removed_at < TIMESTAMPTZ {literal(target.vouched.isoformat())})"
    app = (
        f"SELECT CAST(r.{quote(target.id_column)} AS VARCHAR) AS rid, r._deleted, r._extracted_at FROM "
        f"{quote_table(target.raw_table)} AS r"
    )
    warehouse.execute(
        "CREATE OR REPLACE TEMP TABLE oploop_removals AS SELECT z.run_id, z.sync, z.number, z.remote_id, o.seq, o.status AS before_status, "
        f"CASE WHEN z.op = 'archive' OR a._deleted IS TRUE OR {absent} THEN 'confirmed' "
        f"WHEN a.rid IS NOT NULL AND {news} THEN 'drifted' ELSE 'waiting' END AS status "
        f"FROM oploop.removed z LEFT JOIN ({app}) a ON a.rid = z.remote_id "
        "JOIN (SELECT c.run_id, c.sync, c.number, max(c.seq) AS seq, arg_max(c.status, c.seq) AS status "
        "FROM oploop.change_outcomes c JOIN oploop.removed y ON y.run_id = c.run_id AND y.sync = c.sync AND y.number = c.number "
        f"WHERE y.sync = {literal(target.sync)} GROUP BY 1, 2, 3) o ON o.run_id = z.run_id AND o.sync = z.sync AND o.number = z.number "
        f"WHERE z.sync = {literal(target.sync)} AND (o.status = 'sent' OR z.run_id = {literal(run_id)})"
    )
    confirmed = f"CASE WHEN status = 'confirmed' THEN {at} END"
    warehouse.execute(
        "INSERT INTO oploop.outcome_rows SELECT run_id, sync, number, seq + 1, status, NULL, NULL, remote_id, NULL, "
        f"{confirmed}, {at} FROM oploop_removals WHERE status NOT IN ('waiting', before_status)"
    )
    rows = warehouse.rows(f"SELECT status, count(*) FROM oploop_removals WHERE run_id = {literal(run_id)} GROUP BY 1")
    return {r[0]: r[1] for r in rows}


def acknowledge_removed(target: Target, warehouse: Warehouse, *, now: datetime) -> None:
    """Unknown removals of records that the app no longer shows were done, as if the answer had come.

    Otherwise such a record would pass for one that a person deleted, and its row, once it is back, make none.
    """
    absent = "FALSE"
    if target.vouched is not None:
        absent = f"(a.rid IS NULL AND o.sent_at < TIMESTAMPTZ {literal(target.vouched.isoformat())})"
    here = f"l.sync = {literal(target.sync)} AND l.app = {literal(target.app)} AND l.object = {literal(target.object)}"
    found = (
        f"FROM oploop.change_log l JOIN ({MAYBE_UNKNOWN}) o "
        "ON o.run_id = l.run_id AND o.sync = l.sync AND o.number = l.number "
        f"WHERE {here} AND l.op IN ('archive', 'remove') AND o.status = 'unknown' AND o.remote_id IS NOT NULL"
    )
    if not warehouse.rows(f"SELECT 1 {found} LIMIT 1"):
        return
    app = f"SELECT CAST(r.{quote(target.id_column)} AS VARCHAR) AS rid, r._deleted FROM {quote_table(target.raw_table)} AS r"
    warehouse.execute(
        "CREATE OR REPLACE TEMP TABLE oploop_taken AS SELECT o.*, a.rid FROM "
        f"(SELECT l.run_id, l.sync, l.number, l.key, l.op, o.seq, o.remote_id, o.sent_at {found}) o "
        f"LEFT JOIN ({app}) a ON a.rid = o.remote_id WHERE a._deleted IS TRUE OR {absent}"
    )
    at = f"TIMESTAMPTZ {literal(now.isoformat())}"
    with warehouse.transaction():
        warehouse.execute(
            "INSERT INTO oploop.outcome_rows SELECT run_id, sync, number, seq + 1, 'confirmed', NULL, NULL, remote_id, "
            f"NULL, {at}, {at} FROM oploop_taken"
        )
        warehouse.execute(
            f"INSERT INTO oploop.removed SELECT {literal(target.app)} AS app, {literal(target.object)} AS object, remote_id, key, op, "
            "sync, run_id, number, sent_at FROM oploop_taken "
            "QUALIFY row_number() OVER (PARTITION BY remote_id ORDER BY run_id DESC) = 1"
        )
        ids = "IN (SELECT remote_id FROM oploop_taken)"
        mine = f"app = {literal(target.app)} AND object = {literal(target.object)}"
        target.forget_records(warehouse, f"{mine} AND remote_id {ids}")
        warehouse.execute(f"DELETE FROM {target.state_table} WHERE remote_id {ids}")
        warehouse.execute(
            "DELETE FROM oploop.parked WHERE reason = 'unknown' AND sync = ? AND EXISTS "
            "(SELECT 1 FROM oploop_taken t WHERE t.key = parked.key AND t.run_id = parked.run_id)",
            (target.sync,),
        )


def acknowledge(target: Target, warehouse: Warehouse, *, now: datetime) -> None:
    """Unknown updates that the app shows as done were done: they are what we sent last, as if the answer had come.

    Otherwise the app's value would pass for a person's edit, and be left alone for ever once the model goes back.
    """
    nows = "".join(f", {f.now} AS n{i}" for i, f in enumerate(target.fields))
    held = " AND ".join(
        [f"(NOT {sent_in(f.label)} OR NOT ({unlike_noted(i, f)}))" for i, f in enumerate(target.fields)]
        + [f"NOT {sent_in(label)}" for _, label in target.unshown]  # nobody can see whether that arrived
    )
    own = literal(target.sync)
    unsure = f"(SELECT * FROM ({MAYBE_UNKNOWN}) AS o WHERE status = 'unknown')"
    warehouse.execute(
        "CREATE OR REPLACE TEMP TABLE oploop_arrived AS SELECT l.run_id, l.sync, l.number, l.key, l.after, o.seq, o.sent_at, a.* "
        f"FROM ({target.among(warehouse, unsure)}) l JOIN {unsure} o "
        "ON o.run_id = l.run_id AND o.sync = l.sync AND o.number = l.number "
        f"JOIN {target.state_table} s ON s.remote_id = o.remote_id AND s.sync = {own} AND s.run_id < l.run_id "
        f"JOIN (SELECT CAST(r.{quote(target.id_column)} AS VARCHAR) AS rid{nows} FROM {quote_table(target.raw_table)} AS r "
        "WHERE NOT r._deleted) a ON a.rid = o.remote_id "
        f"WHERE l.sync IN ({own}, s.log_sync) AND l.op = 'update' AND {held or 'FALSE'} "
        "QUALIFY row_number() OVER (PARTITION BY o.remote_id ORDER BY l.run_id DESC) = 1"
    )
    if not warehouse.rows("SELECT 1 FROM oploop_arrived LIMIT 1"):
        return
    at = f"TIMESTAMPTZ {literal(now.isoformat())}"
    sets = []
    for i, f in enumerate(target.fields):
        for part, value in (("sent", f"l.n{i}"), ("stored", f"l.n{i}"), ("at", "l.sent_at")):
            column = quote(f"{f.name}.{part}")
            sets.append(f"{column} = CASE WHEN {sent_in(f.label)} THEN {value} ELSE s.{column} END")
    with warehouse.transaction():
        warehouse.execute(
            "INSERT INTO oploop.outcome_rows SELECT run_id, sync, number, seq + 1, 'confirmed', NULL, NULL, rid, NULL, "
            f"{at}, {at} FROM oploop_arrived"
        )
        warehouse.execute(
            f"UPDATE {target.state_table} AS s SET run_id = l.run_id, number = l.number, acked_at = l.sent_at, "
            f"receipt_version = NULL, settled_at = {at}, {', '.join([*sets, 'log_sync = NULLIF(l.sync, s.sync)'])} "
            f"FROM oploop_arrived l WHERE l.rid = s.remote_id AND s.sync = {own}"
        )
        warehouse.execute(
            f"DELETE FROM oploop.parked WHERE reason = 'unknown' AND sync = {own} AND EXISTS "
            "(SELECT 1 FROM oploop_arrived l WHERE l.key = parked.key)"
        )
