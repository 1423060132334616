"""Read-back: what the app holds now of what we sent. Confirmed, altered, drifted, ignored or gone, per record.

A record is looked at once a read supersedes its acknowledgement (`activate.sql.superseded`). The first such look
settles what its last change sent: what the app made of our value (trimmed, lower-cased, rounded) becomes `stored` and
is no difference from then on. A later look that shows something else than `stored` is drift: somebody changed it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias

from oploop.errors import OploopError
from oploop.records import Batch, Canonical, FieldType
from oploop.warehouse.base import Warehouse, literal, quote, quote_table

#: Fetches records by the app's own ids and loads them into the raw table; handed in by the loop.
Fetch: TypeAlias = Callable[[Sequence[str]], Awaitable[Batch]]

#: From so many characters on, a text that begins like ours is taken for ours, cut off by the app.
CUT_FROM = 20

STATUSES = ("confirmed", "altered", "ignored", "drifted", "gone")


@dataclass(frozen=True, slots=True)
class Watched:
    """A mapped field that can be read back: its name and label, where it stands, how it is compared."""

    name: str
    label: str
    now: str  #: expression over the raw table `r`
    sql_type: str
    type: FieldType
    canonical: Canonical = Canonical.EXACT


@dataclass(frozen=True, slots=True)
class Target:
    """What is looked at: one sync's records in one object of an app. `vouched` and `lag`: see `activate.sql.Known`."""

    sync: str
    app: str
    object: str
    raw_table: str
    id_column: str
    state_table: str
    fields: tuple[Watched, ...]
    vouched: datetime | None
    lag: float = 0.0


@dataclass(slots=True)
class ReadBack:
    """Counts by status over the records that the sync's last delivery touched; `waiting`: no read has shown them yet."""

    sync: str
    run_id: str | None = None
    counts: dict[str, int] = field(default_factory=dict)
    waiting: int = 0
    fetched: int = 0
    error: OploopError | None = None

    def count(self, status: str) -> int:
        return self.counts.get(status, 0)


def last_run(target: Target, warehouse: Warehouse) -> str | None:
    """The last run that delivered something of this sync."""
    [(changed,)] = warehouse.rows(f"SELECT max(run_id) FROM {target.state_table} WHERE sync = ?", (target.sync,))
    [(removed,)] = warehouse.rows("SELECT max(run_id) FROM oploop.removed WHERE sync = ?", (target.sync,))
    return max((r for r in (changed, removed) if r is not None), default=None)


def to_fetch(target: Target, warehouse: Warehouse, run_id: str, *, limit: int) -> list[str]:
    """Ids of the records that a run delivered and that the stream's reads cannot vouch for yet; those that nobody has looked at first."""
    unseen = "TRUE"
    if target.vouched is not None:
        unseen = f"acked_at >= TIMESTAMPTZ {literal(target.vouched.isoformat())}"
    rows = warehouse.rows(
        f"SELECT remote_id FROM {target.state_table} WHERE sync = ? AND run_id = ? AND {unseen} "
        f"ORDER BY settled_at IS NOT NULL, number LIMIT {int(limit)}",
        (target.sync, run_id),
    )
    rows += warehouse.rows(
        f"SELECT remote_id FROM oploop.removed WHERE sync = ? AND run_id = ? ORDER BY number LIMIT {max(0, limit - len(rows))}",
        (target.sync, run_id),
    )
    return [r[0] for r in rows]


async def read_back(
    target: Target, warehouse: Warehouse, *, fetch: Fetch | None, now: datetime, within_run: bool, limit: int = 1_000
) -> ReadBack:
    """Look at what a sync's last delivery left in the app, and write what was seen into the ledger.

    `within_run`: right after the delivery, so that a difference is the app's own doing and no person's. `fetch`
    brings at most `limit` records that the reads cannot vouch for yet. An app that cannot be asked is no failure
    of the run: it is said, and the next read looks again.
    """
    unknown = bool(warehouse.rows("SELECT 1 FROM oploop.change_outcomes WHERE status = 'unknown' LIMIT 1"))
    if unknown:
        acknowledge_removed(target, warehouse, now=now)
    result = ReadBack(target.sync, last_run(target, warehouse))
    if result.run_id is None:
        return result
    if fetch is not None:
        ids = to_fetch(target, warehouse, result.run_id, limit=limit)
        try:
            if ids:
                result.fetched = len(ids)
                await fetch(ids)
        except OploopError as e:
            result.error = e
    if unknown and not within_run:
        acknowledge(target, warehouse, now=now)
    settle(target, warehouse, result.run_id, now=now, within_run=within_run)
    result.counts = _counts(target, warehouse, result.run_id)
    for status, n in settle_removed(target, warehouse, result.run_id, now=now).items():
        result.counts[status] = result.counts.get(status, 0) + n
    result.waiting = result.counts.pop("waiting", 0)
    return result


def _counts(target: Target, warehouse: Warehouse, run_id: str) -> dict[str, int]:
    """A run's records by what the ledger has of them now; "waiting": no read has shown them yet."""
    run = literal(run_id)
    rows = warehouse.rows(
        "SELECT CASE WHEN s.settled_at IS NULL THEN 'waiting' ELSE o.status END, count(*) "
        f"FROM {target.state_table} s JOIN (SELECT sync, number, arg_max(status, seq) AS status "
        f"FROM oploop.change_outcomes WHERE run_id = {run} GROUP BY 1, 2) o "
        "ON o.sync = COALESCE(s.log_sync, s.sync) AND o.number = s.number "
        f"WHERE s.sync = {literal(target.sync)} AND s.run_id = {run} GROUP BY 1"
    )
    return dict(rows)


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
        "JOIN (SELECT run_id, sync, number, max(seq) AS seq, arg_max(status, seq) AS status FROM oploop.change_outcomes "
        "GROUP BY 1, 2, 3) o ON o.run_id = z.run_id AND o.sync = z.sync AND o.number = z.number "
        f"WHERE z.sync = {literal(target.sync)} AND (o.status = 'sent' OR z.run_id = {literal(run_id)})"
    )
    confirmed = f"CASE WHEN status = 'confirmed' THEN {at} END"
    warehouse.execute(
        "INSERT INTO oploop.change_outcomes SELECT run_id, sync, number, seq + 1, status, NULL, NULL, remote_id, NULL, "
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
        "FROM oploop.change_log l JOIN (SELECT run_id, sync, number, max(seq) AS seq, arg_max(status, seq) AS status, "
        "max(remote_id) AS remote_id, max(sent_at) AS sent_at FROM oploop.change_outcomes GROUP BY 1, 2, 3) o "
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
            "INSERT INTO oploop.change_outcomes SELECT run_id, sync, number, seq + 1, 'confirmed', NULL, NULL, remote_id, "
            f"NULL, {at}, {at} FROM oploop_taken"
        )
        warehouse.execute(
            f"INSERT INTO oploop.removed SELECT {literal(target.app)} AS app, {literal(target.object)} AS object, remote_id, key, op, "
            "sync, run_id, number, sent_at FROM oploop_taken "
            "QUALIFY row_number() OVER (PARTITION BY remote_id ORDER BY run_id DESC) = 1"
        )
        ids = "IN (SELECT remote_id FROM oploop_taken)"
        warehouse.execute(
            f"DELETE FROM oploop.records WHERE app = ? AND object = ? AND remote_id {ids}", (target.app, target.object)
        )
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
    held = " AND ".join(f"(NOT {_sent_in(f)} OR NOT ({_unlike_noted(i, f)}))" for i, f in enumerate(target.fields))
    own = literal(target.sync)
    warehouse.execute(
        "CREATE OR REPLACE TEMP TABLE oploop_arrived AS SELECT l.run_id, l.sync, l.number, l.key, l.after, o.seq, o.sent_at, a.* "
        "FROM oploop.change_log l JOIN (SELECT z.run_id, z.sync, z.number, max(z.seq) AS seq, arg_max(z.status, z.seq) AS status, "
        "max(z.remote_id) AS remote_id, max(z.sent_at) AS sent_at FROM oploop.change_outcomes z JOIN (SELECT DISTINCT run_id, sync, number "
        "FROM oploop.change_outcomes WHERE status = 'unknown') u ON u.run_id = z.run_id AND u.sync = z.sync AND u.number = z.number "
        "GROUP BY 1, 2, 3) o "
        "ON o.run_id = l.run_id AND o.sync = l.sync AND o.number = l.number "
        f"JOIN {target.state_table} s ON s.remote_id = o.remote_id AND s.sync = {own} AND s.run_id < l.run_id "
        f"JOIN (SELECT CAST(r.{quote(target.id_column)} AS VARCHAR) AS rid{nows} FROM {quote_table(target.raw_table)} AS r "
        "WHERE NOT r._deleted) a ON a.rid = o.remote_id "
        f"WHERE l.sync IN ({own}, s.log_sync) AND l.op = 'update' AND o.status = 'unknown' AND {held or 'FALSE'} "
        "QUALIFY row_number() OVER (PARTITION BY o.remote_id ORDER BY l.run_id DESC) = 1"
    )
    at = f"TIMESTAMPTZ {literal(now.isoformat())}"
    sets = []
    for i, f in enumerate(target.fields):
        for part, value in (("sent", f"l.n{i}"), ("stored", f"l.n{i}"), ("at", "l.sent_at")):
            column = quote(f"{f.name}.{part}")
            sets.append(f"{column} = CASE WHEN {_sent_in(f)} THEN {value} ELSE s.{column} END")
    with warehouse.transaction():
        warehouse.execute(
            "INSERT INTO oploop.change_outcomes SELECT run_id, sync, number, seq + 1, 'confirmed', NULL, NULL, rid, NULL, "
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


def settle(target: Target, warehouse: Warehouse, run_id: str, *, now: datetime, within_run: bool) -> None:
    """Compare a sync's records with the app's, right after a delivery those of its run; note outcomes and what is stored now.

    Leaves `oploop_looked`: a row for each record whose status may be another than it was.
    """
    warehouse.execute(
        f"CREATE OR REPLACE TEMP TABLE oploop_shown AS {_shown(target, warehouse, run_id, within_run=within_run)}"
    )
    warehouse.execute(
        "CREATE OR REPLACE TEMP TABLE oploop_noted AS SELECT l.run_id, l.sync, l.number, l.key, l.before, l.after FROM "
        "oploop.change_log l JOIN (SELECT run_id, log_sync, number FROM oploop_shown WHERE asked) a "
        "ON a.run_id = l.run_id AND a.log_sync = l.sync AND a.number = l.number"
    )
    warehouse.execute(f"CREATE OR REPLACE TEMP TABLE oploop_looked AS {_looked(target, within_run=within_run)}")
    at = f"TIMESTAMPTZ {literal(now.isoformat())}"
    confirmed = f"CASE WHEN l.status = 'confirmed' THEN {at} END"
    with warehouse.transaction():
        warehouse.execute(
            "INSERT INTO oploop.change_outcomes SELECT l.run_id, l.log_sync, l.number, l.seq + 1, l.status, NULL, NULL, "
            f"l.remote_id, NULL, {confirmed}, {at} FROM oploop_looked l WHERE l.status <> l.before_status"
        )
        _store(target, warehouse, at)
        _park_ignored(target, warehouse, at)


def _shown(target: Target, warehouse: Warehouse, run_id: str, *, within_run: bool) -> str:
    """One row for each record that a read has shown and that is not simply as it was when it was looked at before.

    `asked`: the status depends on what the ledger has of the change.
    """
    of_run = f" AND s.run_id = {literal(run_id)}" if within_run else ""
    [(since,)] = warehouse.rows(
        f"SELECT min(s.acked_at) FROM {target.state_table} s WHERE s.sync = {literal(target.sync)}{of_run}"
    )
    nows = "".join(f", {f.now} AS n{i}" for i, f in enumerate(target.fields))
    app = (
        f"SELECT CAST(r.{quote(target.id_column)} AS VARCHAR) AS rid, r._version, r._extracted_at, r._deleted{nows} "
        f"FROM {quote_table(target.raw_table)} AS r"
    )
    absence_tells = target.vouched is not None and (since is None or target.vouched > since)
    if since is not None and not absence_tells:  # a read of before the first acknowledgement tells nothing
        app += f" WHERE r._extracted_at > TIMESTAMPTZ {literal(since.isoformat())}"
    logged = "COALESCE(s.log_sync, s.sync)"  # the sync's file may have been renamed since
    gone, changed, altered, person = _differences(target)
    each = []
    if within_run:  # h: the app holds something else than we sent; y: which is our value as it stores it
        for i, f in enumerate(target.fields):
            each += [f"{_here(f)} AND {_unlike(i, f, 'sent')} AS h{i}", f"{_by_the_app(i, f)} AS y{i}"]
    each += [f"a.n{i}" for i in range(len(target.fields))]
    own = [_here(f) if within_run else f"({_here(f)} AND {_by_the_app(i, f)})" for i, f in enumerate(target.fields)]
    news = [
        f"({o} AND a.n{i} IS DISTINCT FROM s.{quote(f.name + '.stored')})"
        for i, (o, f) in enumerate(zip(own, target.fields, strict=True))
    ]
    each += [f"{o} AS t{i}" for i, o in enumerate(own)]
    return (
        f"SELECT s.remote_id, s.sync, {logged} AS log_sync, s.run_id, s.number, s.settled_at IS NOT NULL AS settled, "
        f"{gone} AS gone, {changed} AS changed, {altered} AS altered, {'FALSE' if within_run else person} AS person, "
        f"{'TRUE' if within_run else 'x.number IS NOT NULL'} AS asked, ({' OR '.join(news) or 'FALSE'}) AS news"
        f"{''.join(f', {c}' for c in each)} FROM {target.state_table} s "
        f"{'LEFT JOIN' if absence_tells else 'JOIN'} ({app}) a ON a.rid = s.remote_id "
        "LEFT JOIN (SELECT DISTINCT run_id, sync, number FROM oploop.change_outcomes WHERE status IN ('drifted', 'gone', 'ignored')) x "
        f"ON x.run_id = s.run_id AND x.sync = {logged} AND x.number = s.number "
        f"WHERE s.sync = {literal(target.sync)}{of_run} AND {_seen(target)} "
        f"AND (s.settled_at IS NULL OR x.number IS NOT NULL OR {gone} OR {changed})"
    )


def _differences(target: Target) -> tuple[str, str, str, str]:
    """Conditions over the state's `s` and the app's `a`: the record is gone; it differs from what it stored; the app made
    something else of what the last change sent; if nobody looked before: a person did."""

    def some(test: Callable[[int, Watched], str]) -> str:
        tests = " OR ".join(f"COALESCE({test(i, f)}, FALSE)" for i, f in enumerate(target.fields))
        return f"({tests or 'FALSE'})"

    def known(f: Watched) -> str:
        return f"s.{quote(f.name + '.at')} IS NOT NULL"  # a field that was never sent is nobody's drift

    def altered(i: int, f: Watched) -> str:
        return f"{_here(f)} AND {_unlike(i, f, 'sent')}"

    elsewhere = some(lambda i, f: f"{known(f)} AND NOT {_here(f)} AND {_unlike(i, f, 'stored')}")
    by_a_person = some(lambda i, f: f"{_here(f)} AND NOT {_by_the_app(i, f)}")
    changed = some(lambda i, f: f"{known(f)} AND {_unlike(i, f, 'stored')}")
    return "(a.rid IS NULL OR a._deleted)", changed, some(altered), f"({elsewhere} OR {by_a_person})"


def _looked(target: Target, *, within_run: bool) -> str:
    """What was shown, with its status and the one before.

    A record that nobody looked at before has what its delivery left, `sent`, unless the ledger has more of it.
    """
    first = "WHEN j.person THEN 'drifted' WHEN j.altered THEN 'altered' ELSE 'confirmed'"
    if within_run:  # nobody else has had the time: a difference is the app's own doing
        touched = " OR ".join(
            f"COALESCE(j.h{i} AND (j.y{i} OR j.n{i} IS DISTINCT FROM {_before(f)}), FALSE)"
            for i, f in enumerate(target.fields)
        )
        first = f"WHEN NOT j.altered THEN 'confirmed' WHEN {touched or 'FALSE'} THEN 'altered' ELSE 'ignored'"
    return (
        f"SELECT j.*, CASE WHEN j.gone THEN 'gone' WHEN NOT j.settled THEN CASE {first} END WHEN j.changed THEN 'drifted' "
        "WHEN j.altered THEN CASE WHEN o.status = 'ignored' THEN 'ignored' ELSE 'altered' END ELSE 'confirmed' END AS status, "
        "CASE WHEN o.number IS NOT NULL THEN o.status WHEN j.run_id IS NOT NULL THEN 'sent' END AS before_status, "
        "COALESCE(o.seq, 1) AS seq, l.key, l.after FROM oploop_shown j "
        "LEFT JOIN oploop_noted l ON l.run_id = j.run_id AND l.sync = j.log_sync AND l.number = j.number "
        "LEFT JOIN (SELECT run_id, sync, number, max(seq) AS seq, arg_max(status, seq) AS status "
        "FROM oploop.change_outcomes WHERE seq > 1 GROUP BY 1, 2, 3) o "
        "ON o.run_id = j.run_id AND o.sync = j.log_sync AND o.number = j.number"
    )


def _seen(target: Target) -> str:
    """Whether what was read is news to the acknowledgement: the rule of `activate.sql.superseded`."""
    patient = f"a._extracted_at > s.acked_at + INTERVAL '{target.lag:f} seconds'"
    seen = (
        f"CASE WHEN s.receipt_version IS NULL THEN {patient} "
        "ELSE a._version >= s.receipt_version AND a._extracted_at > s.acked_at END IS TRUE"
    )
    if target.vouched is not None:
        seen += f" OR s.acked_at < TIMESTAMPTZ {literal(target.vouched.isoformat())}"
    return f"COALESCE({seen}, FALSE)"


def _here(f: Watched) -> str:
    """Whether the record's last change sent the field."""
    return f"COALESCE(s.{quote(f.name + '.at')} = s.acked_at, FALSE)"


def _unlike(i: int, f: Watched, part: str) -> str:
    """Whether the app holds something else than was `sent`, or than it `stored`."""
    now, then = (_comparable(e, f.canonical) for e in (f"a.n{i}", f"s.{quote(f'{f.name}.{part}')}"))
    return f"{now} IS DISTINCT FROM {then}"


def _comparable(expr: str, form: Canonical) -> str:
    forms = {
        Canonical.LOWER: f"lower(trim({expr}))",
        Canonical.TRIM: f"trim({expr})",
        Canonical.ID_15_18: f"substr({expr}, 1, 15)",
    }
    return forms.get(form, expr)


def _before(f: Watched) -> str:
    """What the app held before the record's last change, from the ledger."""
    return _noted(f, "before")


def _noted(f: Watched, side: str) -> str:
    """A field's value in the ledger's row `l`: `before` or `after` the change, in the field's type."""
    if f.type in (FieldType.LIST, FieldType.JSON):
        return f"NULLIF(CAST(json_extract(CAST(l.{side} AS JSON), {_pointer(f)}) AS VARCHAR), 'null')"
    return f"TRY_CAST((CAST(l.{side} AS JSON) ->> {_pointer(f)}) AS {f.sql_type})"


def _pointer(f: Watched) -> str:
    return literal("/" + f.label.replace("~", "~0").replace("/", "~1"))


def _unlike_noted(i: int, f: Watched) -> str:
    """Whether the app holds something else than the change `l` sent."""
    now, then = (_comparable(e, f.canonical) for e in (f"a.n{i}", _noted(f, "after")))
    return f"{now} IS DISTINCT FROM {then}"


def _sent_in(f: Watched) -> str:
    """Whether the change `l` sent the field."""
    return f"json_exists(CAST(l.after AS JSON), {_pointer(f)})"


def _by_the_app(i: int, f: Watched) -> str:
    """Whether the app holds what was sent, or what it makes of it by itself, which is looked at only where it differs."""
    return f"(CASE WHEN {_unlike(i, f, 'sent')} THEN {_alike(i, f)} ELSE TRUE END)"


def _alike(i: int, f: Watched) -> str:
    """What an app makes of a value by itself: other case, trimmed blanks, a cut end, a rounded number or time."""
    now, sent = f"a.n{i}", f"s.{quote(f.name + '.sent')}"
    match f.type:
        case FieldType.TEXT:
            x, y = (f"lower(trim({v}))" for v in (now, sent))
            number = f"round(TRY_CAST({now} AS DOUBLE), 2) = round(TRY_CAST({sent} AS DOUBLE), 2)"
            alike = f"{x} = {y} OR (length({x}) >= {CUT_FROM} AND starts_with({y}, {x})) OR {number}"
        case FieldType.NUMBER:
            alike = f"round({now}, 2) = round({sent}, 2)"
        case FieldType.TIMESTAMP:
            alike = f"date_trunc('minute', {now}) = date_trunc('minute', {sent})"
        case FieldType.LIST:
            x, y = (f"list_sort(TRY_CAST(TRY_CAST(lower({v}) AS JSON) AS VARCHAR[]))" for v in (now, sent))
            alike = f"{x} = {y}"
        case _:
            alike = f"{now} = {sent}"
    return f"COALESCE({alike}, FALSE)"


def _store(target: Target, warehouse: Warehouse, at: str) -> None:
    """The first look settles a record: what the app made of the fields that were sent is `stored`."""
    sets = []
    for i, f in enumerate(target.fields):
        stored = quote(f.name + ".stored")
        sets.append(f"{stored} = CASE WHEN a.t{i} THEN a.n{i} ELSE s.{stored} END")
    of = f"s.sync = {literal(target.sync)} AND s.settled_at IS NULL"
    same = f"a.remote_id = s.remote_id AND a.sync = s.sync AND {of}"
    if sets:  # mostly none: the app stores what it is sent
        warehouse.execute(
            f"UPDATE {target.state_table} AS s SET {', '.join(sets)} FROM oploop_looked a WHERE {same} AND a.news AND NOT a.gone"
        )
    [(open_,)] = warehouse.rows(f"SELECT count(*) FROM {target.state_table} s WHERE {of}")
    [(looked,)] = warehouse.rows("SELECT count(*) FROM oploop_looked WHERE NOT settled")
    if open_ == looked:
        warehouse.execute(f"UPDATE {target.state_table} AS s SET settled_at = {at} WHERE {of}")
    elif looked:
        warehouse.execute(f"UPDATE {target.state_table} AS s SET settled_at = {at} FROM oploop_looked a WHERE {same}")


@dataclass(frozen=True, slots=True)
class Unmeant:
    """Something that the app made of a change and that was not meant: `field` None: of the whole record."""

    key: str
    field: str | None
    sent: str | None
    holds: str | None


def unmeant(target: Target, warehouse: Warehouse, run_id: str) -> list[Unmeant]:
    """Of the records that a run sent and that `read_back` has just looked at: what is neither as sent nor alike.

    Alike is what an app makes of a value by itself: other case, trimmed blanks, a cut end, a rounded number.
    """
    here, own = f"l.run_id = {literal(run_id)}", literal(target.sync)
    state = f"{target.state_table} s ON s.remote_id = l.remote_id AND s.sync = {own}"
    parts = [
        "SELECT l.key AS key, NULL AS field, NULL AS sent, 'the record is not in the app' AS holds FROM oploop_looked l "
        f"WHERE {here} AND l.status = 'gone'",
        f"SELECT l.key, NULL, NULL, 'it could not be read back' FROM oploop.change_log l JOIN {target.state_table} s "
        f"ON s.run_id = l.run_id AND s.number = l.number WHERE {here} AND l.sync = {own} AND s.sync = {own} AND s.settled_at IS NULL",
    ]
    for i, f in enumerate(target.fields):
        sent = f"s.{quote(f.name + '.sent')}"
        test = f"{_here(f)} AND {_unlike(i, f, 'sent')} AND NOT {_alike(i, f)}".replace("a.n", "l.n")
        parts.append(
            f"SELECT l.key, {literal(f.label)}, CAST({sent} AS VARCHAR), CAST(l.n{i} AS VARCHAR) FROM oploop_looked l "
            f"JOIN {state} WHERE {here} AND l.status <> 'gone' AND {test}"
        )
    rows = warehouse.rows(f"{' UNION ALL '.join(parts)} ORDER BY 1, 2")
    return [Unmeant(*r) for r in rows]


def _park_ignored(target: Target, warehouse: Warehouse, at: str) -> None:
    """A value that the app keeps ignoring is not sent again until the model wants another."""
    warehouse.execute(
        f"INSERT INTO oploop.parked (sync, app, object, key, reason, wanted, message, run_id, noted_at) "
        f"SELECT l.sync, ?, ?, l.key, 'ignored', l.after, 'the app keeps its own value', l.run_id, {at} "
        "FROM oploop_looked l WHERE l.status = 'ignored' AND l.key IS NOT NULL AND NOT EXISTS "
        "(SELECT 1 FROM oploop.parked p WHERE p.sync = l.sync AND p.key = l.key)",
        (target.app, target.object),
    )


__all__ = [
    "Fetch",
    "ReadBack",
    "Target",
    "Unmeant",
    "Watched",
    "last_run",
    "read_back",
    "settle",
    "to_fetch",
    "unmeant",
]
