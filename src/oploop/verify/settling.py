"""The look itself: a sync's records beside the app's, what became of their changes, and what is stored now."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from oploop.verify import marks
from oploop.verify.compare import alike, before, by_the_app, here, seen, stored, unlike, unshown
from oploop.verify.nouns import Target, Unmeant, Watched
from oploop.warehouse.base import Warehouse, literal, quote, quote_table

#: Types of whole numbers, of which each is written in one way.
_WHOLE = ("BIGINT", "INTEGER", "SMALLINT")
#: Temporary tables: the records that were shown, what the ledger has of them, and these with what became of them.
SHOWN, NOTED, LOOKED = "oploop_shown", "oploop_noted", "oploop_looked"


def settle(target: Target, warehouse: Warehouse, run_id: str, *, now: datetime, within_run: bool) -> str | None:
    """Compare a sync's records with the app's, right after a delivery those of its run; note outcomes and what is stored now.

    The name of a temporary table: a row for each record whose status may be another than it was. None: there is none such.
    """
    its = f" AND run_id = {literal(run_id)}" if within_run else ""  # of a large ledger only what is new is asked then
    odd = bool(warehouse.rows(f"SELECT 1 FROM ({marks.ODD}{its} LIMIT 1) AS x"))
    some = None if within_run else marks.ask(target, warehouse, odd=odd)
    if some == marks.NONE:
        with warehouse.transaction():
            marks.note(target, warehouse)
        return None
    shown = _shown(target, warehouse, run_id, within_run=within_run, some=some, odd=odd)
    warehouse.execute(f"CREATE OR REPLACE TEMP TABLE {SHOWN} AS {shown}")
    if not within_run and not warehouse.rows(f"SELECT 1 FROM {SHOWN} LIMIT 1"):
        with warehouse.transaction():  # as mostly: the ledger need not be asked
            marks.note(target, warehouse)
        return None
    asked = f"(SELECT run_id, log_sync AS sync, number FROM {SHOWN} WHERE asked)"
    warehouse.execute(
        f"CREATE OR REPLACE TEMP TABLE {NOTED} AS SELECT l.run_id, l.sync, l.number, l.key, l.before, l.after FROM "
        f"({target.among(warehouse, asked)}) l"
    )
    warehouse.execute(f"CREATE OR REPLACE TEMP TABLE {LOOKED} AS {_looked(target, within_run=within_run)}")
    with warehouse.transaction():
        if warehouse.rows(f"SELECT 1 FROM {LOOKED} LIMIT 1"):
            _note(target, warehouse, f"TIMESTAMPTZ {literal(now.isoformat())}")
        if not within_run:
            marks.note(target, warehouse)
    return LOOKED


def _note(target: Target, warehouse: Warehouse, at: str) -> None:
    """Take what was seen into ledger, state and what is parked."""
    confirmed = f"CASE WHEN l.status = 'confirmed' THEN {at} END"
    warehouse.execute(
        "INSERT INTO oploop.outcome_rows SELECT l.run_id, l.log_sync, l.number, l.seq + 1, l.status, NULL, NULL, "
        f"l.remote_id, NULL, {confirmed}, {at} FROM {LOOKED} l WHERE l.status <> l.before_status"
    )
    _store(target, warehouse, at)
    _park_ignored(target, warehouse, at)


def _shown(target: Target, warehouse: Warehouse, run_id: str, *, within_run: bool, some: str | None, odd: bool) -> str:
    """One row for each record that a read has shown and that is not simply as it was when it was looked at before.

    `asked`: the status depends on what the ledger has of the change; `some`: of those that `marks.ask` found, of which it says which of the
    state's rows they are.
    """
    of_run = f" AND s.run_id = {literal(run_id)}" if within_run else ""
    state, app, absence_tells = _app(target, warehouse, of_run, some)
    if within_run and not absence_tells:
        # where those stand that were fetched, so that the values of others are not looked at
        its = f"FROM {state} s WHERE s.sync = {literal(target.sync)}{of_run} AND s.remote_id IN (SELECT rid FROM ({app}) AS t)"
        [(low, high)] = warehouse.rows(f"SELECT COALESCE(min(s.number), 0), COALESCE(max(s.number), 0) {its}")
        of_run += f" AND s.number BETWEEN {low} AND {high}"
    logged = "COALESCE(s.log_sync, s.sync)"  # the sync's file may have been renamed since
    gone, changed, altered, person = _differences(target)
    return (
        f"SELECT s.remote_id, s.sync, {logged} AS log_sync, s.run_id, s.number, s.settled_at IS NOT NULL AS settled, "
        f"{gone} AS gone, {changed} AS changed, {altered} AS altered, {'FALSE' if within_run else person} AS person, "
        f"{'TRUE' if within_run else 'x.number IS NOT NULL'} AS asked, {_fields(target, within_run=within_run)}, "
        f"{unshown(target)} AS unshown FROM {state} s "
        f"{'LEFT JOIN' if absence_tells else 'JOIN'} ({app}) a ON a.rid = s.remote_id "
        f"LEFT JOIN ({marks.ODD}{'' if odd else ' AND FALSE'}) x "
        f"ON x.run_id = s.run_id AND x.sync = {logged} AND x.number = s.number "
        f"WHERE s.sync = {literal(target.sync)}{of_run} AND {seen(target)} "
        f"AND (s.settled_at IS NULL OR x.number IS NOT NULL OR {gone} OR {changed})"
    )


def _app(target: Target, warehouse: Warehouse, of_run: str, some: str | None) -> tuple[str, str, bool]:
    """The state to look at, a select of the app's records beside it, and whether a record that is not among them is gone. `of_run`,
    `some`: which of the state's rows."""
    # of others' rows too, as the engine knows the least of all at once, and an earlier time only looks at more
    whose = f" WHERE s.sync = {literal(target.sync)}{of_run}" if of_run else ""
    [(since,)] = warehouse.rows(f"SELECT min(s.acked_at) FROM {target.state_table} s{whose}")
    nows = "".join(f", {f.now} AS n{i}" for i, f in enumerate(target.fields))
    state, raw = target.state_table, quote_table(target.raw_table)
    if some is not None:
        state, raw = warehouse.few(state, some), warehouse.few(raw, _asked(target, warehouse))
    app = (
        f"SELECT CAST(r.{quote(target.id_column)} AS VARCHAR) AS rid, r._version, r._extracted_at, r._deleted{nows} "
        f"FROM {raw} AS r"
    )
    absence_tells = target.vouched is not None and (since is None or target.vouched > since)
    if since is not None and not absence_tells:  # a read of before the first acknowledgement tells nothing
        app += f" WHERE r._extracted_at > TIMESTAMPTZ {literal(since.isoformat())}"
    return state, app, absence_tells


def _fields(target: Target, *, within_run: bool) -> str:
    """What is seen of each field. n: what the app holds; t: it is what the last change sent, as the app stores it; right after a delivery
    h: something else than we sent; y: which is our value as it stores it. `news`: one is to be stored otherwise."""
    fields = list(enumerate(target.fields))
    own = [here(f) if within_run else f"({here(f)} AND {by_the_app(i, f)})" for i, f in fields]
    news = [f"({own[i]} AND a.n{i} IS DISTINCT FROM {stored(f.name)})" for i, f in fields]
    each = [f"({' OR '.join(news) or 'FALSE'}) AS news"]
    if within_run:
        for i, f in fields:
            each += [f"{here(f)} AND {unlike(i, f, 'sent')} AS h{i}", f"{by_the_app(i, f)} AS y{i}"]
    each += [f"a.n{i}" for i, _ in fields]
    each += [f"{o} AS t{i}" for i, o in enumerate(own)]
    return ", ".join(each)


def _asked(target: Target, warehouse: Warehouse) -> str:
    """Which rows `t` of the raw table are of records that `marks.ask` found; there may be others among them."""
    column, ids = f"t.{quote(target.id_column)}", f"SELECT id FROM {marks.ASKED}"
    kind = warehouse.columns(target.raw_table).get(target.id_column)
    if kind in _WHOLE and warehouse.columnar:  # which such an engine finds sooner than their texts
        return f"{column} IN (SELECT TRY_CAST(id AS {kind}) FROM ({ids}) AS i)"
    return f"CAST({column} AS VARCHAR) IN ({ids})"


def _differences(target: Target) -> tuple[str, str, str, str]:
    """Conditions over the state's `s` and the app's `a`: the record is gone; it differs from what it stored; the app made
    something else of what the last change sent; if nobody looked before: a person did."""

    def some(test: Callable[[int, Watched], str]) -> str:
        tests = " OR ".join(f"COALESCE({test(i, f)}, FALSE)" for i, f in enumerate(target.fields))
        return f"({tests or 'FALSE'})"

    def known(f: Watched) -> str:
        return f"s.{quote(f.name + '.at')} IS NOT NULL"  # a field that was never sent is nobody's drift

    def altered(i: int, f: Watched) -> str:
        return f"{here(f)} AND {unlike(i, f, 'sent')}"

    elsewhere = some(lambda i, f: f"{known(f)} AND NOT {here(f)} AND {unlike(i, f, 'stored')}")
    by_a_person = some(lambda i, f: f"{here(f)} AND NOT {by_the_app(i, f)}")
    changed = some(lambda i, f: f"{known(f)} AND {unlike(i, f, 'stored')}")
    return "(a.rid IS NULL OR a._deleted)", changed, some(altered), f"({elsewhere} OR {by_a_person})"


def _looked(target: Target, *, within_run: bool) -> str:
    """What was shown, with its status and the one before.

    A record that nobody looked at before has what its delivery left, `sent`, unless the ledger has more of it.
    """
    as_meant = "CASE WHEN j.unshown THEN 'sent' ELSE 'confirmed' END"
    first = f"WHEN j.person THEN 'drifted' WHEN j.altered THEN 'altered' ELSE {as_meant}"
    if within_run:  # nobody else has had the time: a difference is the app's own doing
        touched = " OR ".join(
            f"COALESCE(j.h{i} AND (j.y{i} OR j.n{i} IS DISTINCT FROM {before(f)}), FALSE)"
            for i, f in enumerate(target.fields)
        )
        first = f"WHEN NOT j.altered THEN {as_meant} WHEN {touched or 'FALSE'} THEN 'altered' ELSE 'ignored'"
    return (
        f"SELECT j.*, CASE WHEN j.gone THEN 'gone' WHEN NOT j.settled THEN CASE {first} END WHEN j.changed THEN 'drifted' "
        "WHEN j.altered THEN CASE WHEN o.status = 'ignored' THEN 'ignored' ELSE 'altered' END "
        f"ELSE {as_meant} END AS status, "
        "CASE WHEN o.number IS NOT NULL THEN o.status WHEN j.run_id IS NOT NULL THEN 'sent' END AS before_status, "
        f"COALESCE(o.seq, 1) AS seq, l.key, l.after FROM {SHOWN} j "
        f"LEFT JOIN {NOTED} l ON l.run_id = j.run_id AND l.sync = j.log_sync AND l.number = j.number "
        "LEFT JOIN (SELECT z.run_id, z.sync, z.number, max(z.seq) AS seq, arg_max(z.status, z.seq) AS status "
        f"FROM oploop.change_outcomes z JOIN (SELECT DISTINCT run_id, log_sync, number FROM {SHOWN}) k "
        "ON k.run_id = z.run_id AND k.log_sync = z.sync AND k.number = z.number WHERE z.seq > 1 GROUP BY 1, 2, 3) o "
        "ON o.run_id = j.run_id AND o.sync = j.log_sync AND o.number = j.number"
    )


def _store(target: Target, warehouse: Warehouse, at: str) -> None:
    """The first look settles a record: what the app made of the fields that were sent is `stored`."""
    # mostly none: the app stores what it is sent
    if warehouse.rows(f"SELECT 1 FROM {LOOKED} WHERE news AND NOT gone LIMIT 1"):
        _store_news(target, warehouse)
    of = f"s.sync = {literal(target.sync)} AND s.settled_at IS NULL"
    [(open_,)] = warehouse.rows(f"SELECT count(*) FROM {target.state_table} s WHERE {of}")
    [(looked,)] = warehouse.rows(f"SELECT count(*) FROM {LOOKED} WHERE NOT settled")
    if open_ == looked:
        warehouse.execute(f"UPDATE {target.state_table} AS s SET settled_at = {at} WHERE {of}")
    elif looked:
        same = f"a.remote_id = s.remote_id AND a.sync = s.sync AND {of}"
        warehouse.execute(f"UPDATE {target.state_table} AS s SET settled_at = {at} FROM {LOOKED} a WHERE {same}")


def _store_news(target: Target, warehouse: Warehouse) -> None:
    """Of the records that are looked at for the first time: what the app made of what was sent."""
    names = {f.name: i for i, f in enumerate(target.fields)}
    sets = ["as_sent = FALSE"]
    for column in warehouse.columns(target.state_table.replace('"', "")):
        if column.endswith(".stored"):
            name = column.removesuffix(".stored")
            i = names.get(name)
            now = stored(name) if i is None else f"CASE WHEN a.t{i} THEN a.n{i} ELSE {stored(name)} END"
            sets.append(f"{quote(column)} = {now}")
    same = f"a.remote_id = s.remote_id AND a.sync = s.sync AND s.sync = {literal(target.sync)} AND s.settled_at IS NULL"
    warehouse.execute(
        f"UPDATE {target.state_table} AS s SET {', '.join(sets)} FROM {LOOKED} a WHERE {same} AND a.news AND NOT a.gone"
    )


def _park_ignored(target: Target, warehouse: Warehouse, at: str) -> None:
    """A value that the app keeps ignoring is not sent again until the model wants another."""
    warehouse.execute(
        f"INSERT INTO oploop.parked (sync, app, object, key, reason, wanted, message, run_id, noted_at) "
        f"SELECT l.sync, ?, ?, l.key, 'ignored', l.after, 'the app keeps its own value', l.run_id, {at} "
        f"FROM {LOOKED} l WHERE l.status = 'ignored' AND l.key IS NOT NULL AND NOT EXISTS "
        "(SELECT 1 FROM oploop.parked p WHERE p.sync = l.sync AND p.key = l.key)",
        (target.app, target.object),
    )


def unmeant(target: Target, warehouse: Warehouse, run_id: str, looked: str | None) -> list[Unmeant]:
    """Of the records that a run sent and that were just `looked` at, see `settle`: what is neither as sent nor alike.

    Alike is what an app makes of a value by itself: other case, trimmed blanks, a cut end, a rounded number.
    """
    of_run, own = f"l.run_id = {literal(run_id)}", literal(target.sync)
    untold = warehouse.rows(
        "SELECT l.key FROM oploop.change_log l JOIN (SELECT run_id, sync, number, max(remote_id) AS remote_id "
        "FROM oploop.change_outcomes GROUP BY 1, 2, 3) o ON o.run_id = l.run_id AND o.sync = l.sync AND o.number = l.number "
        f"WHERE {of_run} AND l.sync = {own} AND l.op = 'create' AND o.remote_id IS NULL ORDER BY 1"
    )
    if untold:  # there may be nothing else that was looked at
        return [Unmeant(key, None, None, "the app did not tell its id, so it cannot be read back") for (key,) in untold]
    if looked is None:
        return []
    state = f"{target.state_table} s ON s.remote_id = l.remote_id AND s.sync = {own}"
    parts = [
        "SELECT l.key AS key, NULL AS field, NULL AS sent, 'the record is not in the app' AS holds "
        f"FROM {looked} l WHERE {of_run} AND l.status = 'gone'",
        f"SELECT l.key, NULL, NULL, 'it could not be read back' FROM oploop.change_log l JOIN {target.state_table} s "
        f"ON s.run_id = l.run_id AND s.number = l.number WHERE {of_run} AND l.sync = {own} AND s.sync = {own} AND s.settled_at IS NULL",
    ]
    for i, f in enumerate(target.fields):
        sent = f"s.{quote(f.name + '.sent')}"
        test = f"{here(f)} AND {unlike(i, f, 'sent')} AND NOT {alike(i, f)}".replace("a.n", "l.n")
        parts.append(
            f"SELECT l.key, {literal(f.label)}, CAST({sent} AS VARCHAR), CAST(l.n{i} AS VARCHAR) FROM {looked} l "
            f"JOIN {state} WHERE {of_run} AND l.status <> 'gone' AND {test}"
        )
    rows = warehouse.rows(f"{' UNION ALL '.join(parts)} ORDER BY 1, 2")
    return [Unmeant(*r) for r in rows]
