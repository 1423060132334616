"""What must hold, whatever happened. Each function looks at one promise and raises Wrong with what broke it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import orjson

from oploop.project import Conflict, FieldMapping, Mode, OnDeleted
from oploop.records import Canonical, Op, Replay
from tests.fault.sim import check_extras as extras
from tests.fault.sim import check_refs
from tests.fault.sim.schedule import Side, Wrong
from tests.fault.sim.server import US, Record, Written
from tests.fault.sim.world import BAD, DEAF, STAGES

ACKED = ("sent",)
SEEN = ("confirmed", "altered", "ignored", "drifted", "gone")


def always(sim: Side) -> None:
    """After each turn, however it ended."""
    nothing_doubled(sim)
    extras.a_canary_that_stopped_pauses(sim)


def at_the_end(sim: Side) -> None:
    """When the engine has become quiet."""
    nothing_doubled(sim)
    ledger = Ledger(sim)
    nothing_left_over(sim)
    only_what_was_planned(sim, ledger)
    the_ledger_tells_the_truth(sim, ledger)
    held_for_a_reason(sim)
    parked_for_a_reason(sim)
    nothing_sent_twice(sim, ledger)
    looks_tell_the_truth(sim, ledger)
    nothing_held_is_sent_over(sim, ledger)
    extras.paused_sends_nothing(sim)
    extras.taken_away_is_what_may_be(sim, ledger)
    extras.what_left_is_gone(sim, ledger)
    extras.undone_is_put_back(sim, ledger)
    if sim.world.sync.mode is Mode.APPEND:
        extras.each_row_is_appended_once(sim, ledger)
    else:
        the_app_is_as_the_model(sim, ledger)


class Ledger:
    """The ledger's rows, and the first outcome of each: what the delivery said."""

    def __init__(self, sim: Side) -> None:
        self.turn_of = {t.run_id: t.number for t in sim.turns}
        self.rows = sim.rows_of("SELECT * FROM oploop.change_log ORDER BY run_id, number")
        self.outcomes = sim.rows_of("SELECT * FROM oploop.change_outcomes ORDER BY run_id, number, seq")
        first = {(o["run_id"], o["number"]): o["status"] for o in self.outcomes if o["seq"] == 1}
        self.status: dict[tuple[int, str], str] = {}
        self.after: dict[tuple[int, str], list[tuple[str, dict[str, Any]]]] = defaultdict(list)
        for r in self.rows:
            change, said = (self.turn_of[r["run_id"]], r["key"]), first[r["run_id"], r["number"]]
            # two records of one key may leave in one run
            self.status[change] = said if self.status.get(change, said) == said else "mixed"
            self.after[change].append((r["op"], orjson.loads(r["after"] or "{}")))
        keys = {(r["run_id"], r["number"]): (self.turn_of[r["run_id"]], r["key"]) for r in self.rows}
        #: changes whose answer told no record, and the record that was found later to be theirs
        self.found = {(keys[o["run_id"], o["number"]], o["remote_id"]) for o in self.outcomes if o["seq"] > 1}


def nothing_doubled(sim: Side) -> None:
    """We made each record once."""
    made: dict[str | None, list[Written]] = defaultdict(list)
    for w in sim.server.log:
        if w.who == US and w.op == "create":
            made[w.key].append(w)
    for key, creates in made.items():
        if len(creates) > 1 and not _undone_by_people(sim, creates):
            raise Wrong(f"{key!r} was created {len(creates)} times: {[(c.turn, c.id) for c in creates]}")


def _undone_by_people(sim: Side, creates: list[Written]) -> bool:
    """Whether people deleted, or gave another key to, all but the last, before the next was made; or we took them away."""
    gone = ("remove",) if sim.world.extras.shows_archived and sim.world.stream is not None else ("remove", "archive")
    for one, after in pairwise(creates):
        between = [w for w in sim.server.log if w.id == one.id and one.at <= w.at <= after.at]
        if not any(w.op in gone or (w.who != US and "code" in w.sent) for w in between):
            return False
    return True


def nothing_left_over(sim: Side) -> None:
    """No delivery hangs in the air, no plan table stands but as a volume of the ledger, no journal is kept for ever."""
    if left := sim.rows_of("SELECT run_id, sync FROM oploop.deliveries"):
        raise Wrong(f"never folded: {left}")
    volumes = {r["plan_table"] for r in sim.rows_of("SELECT plan_table FROM oploop.volumes")}
    plans = {name for name in sim.inner.tables() if name.rpartition(".")[2].startswith("plan")}
    if left := plans - volumes:
        raise Wrong(f"plan tables stand: {left}")
    state = sim.ground.state()
    try:
        if left := [d.run_id for d in state.open_deliveries()]:
            raise Wrong(f"the state still lists deliveries as under way: {left}")
        if left := state._all("SELECT DISTINCT run_id FROM steps"):
            raise Wrong(f"the journal of folded deliveries is still there: {left}")
    finally:
        state.close()


def only_what_was_planned(sim: Side, ledger: Ledger) -> None:
    """What reached the app stands in the ledger of its run, with the same values."""
    for turn, op, item in sim.server.received:
        key = sim.world.key(item["key"])
        listed = ledger.after.get((turn, key or ""))
        if listed is None:
            raise Wrong(f"turn {turn} sent {op} {key!r} {item['fields']}, which the ledger does not list")
        for kind, after in listed:
            sent = {k: v for k, v in item["fields"].items() if not (kind == "create" and k == "code")}
            if _plain(sent) == _plain(after):
                break
        else:
            raise Wrong(f"turn {turn} sent {key!r} {item['fields']}, the ledger says {listed}")


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {k: sorted(v) if isinstance(v, list) else v for k, v in values.items()}


def the_ledger_tells_the_truth(sim: Side, ledger: Ledger) -> None:
    """Sent means done, failed and rejected mean not done, all that was done is listed as sent or unknown, and each once."""
    listed = Counter(("change", r["run_id"], r["number"], 0) for r in ledger.rows)
    listed += Counter(("outcome", r["run_id"], r["number"], r["seq"]) for r in ledger.outcomes)
    if twice := [what for what, n in listed.items() if n > 1]:
        raise Wrong(f"more than once in the ledger: {twice}")
    done = Counter((w.turn, w.key or "") for w in sim.server.log if w.who == US)
    for change, status in ledger.status.items():
        if status in ACKED and not done[change]:
            raise Wrong(f"{change} is {status} in the ledger, and the app knows nothing of it")
        if status in ("failed", "rejected") and done[change]:
            raise Wrong(f"{change} is {status} in the ledger, and the app has done it")
    for change in done:
        if change not in ledger.status:
            raise Wrong(f"the app did {change}, which the ledger does not list")


def valid_rows(sim: Side) -> Iterator[dict[str, Any]]:
    """Rows of the model that no rule holds."""
    held = _held(sim)
    for row in sim.rows:
        key = sim.world.key(row["code"])
        if key is not None and key not in held:
            yield row


def _held(sim: Side) -> set[str | None]:
    """Keys that a rule must hold; None for rows without one."""
    keys = Counter(sim.world.key(r["code"]) for r in sim.rows)
    there = Counter(sim.world.key((r.now or {}).get("code")) for r in sim.server.live())
    if sim.world.sync.mode is Mode.APPEND:  # which looks at no record
        there = Counter()
    held: set[str | None] = set()
    for row in sim.rows:
        key = sim.world.key(row["code"])
        wrong = check_refs.holds(sim, row) or any(
            m.column == "stage" and row["stage"] not in (*STAGES, None) for m in sim.world.sync.fields
        )
        if key is None or keys[key] > 1 or wrong or (sim.world.stream is not None and there[key] > 1):
            held.add(key)
    if sim.world.sync.mode is Mode.APPEND:  # what is done is done
        held -= {r["key"] for r in sim.rows_of("SELECT key FROM oploop.appended")}
    return held


def held_for_a_reason(sim: Side) -> None:
    """Held is what a rule holds, and nothing else."""
    rows = sim.rows_of("SELECT DISTINCT key, reason FROM oploop.held")
    last = next(t for t in reversed(sim.turns) if not t.undoes)
    plan = sim.plan_of(last)
    if plan is None or plan.held == 0:
        rows = []
    said, must = {r["key"] for r in rows}, _held(sim)
    if said != must and not must - check_refs.gone(sim) <= said <= must:
        raise Wrong(f"held are {said}, must be {must}")


def parked_for_a_reason(sim: Side) -> None:
    """Parked is what the app refused or ignored, what nobody can know, or where people and we do not agree."""
    undos = {t.run_id for t in sim.turns if t.undoes}
    for p in sim.rows_of("SELECT * FROM oploop.parked"):
        key, reason, wanted = p["key"], p["reason"], p["wanted"] or ""
        if reason == "rejected":
            right = key in sim.server.refused
        elif reason == "ignored":
            right = DEAF in wanted and "deaf" in sim.world.behaviour.quirks.values()
        elif reason == "unknown":
            right = _may_stay_unknown(sim)
        elif reason == "undone":
            undone = {
                r["key"] for r in sim.rows_of("SELECT key, run_id FROM oploop.change_log") if r["run_id"] in undos
            }
            right = key in undone
        elif reason in ("conflict", "tug-of-war"):
            said = {m.field: _conflict(sim, m) for m in sim.world.sync.fields}
            right = said.get(p["field"]) is (Conflict.HOLD if reason == "conflict" else Conflict.OURS)
        else:
            right = False
        if not right:
            raise Wrong(f"{key!r} is parked as {reason} (wanted {wanted}) without a reason")


def _may_stay_unknown(sim: Side) -> bool:
    ops = sim.world.object.operations.values()
    return sim.world.stream is None or sim.world.sync.at_most_once or any(o.replay is Replay.NEVER for o in ops)


def nothing_sent_twice(sim: Side, ledger: Ledger) -> None:
    """A value that was acknowledged is not sent again, unless somebody changed it and the sync says `ours`."""
    for m in sim.world.sync.fields:
        ours: dict[str, Written] = {}
        theirs: dict[str, bool] = defaultdict(bool)
        for w in sim.server.log:
            if m.field not in w.sent:
                continue
            if w.who != US:
                theirs[w.id] = True
                continue
            before = ours.get(w.id)
            if before is not None and before.turn != w.turn and before.sent[m.field] == w.sent[m.field]:
                acked = ledger.status.get((before.turn, before.key or "")) in ACKED
                fair = _conflict(sim, m) is Conflict.OURS and (theirs[w.id] or _deaf(sim, m, w.sent[m.field]))
                untold = not sim.world.behaviour.tells_ids and extras.made(ledger, before)
                if acked and not fair and not untold:
                    raise Wrong(
                        f"turn {w.turn} sent {w.key!r} {m.field} = {w.sent[m.field]!r} again, as turn {before.turn} did"
                    )
            ours[w.id], theirs[w.id] = w, False


def _conflict(sim: Side, m: FieldMapping) -> Conflict:
    return m.conflict or sim.world.sync.conflict


def nothing_held_is_sent_over(sim: Side, ledger: Ledger) -> None:
    """Where updates are conditional, what people changed of a field with `conflict: hold` after we sent it stays."""
    update = sim.world.object.operations.get(Op.UPDATE)
    if update is None or update.condition is None or sim.world.stream is None or sim.jumped:
        return
    for m in sim.world.sync.fields:
        if _conflict(sim, m) is not Conflict.HOLD or m.add:
            continue
        ours: dict[str, Written] = {}
        theirs: dict[str, Written] = {}
        for w in sim.server.log:
            if m.field not in w.sent:
                continue
            if w.who != US:
                theirs[w.id] = w
                continue
            before, between = ours.get(w.id), theirs.pop(w.id, None)
            ours[w.id] = w
            if before is None or between is None or sim.turns[w.turn - 1].undoes:
                continue
            known = ledger.status.get((before.turn, before.key or "")) in ACKED
            told = before.op == "update" or sim.world.behaviour.tells_ids
            if known and told and not _same(sim, m, between.stored[m.field], before.stored[m.field]):
                raise Wrong(f"turn {w.turn} sent {w.key!r} {m.field} over what people made of it, and it is held")


def _deaf(sim: Side, m: FieldMapping, value: Any) -> bool:
    return sim.world.behaviour.quirks.get(m.field) == "deaf" and isinstance(value, str) and DEAF in value


def looks_tell_the_truth(sim: Side, ledger: Ledger) -> None:
    """Nothing is called drifted that nobody touched, nothing gone that is there; each last change was looked at."""
    people = {w.id for w in sim.server.log if w.who != US and w.op == "update"}
    deleted = {w.id for w in sim.server.log if w.op in ("remove", "archive")}
    unsure = {w.id for w in sim.server.log if w.who == US and ledger.status.get((w.turn, w.key or "")) == "unknown"}
    if sim.jumped:
        return
    for o in ledger.outcomes:
        id, status = o["remote_id"], o["status"]
        if status == "gone" and id not in deleted:
            raise Wrong(f"record {id} is called gone, and nobody deleted it")
        quirky = "deaf" in sim.world.behaviour.quirks.values() or id in unsure
        if status == "drifted" and id not in people and not quirky:
            raise Wrong(f"record {id} is called drifted, and nobody touched it")


# -- the app is as the model -------------------------------------------------------------------------------------------


def the_app_is_as_the_model(sim: Side, ledger: Ledger) -> None:
    """Each row has arrived, or there is a reason that a person can read."""
    parked = {p["key"] for p in sim.rows_of("SELECT key FROM oploop.parked")}
    known = {r["canonical_key"]: r["remote_id"] for r in sim.rows_of("SELECT * FROM oploop.records")}
    for row in valid_rows(sim):
        key = sim.world.key(row["code"]) or ""
        record = _record(sim, key, known)
        if key in parked:
            continue
        if record is None:
            if sim.world.sync.mode is not Mode.UPDATE and not _was_deleted(sim, key, known):
                raise Wrong(f"{key!r} is in the model and not in the app, and nothing says why")
        elif sim.world.sync.mode is not Mode.CREATE:
            for m in sim.world.sync.fields:
                _arrived(sim, ledger, row, record, m)


def _record(sim: Side, key: str, known: dict[str, str]) -> Record | None:
    found = [r for r in sim.server.live() if sim.world.key((r.now or {}).get("code")) == key]
    if found and (sim.world.stream is not None or len(found) == 1):
        return found[0]
    record = sim.server.records.get(known.get(key, ""))
    if record is None and sim.world.stream is None:  # blind: known by what we sent
        ids = [w.id for w in sim.server.log if w.who == US and w.key == key]
        record = sim.server.records[ids[-1]] if ids else None
    return record if record is not None and record.now is not None else None


def _was_deleted(sim: Side, key: str, known: dict[str, str]) -> bool:
    """Whether a record with the key was deleted by people, and stays so."""
    if sim.world.sync.on_deleted is OnDeleted.RECREATE:
        return False
    for record in sim.server.records.values():
        shown = {sim.world.key(v.get("code")) for _, _, v in record.past if v is not None}  # a read may have shown each
        by = next((w.who for w in reversed(sim.server.log) if w.id == record.id and w.op in ("remove", "archive")), "")
        if record.now is None and by != US and (key in shown or known.get(key) == record.id):
            return True
    if sim.world.stream is None:
        return any(w.who == US and w.key == key for w in sim.server.log)
    return False


def _arrived(sim: Side, ledger: Ledger, row: dict[str, Any], record: Record, m: FieldMapping) -> None:
    assert record.now is not None
    now = record.now[m.field]
    if m.ref is not None and check_refs.may_be_any(sim, row, m):
        return
    wanted = sorted({*(now or ()), *m.add}) if m.add else check_refs.wanted(sim, row, m)
    on_null = str(m.on_null or sim.world.sync.on_null)
    if m.ref is not None and row[m.field] is not None:
        on_null = "clear"  # a miss that is to be cleared
    if _same(sim, m, now, wanted) or (wanted is None and on_null == "keep") or m.only:
        return
    if m.if_empty and now is not None:
        return
    if _touched_by_people(sim, ledger, record, m, wanted):
        return
    if sim.world.stream is None and any(w.who != US for w in _history(sim, record, m)):
        return  # nobody shows a blind sync what people did
    if _deaf(sim, m, wanted) and any(w.who == US and w.sent.get(m.field) == wanted for w in _history(sim, record, m)):
        return
    raise Wrong(
        f"{row['code']!r} {m.field} must be {wanted!r}, the app holds {now!r} in {record.id}, and nothing says why"
    )


def _same(sim: Side, m: FieldMapping, now: Any, wanted: Any) -> bool:
    """Whether the app holds what the model wants, as it stores it or as the two count as the same."""
    if now == wanted:
        return True
    if not isinstance(now, str) or not isinstance(wanted, str):
        return sorted(now or ()) == sorted(wanted or ()) if isinstance(now, list) or isinstance(wanted, list) else False
    quirk, form = sim.world.behaviour.quirks.get(m.field), sim.world.object.fields[m.field].canonical
    if quirk == "trim" or form is Canonical.TRIM:
        return now.strip() == wanted.strip()
    return (quirk == "lower" or form is Canonical.LOWER) and now.strip().lower() == wanted.strip().lower()


def _history(sim: Side, record: Record, m: FieldMapping) -> list[Written]:
    """What was written of a field; where we made the record and `clear` left it out, it was to be empty."""
    first, *more = [w for w in sim.server.log if w.id == record.id] or [None]
    history = [w for w in (first, *more) if w is not None and m.field in w.sent]
    clears = str(m.on_null or sim.world.sync.on_null) == "clear" and not (m.if_empty or m.only or m.add or m.ref)
    if first is not None and first.who == US and m.field not in first.sent and clears:
        return [replace(first, sent={**first.sent, m.field: None}), *history]
    return history


def _touched_by_people(sim: Side, ledger: Ledger, record: Record, m: FieldMapping, wanted: Any) -> bool:
    """Whether the field is as it is because people changed it, and the sync's `conflict` leaves that."""
    history = _history(sim, record, m)
    last = max((i for i, w in enumerate(history) if w.who == US), default=None)
    if sim.world.stream is None:
        return last is not None and _same(sim, m, wanted, history[last].sent[m.field])
    if last is None or last == len(history) - 1 or _conflict(sim, m) is Conflict.OURS:
        return False
    if _conflict(sim, m) is Conflict.HOLD or m.add:
        return True
    for w in reversed([w for w in history if w.who == US]):
        if _same(sim, m, wanted, w.sent[m.field]):
            return True
        if ledger.status.get((w.turn, w.key or "")) in ACKED:
            return False
    return False


__all__ = ["BAD", "always", "at_the_end"]
