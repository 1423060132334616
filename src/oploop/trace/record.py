"""The record as the app holds it, beside what the syncs want, sent and saw stored."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any
from urllib.parse import urlsplit

import orjson

from oploop.activate import diff as diffing
from oploop.activate import rekeying
from oploop.activate.bound import BoundField, BoundSync
from oploop.activate.convert import key_form
from oploop.errors import FixConfig, OploopError, did_you_mean
from oploop.project import OnLeave
from oploop.records import DELETED, EXTRACTED_AT, VERSION, Canonical, Field, FieldType
from oploop.trace.nouns import Past, Trace, TracedField, TracedSync
from oploop.trace.sources import add_lineage, find_sources
from oploop.warehouse.base import literal, quote, quote_table, raw_table
from oploop.warehouse.forms import canonical
from oploop.workspace import Workspace

#: Columns that help a person to recognise a record, where its stream has them.
ABOUT = ("name", "subject", "title", "email", "status")


@dataclass(frozen=True, slots=True)
class Record:
    """A row of the raw table. `read_at` and `version` as in every raw table; without `read_at` one that we made and no read has
    shown yet."""

    remote_id: str
    read_at: datetime | None
    version: int
    deleted: bool
    about: Mapping[str, Any]


def key_of(text: str) -> str:
    """The key in a key or in an address of the app: of an address the last part that has a digit in it."""
    if "://" not in text:
        return text.strip()
    parts = urlsplit(text)
    words = [w for w in f"{parts.path}/{parts.fragment}".split("/") if w]
    able = [w.removesuffix(".json") for w in words if re.search(r"\d", w)]
    if not able:
        raise FixConfig(f"no id can be seen in {text!r}", mend="give the record's id or key instead")
    return able[-1]


async def trace(ws: Workspace, target: str, text: str, say: Callable[[str], None] = lambda _: None) -> Trace:
    """Trace one record. `target`: app.object; `text`: the app's id, a sync's key, or an address of the app.

    FixConfig for an unknown app or object, and for a record that neither the app's last read nor a model knows.
    """
    app_name, object_name = _target(ws, target)
    key = key_of(text)
    say(f"asking {app_name}")
    syncs = [s for s in ws.project.syncs.values() if (s.app, s.object) == (app_name, object_name)]
    known = [await _as_delivered(ws, await ws.bound(s)) for s in syncs]
    bound = [b for b, _ in known]
    for b in bound:
        if (unread := b.unread(ws.warehouse)) is not None:
            raise FixConfig(f"{unread} has not been read yet", mend="run oploop extract")
    record = _find(ws, app_name, object_name, key, bound) or _made(ws, key, bound)
    result = Trace(app_name, object_name, None, None, deleted=False)
    if record is not None:
        result.remote_id, result.read_at, result.deleted = record.remote_id, record.read_at, record.deleted
        result.about = dict(record.about)
    rows = [(b, _sync(ws, b, record, key, waits)) for b, waits in known]
    result.syncs = [t for _, t in rows]
    if record is None and not any(t.row for t in result.syncs):
        raise _unknown(ws, target, key, app_name, object_name)
    result.history = _history(ws, app_name, object_name, record, rows)
    if ws.project.models.engine != "none" and rows:
        say("loading the models")
        await ws.modeling()
        add_lineage(ws, rows)
    result.sources = find_sources(ws, rows)
    return result


def _target(ws: Workspace, target: str) -> tuple[str, str]:
    app, dot, obj = target.partition(".")
    if not dot or not obj:
        raise FixConfig(f"{target!r} is not app.object", mend="write it like zendesk.tickets")
    if app not in ws.project.apps:
        mend = did_you_mean(app, ws.project.apps) if ws.project.apps else "oploop connect APP adds one"
        raise FixConfig(f"there is no app {app!r} in oploop.yml", mend=mend)
    objects = ws.app(app).objects
    if obj not in objects:
        raise FixConfig(f"{app} has no object {obj!r}", mend=did_you_mean(obj, objects))
    written = {s.object for s in ws.project.syncs.values() if s.app == app}
    full = ws.app(app).full_name
    return app, obj if obj in written else next((o for o in sorted(written) if full(o) == full(obj)), obj)


def _unknown(ws: Workspace, target: str, key: str, app: str, obj: str) -> OploopError:
    stream = ws.app(app).objects[obj].stream
    if stream is None or not ws.warehouse.columns(raw_table(app, stream)):
        return FixConfig(f"{target} has not been read yet", mend="run oploop extract")
    return FixConfig(
        f"no record of {target} has the id or key {key!r}", mend="check it, or run oploop extract to read anew"
    )


# -- the record as the app holds it -------------------------------------------------------------------------------------


def _find(ws: Workspace, app: str, obj: str, key: str, bound: Sequence[BoundSync]) -> Record | None:
    """The record by the app's own id, else by a sync's key, else by a field that identifies one; live ones first."""
    described = ws.app(app).objects[obj]
    if described.stream is None:
        return None
    table = raw_table(app, described.stream, deleted_too=True)
    columns = ws.warehouse.columns(table)
    if not columns:
        return None
    tests = [f"CAST(r.{quote(described.id_column)} AS VARCHAR) = {literal(key)}"]
    for b in bound:
        if not b.blind:
            wanted = diffing.canonical_key(b, key, ws.warehouse) if len(b.keys) == 1 or "," in key else None
            if wanted is not None:
                tests.append(f"{_joined([k.now for k in b.keys])} = {literal(wanted)}")
    tests += [t for f in described.fields.values() if (t := _by_field(ws, f, key)) is not None]
    about = [c for c in ABOUT if c in columns]
    select = ", ".join(
        [f"CAST(r.{quote(described.id_column)} AS VARCHAR)", *(f"r.{c}" for c in (EXTRACTED_AT, VERSION, DELETED))]
    )
    more = "".join(f", CAST(r.{quote(c)} AS VARCHAR)" for c in about)
    for test in tests:
        rows = ws.warehouse.rows(
            f"SELECT {select}{more} FROM {quote_table(table)} r WHERE {test} ORDER BY r.{DELETED} LIMIT 1"
        )
        if rows:
            rid, read_at, version, deleted, *values = rows[0]
            shown = {c: v for c, v in zip(about, values, strict=True) if v is not None}
            return Record(rid, read_at, version, bool(deleted), shown)
    return None


def _made(ws: Workspace, key: str, bound: Sequence[BoundSync]) -> Record | None:
    """The record that a sync made by this key and that no read has shown yet, by its id from the answer."""
    if not ws.warehouse.columns("oploop.records"):
        return None
    for b in bound:
        wanted = diffing.canonical_key(b, key, ws.warehouse) if len(b.keys) == 1 or "," in key else None
        if b.blind or wanted is None:
            continue
        rows = ws.warehouse.rows(
            "SELECT remote_id FROM oploop.records WHERE app = ? AND object = ? AND key_fields = ? AND canonical_key = ? LIMIT 1",
            (b.sync.app, b.sync.object, b.key_names, wanted),
        )
        if rows:
            return Record(rows[0][0], None, 0, deleted=False, about={})
    return None


def _by_field(ws: Workspace, f: Field, key: str) -> str | None:
    """A test on a field that may identify a record."""
    if not f.key or f.source is None:
        return None
    form = key_form(f)
    return f"{canonical(ws.warehouse.field_value(f.source, f.type, 'r'), form)} = {canonical(literal(key), form)}"


def _joined(parts: Sequence[str]) -> str:
    return " || chr(31) || ".join(f"({p})" for p in parts)


# -- one sync ------------------------------------------------------------------------------------------------------------


async def _as_delivered(ws: Workspace, b: BoundSync) -> tuple[BoundSync, str | None]:
    """A sync by the key that its records are known by; what it waits for, if its file has another one, or another object."""
    was = rekeying.delivered(ws.warehouse, b.name)
    if was is None or was.is_of(b):
        return b, None
    go = f"nothing is sent before oploop run --rekey {b.name}"
    if (was.app, was.object) != (b.sync.app, b.sync.object):
        return b, f"it has delivered to {was.app}.{was.object} until now; {go}"
    waits = f"its records are known by {was.key_fields}, its file says {b.key_names}; {go}"
    try:
        return await ws.bound(replace(b.sync, key=was.key)), waits
    except FixConfig:  # the old key's column is no longer in the model
        return b, waits


def _sync(ws: Workspace, b: BoundSync, record: Record | None, key: str, waits: str | None) -> TracedSync:
    """How one sync stands to the record, field by field. `waits`: for what it sends nothing at all."""
    found = _canonical(ws, b, record, key)
    row, wanted, inside = _model_row(ws, b, found)
    plan = _plan_row(ws, b, found) if inside else {}
    status = plan.get("__status") or ("same" if inside else "absent")
    says = _says(ws, b, status, plan, row, record) if waits is None else waits
    status = status if waits is None else "rekey"
    state = _state(ws, b, record)
    now = _now(ws, b, record)
    traced = TracedSync(b.name, b.sync.model, {k.column: row.get(k.column) for k in b.keys}, status, says, row=row)
    traced.explain = {e: row[e] for e in b.explain if e in row}
    seen = record is not None and _seen(ws, b, record, state)
    unsure = _unsure(ws, b)
    for i, f in enumerate(b.fields):
        t = TracedField(f.label, _shown(now[i], f), _shown(wanted[i], f) if row else None)
        t.sent, t.stored = (_shown(state.get(f"{f.field.name}.{part}"), f) for part in ("sent", "stored"))
        t.sent_at = state.get(f"{f.field.name}.at")
        if f.in_place:  # no plan's row: what the app holds has all that is to be added already
            t.wanted = _shown(plan[f"w{i}"], f) if plan else t.now if inside else None
        t.why = _why(ws, f, t, plan.get(f"c{i}"), plan.get(f"d{i}"), status, seen=seen, inside=inside, unsure=unsure)
        traced.fields.append(t)
    return traced


def _canonical(ws: Workspace, b: BoundSync, record: Record | None, key: str) -> str | None:
    """The record's key in the sync's canonical form, from the app's record or as the user wrote it."""
    if record is not None and not b.blind:
        assert b.raw_table is not None
        rows = ws.warehouse.rows(
            f"SELECT {_joined([k.now for k in b.keys])} FROM {quote_table(b.raw_table)} r "
            f"WHERE CAST(r.{quote(b.id_column)} AS VARCHAR) = {literal(record.remote_id)}"
        )
        if rows and rows[0][0] is not None:
            return str(rows[0][0])
    if len(b.keys) > 1 and "," not in key:
        return None
    return diffing.canonical_key(b, key, ws.warehouse)


def _model_row(ws: Workspace, b: BoundSync, key: str | None) -> tuple[dict[str, Any], list[Any], bool]:
    """(the model's row, the wanted values, whether the sync's `where` lets it in); empty when there is none."""
    empty: tuple[dict[str, Any], list[Any], bool] = ({}, [None] * len(b.fields), False)
    if key is None:
        return empty
    wanted = ", ".join(f'{f.wanted} AS "__w{i}"' for i, f in enumerate(b.fields))
    inside = f"COALESCE(({b.where}), FALSE)" if b.where else "TRUE"
    table = ws.warehouse.query(
        f'SELECT m.*, {wanted}, {inside} AS "__inside" FROM {quote_table(b.model_table)} AS m '
        f'WHERE {_joined([k.wanted for k in b.keys])} = {literal(key)} ORDER BY "__inside" DESC LIMIT 1'
    )
    if not table.num_rows:
        return empty
    values: dict[str, Any] = table.to_pylist()[0]
    wants = [values.pop(f"__w{i}") for i in range(len(b.fields))]
    return values, wants, bool(values.pop("__inside")) if "__inside" in values else False


def _plan_row(ws: Workspace, b: BoundSync, key: str | None) -> dict[str, Any]:
    """The row of a plan for this record alone; empty when there is nothing to be said of it."""
    if key is None:
        return {}
    table = diffing.plan_table_name(b.name, "trace")
    diff = diffing.diff(b, ws.warehouse, table=table, key=key.replace(chr(31), ","))
    rows: list[dict[str, Any]] = ws.warehouse.query(f"SELECT * FROM {quote_table(table)} LIMIT 1").to_pylist()
    if not rows:
        return {}
    if rows[0]["__status"] == "held":
        rows[0]["__reason"] = diffing.reason(diff.rules, rows[0]["__bad"], rows[0]["__value"])[0]
    return rows[0]


def _state(ws: Workspace, b: BoundSync, record: Record | None) -> dict[str, Any]:
    """What is kept of the record: sent, stored and when, per field."""
    known = diffing.look(b, ws.warehouse)
    if record is None or not known.has_state:
        return {}
    rows = ws.warehouse.query(
        f"SELECT * FROM {known.state} AS s WHERE remote_id = {literal(record.remote_id)}"
    ).to_pylist()
    return dict(rows[0]) if rows else {}


def _now(ws: Workspace, b: BoundSync, record: Record | None) -> list[Any]:
    if record is None or b.blind or b.raw_table is None:
        return [None] * len(b.fields)
    values = ", ".join(f"{f.now or 'NULL'}" for f in b.fields)
    rows = ws.warehouse.rows(
        f"SELECT {values} FROM {quote_table(b.raw_table)} r WHERE CAST(r.{quote(b.id_column)} AS VARCHAR) = {literal(record.remote_id)}"
    )
    return list(rows[0]) if rows else [None] * len(b.fields)


def _seen(ws: Workspace, b: BoundSync, record: Record, state: Mapping[str, Any]) -> bool:
    """Whether the app's record, as read, is news to what we last sent (the rule of `activate.sql.superseded`)."""
    acked = state.get("acked_at")
    if acked is None:
        return True
    vouched = diffing.vouched_until(b, ws.warehouse)
    receipt = state.get("receipt_version")
    lag = timedelta(seconds=0.0 if receipt is not None or b.stream is None else b.stream.lag)
    at = record.read_at
    by_read = at is not None and record.version >= (receipt or 0) and at > acked + lag
    return by_read or (vouched is not None and acked < vouched)


def _unsure(ws: Workspace, b: BoundSync) -> tuple[datetime, float] | None:
    """(the time up to which reads show all that happened, by how many seconds they lag); None where they do not lag."""
    vouched = diffing.vouched_until(b, ws.warehouse)
    if vouched is None or b.stream is None or not b.stream.lag:
        return None
    return vouched, b.stream.lag


def _shown(value: Any, f: BoundField) -> Any:
    if isinstance(value, str) and f.field.type in (FieldType.LIST, FieldType.JSON):
        return orjson.loads(value)
    return value


# -- in words ------------------------------------------------------------------------------------------------------------


def _says(
    ws: Workspace, b: BoundSync, status: str, plan: Mapping[str, Any], row: Mapping[str, Any], record: Record | None
) -> str:
    """How a sync stands to the record as a whole."""
    match status:
        case "held":
            return f"held: {plan['__reason']}"
        case "parked":
            return f"parked: {_parked(ws, b, plan['__key'])}"
        case "gone":
            return "deleted in the app; not made anew"
        case "missing":
            return "the app has no such record, and this sync makes none"
        case "create":
            return "not in the app yet; the next run makes it"
        case "update":
            return "the next run sends what differs"
        case "waiting":
            return "waits for a record that the next run makes, to which it refers"
        case "kept":
            return "differs where somebody changed it in the app; left alone"
        case "absent" if row:
            return f"left out by the sync's `where: {b.sync.where}`"
        case "absent":
            then = (
                "the record is left as it is" if b.on_leave is OnLeave.KEEP else f"see its on_leave: {b.on_leave.value}"
            )
            return f"{b.sync.model} has no row with this key; {then}"
    if record is None:
        return "the app's records cannot be read" if b.blind else "not found in the app"
    return "nothing to send"


#: What parked changes wait for, where it is not another value of the model's.
_WAITS = {
    "conflict": "waits for a decision",
    "tug-of-war": "waits for a decision",
    "unknown": "waits until a read shows it",
}


def _parked(ws: Workspace, b: BoundSync, key: str) -> str:
    rows = ws.warehouse.rows("SELECT reason, message FROM oploop.parked WHERE sync = ? AND key = ?", (b.name, key))
    if not rows:
        return "waits until something changes"
    reason, message = rows[0]
    return f"{reason}{f' ({message})' if message else ''}; {_WAITS.get(reason, 'waits until the model wants another value')}"


def _why(
    ws: Workspace,
    f: BoundField,
    t: TracedField,
    send: Any,
    kept: Any,
    status: str,
    *,
    seen: bool,
    inside: bool,
    unsure: tuple[datetime, float] | None,
) -> str:
    """Who wins in one field, and why."""
    if not inside:
        return "not wanted by the sync" if t.sent_at is None else "no longer wanted by the sync; left as it is"
    if status in ("held", "parked", "gone", "missing", "waiting"):
        return status
    if status == "rekey" and (send or kept):
        return "differs; not sent as long as the sync waits"
    if send:
        return _to_send(f, t)
    if kept:
        return f"changed in the app since: left alone (conflict: {f.conflict})"
    when = f"sent {_ago(ws, t.sent_at)}" if t.sent_at is not None else ""
    if t.sent_at is not None and not seen:
        return f"{when}; no read has shown it yet"
    if when and f.field.source is None:
        return f"{when}; the app does not show what it holds"
    if _alike(t.wanted, t.now, f.field.canonical):
        if t.sent_at is not None and unsure is not None and t.sent_at >= unsure[0]:
            return f"{when}, and it was there; the last {unsure[1]:g} s of edits are not shown yet"
        return f"{when}, and it stayed" if when else "never had to be sent"
    if t.wanted is None and f.on_null != "clear":
        return "the model has no value: left as it is"
    if f.if_empty:
        return "only filled where it is empty"
    if f.only_create:
        return "only set when a record is made"
    if when and _alike(t.wanted, t.sent, f.field.canonical):
        return f"{when}; the app stores it in its own form"
    return "left as it is"


def _to_send(f: BoundField, t: TracedField) -> str:
    if t.sent_at is not None and not _alike(t.now, t.stored, f.field.canonical):
        return f"changed in the app since: the next run sends it again (conflict: {f.conflict})"
    over = ", over what others set" if t.sent_at is None and t.now not in (None, "", []) else ""
    return f"the next run sends it{over}"


def _ago(ws: Workspace, at: datetime) -> str:
    seconds = max(0.0, (ws.runtime.now() - at).total_seconds())
    for size, word in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= 1.5 * size:
            return f"{round(seconds / size)} {word}s ago"
    return "a minute ago" if seconds >= 45 else "just now"


def _alike(a: Any, b: Any, form: Canonical) -> bool:
    if form is Canonical.EXACT or a is None or b is None:
        return bool(a == b)
    x, y = str(a).strip(), str(b).strip()
    if form is Canonical.ID_15_18:
        return x[:15] == y[:15]
    if form is Canonical.NUMBER and x != y:
        with contextlib.suppress(InvalidOperation):
            return Decimal(x) == Decimal(y)
    return x.lower() == y.lower() if form is Canonical.LOWER else x == y


# -- the ledger ----------------------------------------------------------------------------------------------------------


def _history(
    ws: Workspace, app: str, obj: str, record: Record | None, rows: Sequence[tuple[BoundSync, TracedSync]]
) -> list[Past]:
    """The record's changes in the ledger, newest first."""
    if not ws.warehouse.columns("oploop.changes"):
        return []
    keys = [str(v) for _, t in rows for v in t.key.values() if v is not None]
    marks = ", ".join("?" for _ in keys) or "NULL"
    found = ws.warehouse.rows(
        "SELECT COALESCE(sent_at, planned_at), run_id, sync, op, before, after, status, error, why FROM oploop.changes "
        f"WHERE app = ? AND object = ? AND (remote_id = ? OR (remote_id IS NULL AND key IN ({marks}))) "
        "ORDER BY planned_at DESC, run_id DESC LIMIT 20",
        (app, obj, record.remote_id if record is not None else None, *keys),
    )
    return [_past(*r) for r in found]


def _past(
    at: datetime,
    run_id: str,
    sync: str,
    op: str,
    before: str | None,
    after: str | None,
    status: str,
    error: str | None,
    why: str | None,
) -> Past:
    old, new = (orjson.loads(x) if x else {} for x in (before, after))
    fields = {name: {"before": old.get(name), "after": value} for name, value in new.items()}
    return Past(at, run_id, sync, op, fields, status, error, orjson.loads(why) if why else None)
