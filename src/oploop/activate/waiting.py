"""What waits for a person: syncs that are paused, and parked changes that a person releases."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from oploop.activate import states, unknowns, volumes
from oploop.activate.bound import BoundSync
from oploop.records import FieldType
from oploop.warehouse.base import Warehouse, literal

#: How the message of an unknown create begins that a person says was done.
SAID_SENT = "said to be sent"
#: The message of a create that was acknowledged without the new record's id.
UNTOLD = "the app did not tell its id"


@dataclass(frozen=True, slots=True)
class Pause:
    """A sync that sends nothing until it is resumed; `run_id`: the run that paused it, if none of the user's words did."""

    sync: str
    run_id: str | None
    reason: str | None
    since: datetime


def paused(warehouse: Warehouse) -> dict[str, Pause]:
    """All paused syncs by name."""
    if not warehouse.columns("oploop.paused"):
        return {}
    rows = warehouse.rows("SELECT sync, run_id, reason, since FROM oploop.paused")
    return {r[0]: Pause(*r) for r in sorted(rows, key=lambda r: r[3])}  # of a few; asked several times a run


def pause(warehouse: Warehouse, sync: str, run_id: str | None, reason: str | None, now: datetime) -> bool:
    """Pause a sync; False when it was paused already, which stays as it is."""
    if sync in paused(warehouse):
        return False
    warehouse.execute(
        "INSERT INTO oploop.paused (sync, run_id, reason, since) VALUES (?, ?, ?, ?)", (sync, run_id, reason, now)
    )
    return True


def resume(warehouse: Warehouse, sync: str) -> Pause | None:
    """Let a sync send again; the pause that ended, None when there was none."""
    found = paused(warehouse).get(sync)
    warehouse.execute("DELETE FROM oploop.paused WHERE sync = ?", (sync,))
    return found


def matching(sync: str, key: str | None, reason: str | None) -> str:
    """The condition on `oploop.parked` for a sync's rows with this key (as it is shown) and reason."""
    tests = [f"sync = {literal(sync)}"]
    if key is not None:
        tests.append(f"lower(replace(key, chr(31), ',')) = lower({literal(key.strip())})")
    if reason is not None:
        tests.append(f"reason = {literal(reason)}")
    return " AND ".join(tests)


def count_parked(warehouse: Warehouse, where: str) -> dict[str, int]:
    """Parked changes by reason; a change of which several fields are parked counts once."""
    rows = warehouse.rows(f"SELECT reason, count(DISTINCT key) FROM oploop.parked WHERE {where} GROUP BY 1")
    return {r[0]: r[1] for r in rows}


def release(warehouse: Warehouse, where: str) -> None:
    """Take parked changes whose outcome is known off the list, so that the next run sends what the model wants."""
    warehouse.execute(f"DELETE FROM oploop.parked WHERE {where} AND reason <> 'unknown'")


def say(warehouse: Warehouse, bound: BoundSync, where: str, *, sent: bool, now: datetime) -> None:
    """A person says what became of unknown changes: the ledger notes it, and state too of those that were sent.

    One that was not sent is sent anew by the next run. A create that was sent stays parked until a read must show it,
    unless the app's records cannot be read.
    """
    status, error = ("sent", None) if sent else ("failed", "not sent, as a person said")
    at = f"TIMESTAMPTZ {literal(now.isoformat())}"
    rid = "p.key" if bound.blind else "o.remote_id"
    own = f"p.reason = 'unknown' AND p.sync = {literal(bound.name)}"
    asked = (
        "(SELECT l.run_id, l.sync, l.number FROM oploop.change_log l JOIN oploop.parked p ON l.run_id = p.run_id AND l.key = p.key "
        f"AND l.app = p.app AND l.object = p.object WHERE {own})"
    )
    warehouse.execute(
        "CREATE OR REPLACE TEMP TABLE oploop_said AS SELECT l.run_id, l.sync, l.number, l.op, l.after, p.key, o.seq, "
        f"COALESCE(o.sent_at, l.planned_at) AS sent_at, {rid} AS rid FROM oploop.parked p "
        f"JOIN ({volumes.among(warehouse, asked)}) l ON l.run_id = p.run_id AND l.key = p.key AND l.app = p.app AND l.object = p.object "
        f"JOIN ({volumes.outcomes_among(asked)}) o ON o.run_id = l.run_id AND o.sync = l.sync AND o.number = l.number "
        f"WHERE o.status = 'unknown' AND {own} AND p.key IN (SELECT key FROM oploop.parked WHERE {where})"
    )
    with warehouse.transaction():
        warehouse.execute(
            "INSERT INTO oploop.outcome_rows SELECT run_id, sync, number, seq + 1, ?, ?, NULL, rid, NULL, NULL, "
            f"{at} FROM oploop_said",
            (status, error),
        )
        waits = " AND key NOT IN (SELECT key FROM oploop_said WHERE rid IS NULL)" if sent else ""
        if sent:
            take_sent(warehouse, bound, "oploop_said", at)
        if sent and not bound.appends:
            warehouse.execute(
                f"UPDATE oploop.parked SET message = ?, noted_at = {at} WHERE {where} AND reason = 'unknown' "
                "AND key IN (SELECT key FROM oploop_said WHERE rid IS NULL)",
                (f"{SAID_SENT}; waits until a read shows it",),
            )
        warehouse.execute(f"DELETE FROM oploop.parked WHERE {where} AND reason = 'unknown'{waits}")


def note_shown(warehouse: Warehouse, bound: BoundSync, now: datetime) -> None:
    """Unknown creates that were done after all, as a read shows, are unknown no more."""
    if not bound.appends and not unknowns.waits_for_person(bound):
        return  # the diff finds the record, once a complete read has vouched for the others too
    if not unknowns.any_unknown(warehouse, bound):  # mostly none, and the keys of all records need not be looked at
        return
    where = unknowns.created(bound, warehouse)
    if where is None or not warehouse.rows(f"SELECT 1 FROM oploop.parked WHERE {where} LIMIT 1"):
        return
    if bound.appends:
        say(warehouse, bound, where, sent=True, now=now)
    else:
        warehouse.execute(f"DELETE FROM oploop.parked WHERE {where}")


def take_sent(warehouse: Warehouse, bound: BoundSync, done: str, at: str) -> None:
    """Changes that were done are what we sent last, as if the answer had come; of an `append` their keys are remembered.

    `done`: a table of (run_id, sync, number, key, after, sent_at, rid), or a select of these in parentheses; `rid`: by what the
    state knows the record, if anything. `at`: when that was heard, in SQL.
    """
    if bound.appends:
        warehouse.execute(
            f"INSERT INTO oploop.appended SELECT DISTINCT ?, ?, ?, key, 'sent', run_id, {at} FROM {done} AS t",
            (bound.name, bound.sync.app, bound.sync.object),
        )
    else:
        _into_state(warehouse, bound, done)


def _into_state(warehouse: Warehouse, bound: BoundSync, done: str) -> None:
    table = states.state_table(bound)
    fields = [(f.field.name, warehouse.sql_type(f.field.type)) for f in bound.fields]
    states.ensure_state(warehouse, table, fields)
    sets, names, values = [], [], []
    for f, (name, sql_type) in zip(bound.fields, fields, strict=True):
        has = f"json_exists(CAST(d.after AS JSON), {pointer(f.label)})"
        new = noted("d.after", f.label, f.field.type, sql_type)
        for part, value in (("sent", new), ("stored", new), ("at", "d.sent_at")):
            column = states.state_column(name, part)
            sets.append(f"{column} = CASE WHEN {has} THEN {value} ELSE s.{column} END")
            names.append(column)
            values.append(f"CASE WHEN {has} THEN {value} END")
    own = literal(bound.name)
    warehouse.execute(
        f"MERGE INTO {table} s USING (SELECT * FROM {done} AS t WHERE rid IS NOT NULL) d ON s.remote_id = d.rid AND s.sync = {own} "
        "WHEN MATCHED THEN UPDATE SET run_id = d.run_id, number = d.number, log_sync = NULLIF(d.sync, s.sync), "
        f"acked_at = d.sent_at, receipt_version = NULL, settled_at = NULL, {', '.join(sets)} "
        "WHEN NOT MATCHED THEN INSERT (remote_id, sync, run_id, number, acked_at, log_sync, "
        f"{', '.join(names)}) VALUES (d.rid, {own}, d.run_id, d.number, d.sent_at, NULLIF(d.sync, {own}), {', '.join(values)})"
    )


def pointer(label: str) -> str:
    """Where a field stands in the ledger's `before` and `after`, as a SQL text."""
    return literal("/" + label.replace("~", "~0").replace("/", "~1"))


def noted(document: str, label: str, kind: FieldType, sql_type: str) -> str:
    """A field's value in a JSON text of the ledger, in the field's type."""
    if kind in (FieldType.LIST, FieldType.JSON):
        return f"NULLIF(CAST(json_extract(CAST({document} AS JSON), {pointer(label)}) AS VARCHAR), 'null')"
    return f"TRY_CAST((CAST({document} AS JSON) ->> {pointer(label)}) AS {sql_type})"
