"""What must hold of rows that leave, of append, undo and pause. See check.py."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import orjson

from oploop.project import Adopt, Mode, OnLeave
from tests.fault.sim.schedule import Side, Turn, Wrong
from tests.fault.sim.server import US, Record, Written

if TYPE_CHECKING:
    from tests.fault.sim.check import Ledger

AWAY = ("remove", "archive")


def paused_sends_nothing(sim: Side) -> None:
    """While a sync is paused its runs send nothing; an undo does."""
    for turn, op, item in sim.server.received:
        t = sim.turns[turn - 1]
        if t.paused and not t.undoes:
            raise Wrong(f"turn {turn} sent {op} {item['key']!r} of a paused sync")


def a_canary_that_stopped_pauses(sim: Side) -> None:
    """A sync whose canary was not as meant sends nothing more until it is resumed."""
    report = next(t for t in reversed(sim.turns) if not sim.is_put_back(t)).report
    said = report.syncs[0].stopped if report is not None and report.syncs else []
    if any(s.startswith("canary: ") for s in said) and not sim.paused():
        raise Wrong(f"{said[0]}, and the sync is not paused")


# -- rows that leave ---------------------------------------------------------------------------------------------------


def _keys(sim: Side, turn: Turn) -> set[str | None]:
    """Keys of the model's rows of a turn; None where one has none."""
    return {sim.world.key(r["code"]) for r in turn.model[sim.world.name]}


def taken_away_is_what_may_be(sim: Side, ledger: Ledger) -> None:
    """Only what left, and is ours or adopted, was removed or archived, and nothing as long as a row has no key."""
    for w in sim.server.log:
        turn = sim.turns[w.turn - 1] if w.turn else None
        if w.who != US or w.op not in AWAY or turn is None or turn.undoes:
            continue
        model = _keys(sim, turn)
        if w.op != {OnLeave.DELETE: "remove", OnLeave.ARCHIVE: "archive"}.get(sim.world.sync.on_leave):
            raise Wrong(f"turn {w.turn} took {w.key!r} away by {w.op}, and on_leave is {sim.world.sync.on_leave}")
        if None in model:
            raise Wrong(f"turn {w.turn} took {w.key!r} away, and a row of the model has no key")
        if {w.key, *_shown_keys(sim, w, turn)} & model:
            raise Wrong(f"turn {w.turn} took {w.key!r} away, and it is in the model")
        if not _is_ours(sim, ledger, w.id, until=w.at):
            raise Wrong(f"turn {w.turn} took {w.key!r} ({w.id}) away, which is not ours")


def _shown_keys(sim: Side, w: Written, turn: Turn) -> set[str | None]:
    """The key that the app must have shown of a record when the turn began; none where reads may be behind."""
    at = {(sim.server.records[w.id].as_of(m) or (0, None))[1] is not None for m in (turn.began,)}
    if sim.world.stream is None or not all(at):
        return set()
    lag = sim.world.behaviour.lag
    seen = {
        sim.world.key((found[1] or {}).get("code"))
        for moment in (turn.began - lag, turn.began)
        if (found := sim.server.records[w.id].as_of(moment)) is not None
    }
    return seen if len(seen) == 1 else set()


def _is_ours(sim: Side, ledger: Ledger, id: str, until: float) -> bool:
    """Whether we may take a record away: we made it, as the app acknowledged or showed, or we wrote it and adopt all."""
    sync = sim.world.sync
    if sync.adopt is Adopt.ALL and sync.mode is Mode.MIRROR:
        return True
    wrote = [w for w in sim.server.log if w.who == US and w.id == id and w.at <= until and w.op not in AWAY]
    said = [w for w in wrote if ledger.status.get((w.turn, w.key or "")) in ("sent", "mixed")]
    if sync.adopt is Adopt.ALL:
        return bool(said) or any(ledger.status.get((w.turn, w.key or "")) == "unknown" for w in wrote)
    shown = [w for w in wrote if w.op == "create" and ((w.turn, w.key or ""), id) in ledger.found]
    return bool(shown) or any(made(ledger, w) for w in said)


def made(ledger: Ledger, w: Written) -> bool:
    """Whether we take it that a write made its record: the app's own upsert does not tell."""
    return any(op == "create" for op, _ in ledger.after.get((w.turn, w.key or ""), []))


def what_left_is_gone(sim: Side, ledger: Ledger) -> None:
    """When all is quiet nothing is left of rows that left, but what is not ours, parked, or kept by a row without a key."""
    leaves = sim.world.sync.on_leave
    last = Turn(0, "", model={sim.world.name: sim.rows})
    model = _keys(sim, last)
    if leaves is OnLeave.KEEP or None in model or sim.world.sync.mode is Mode.APPEND:
        return
    if sim.world.sync.mode is Mode.MIRROR and not sim.rows:
        return  # an empty model stops a mirror
    parked = {p["key"] for p in sim.rows_of("SELECT key FROM oploop.parked")}
    known = {r["remote_id"]: r["canonical_key"] for r in sim.rows_of("SELECT * FROM oploop.records")}
    for record in sim.server.live():
        shown = sim.world.key((record.now or {}).get("code"))
        names = {shown, known.get(record.id, shown)}
        names |= {w.key for w in sim.server.log if w.id == record.id and w.who == US}
        if names & (model | parked):
            continue
        if leaves is OnLeave.CLEAR:
            _is_cleared(sim, ledger, record)
        elif not record.archived and _must_go(sim, ledger, record):
            raise Wrong(f"{sorted(map(str, names))} left the model, and {record.id} is still in the app")


def _must_go(sim: Side, ledger: Ledger, record: Record) -> bool:
    """Whether we know enough of a record that left to take it away."""
    sync = sim.world.sync
    if sync.adopt is Adopt.ALL and sync.mode is Mode.MIRROR:
        return True
    told = sim.world.behaviour.tells_ids or sim.world.stream is None
    ours = [w for w in sim.server.log if w.who == US and w.id == record.id and w.op not in AWAY]
    if sync.adopt is Adopt.ALL:
        return any(
            ledger.status.get((w.turn, w.key or "")) == "sent" and (w.op != "create" or told) for w in ours if w.sent
        )
    if sim.world.stream is None and not sim.world.behaviour.tells_ids:
        return False  # nobody told who it is: it is not among our records
    return told and any(made(ledger, w) and ledger.status.get((w.turn, w.key or "")) == "sent" for w in ours)


def _is_cleared(sim: Side, ledger: Ledger, record: Record) -> None:
    """What we set, and nobody changed since, is empty; what people changed is theirs."""
    assert record.now is not None
    for m in sim.world.sync.fields:
        history = [w for w in sim.server.log if w.id == record.id and m.field in w.sent]
        ours = [w for w in history if w.who == US and ledger.status.get((w.turn, w.key or "")) == "sent"]
        if not ours or (ours[-1].op == "create" and not sim.world.behaviour.tells_ids):
            continue
        now = record.now[m.field]
        if m.add:
            left = set(now or ()) & set(m.add)
            wrong = bool(left) and history[-1].who == US
        else:
            wrong = now not in (None, []) and history[-1] is ours[-1] and ours[-1].stored[m.field] == now
        if wrong and not sim.turns[history[-1].turn - 1].undoes:
            raise Wrong(
                f"{record.id} left the model, and {m.field} still is {now!r}, as turn {history[-1].turn} set it"
            )


# -- append ------------------------------------------------------------------------------------------------------------


def each_row_is_appended_once(sim: Side, ledger: Ledger) -> None:
    """Each row is sent once, but those that were there when the sync began; absent is only what is held or parked."""
    made: dict[str | None, list[Written]] = defaultdict(list)
    for w in sim.server.log:
        if w.who == US and w.op == "create" and not sim.turns[w.turn - 1].undoes:
            made[w.key].append(w)
    seen = {r["key"]: r["run_id"] for r in sim.rows_of("SELECT key, run_id FROM oploop.appended WHERE how = 'seen'")}
    if seen and sim.world.extras.backfill:
        raise Wrong(f"marked as seen, and not sent: {sorted(seen)}, in spite of backfill")
    if len(set(seen.values())) > 1:
        raise Wrong(f"rows are marked as seen by several runs: {seen}")
    for key in seen:
        if made[key]:
            raise Wrong(f"{key!r} was there when the sync began, and was sent by turn {made[key][0].turn}")
    turn = next((t for t in sim.turns if t.run_id in seen.values()), None)
    if turn is not None and not set(seen) <= _keys(sim, turn):
        raise Wrong(f"marked as seen without having been there: {set(seen) - _keys(sim, turn)}")
    from tests.fault.sim.check import valid_rows

    parked = {p["key"] for p in sim.rows_of("SELECT key FROM oploop.parked")}
    # a lost call is looked up by its key: a record that people gave the same key passes for ours
    parked |= {sim.world.key(w.sent.get("code")) for w in sim.server.log if w.who != US}
    for row in valid_rows(sim):
        key = sim.world.key(row["code"])
        if key not in seen and key not in parked and not made[key]:
            raise Wrong(f"{key!r} is in the model and was never sent, and nothing says why")


# -- undo --------------------------------------------------------------------------------------------------------------


def undone_is_put_back(sim: Side, ledger: Ledger) -> None:
    """An undo puts back what its runs left, never what somebody changed since, and what it took back does not return."""
    before = {
        (r["run_id"], r["key"]): (orjson.loads(r["before"] or "{}"), orjson.loads(r["after"] or "{}"))
        for r in ledger.rows
    }
    for w in sim.server.log:
        turn = sim.turns[w.turn - 1] if w.turn else None
        if w.who != US or turn is None or not turn.undoes or w.op in AWAY or w.op == "create":
            continue
        for name, value in w.sent.items():
            history = [x for x in sim.server.log if x.id == w.id and name in x.sent]
            last = history[history.index(w) - 1] if history.index(w) else None
            if last is not None and last is not w and last.who != US and not sim.jumped:
                raise Wrong(f"turn {w.turn} undid {w.key!r} {name}, which people had changed")
            known = [before[run, w.key or ""][0] for run in turn.undoes if (run, w.key or "") in before]
            if known and all(name in k and _plain(k[name]) != _plain(value) for k in known):
                raise Wrong(f"turn {w.turn} put {name} of {w.key!r} back to {value!r}, it was {known}")
            _stays_back(sim, ledger, w, name)


def _stays_back(sim: Side, ledger: Ledger, w: Written, name: str) -> None:
    """Until the model wants another value, or a person undoes the undo, the value that was taken back is not sent."""
    history = [x for x in sim.server.log if x.id == w.id and name in x.sent and x.who == US]
    at = history.index(w)
    if at == 0 or at == len(history) - 1 or sim.lost_state:
        return
    taken, again = history[at - 1], history[at + 1]
    status = ledger.status.get((w.turn, w.key or ""))
    known = status in ("sent", "unknown") and ledger.status.get((taken.turn, taken.key or "")) == "sent"
    if not known or sim.turns[again.turn - 1].undoes or sim.turns[taken.turn - 1].undoes:
        return
    wanted = {
        orjson.dumps(r[name])
        for t in sim.turns[w.turn : again.turn]
        for r in t.model[sim.world.name]
        if sim.world.key(r["code"]) == w.key
    }
    if taken.sent[name] == again.sent[name] and len(wanted) == 1 and taken.key == again.key:
        raise Wrong(f"turn {w.turn} undid {w.key!r} {name} = {taken.sent[name]!r}, and turn {again.turn} sent it again")


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, list) else value
