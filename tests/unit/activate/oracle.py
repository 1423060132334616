"""What a sync must do with each row, in plain Python, written from the design (§5.1 to 5.4) and from nothing else.

It takes values as they are compared: a list is a sorted tuple of texts, JSON is its text with sorted keys.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from oploop.records import Canonical


@dataclass(frozen=True)
class Spec:
    """A mapped field."""

    name: str
    canonical: Canonical = Canonical.EXACT
    enum: tuple[str, ...] | None = None
    max_length: int | None = None
    nullable: bool = True
    required: bool = False
    conflict: str = "theirs"
    on_null: str = "keep"
    if_empty: bool = False
    only_create: bool = False
    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()

    @property
    def in_place(self) -> bool:
        return bool(self.add or self.remove)


@dataclass(frozen=True)
class Row:
    key: Any
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Record:
    """A record as the app showed it at the last look."""

    remote_id: str
    key: Any
    values: Mapping[str, Any]
    version: int = 0
    read_at: datetime | None = None
    deleted: bool = False


@dataclass(frozen=True)
class State:
    """What we know of a record from its last acknowledgement. `fields`: name -> (sent, stored)."""

    remote_id: str
    acked_at: datetime
    receipt: int | None
    fields: Mapping[str, tuple[Any, Any]]


@dataclass(frozen=True)
class World:
    mode: str
    key_form: Canonical
    fields: Sequence[Spec]
    rows: Sequence[Row]
    records: Sequence[Record]
    states: Sequence[State] = ()
    identities: Mapping[Any, str] = field(default_factory=dict)  #: canonical key -> remote id
    read_began: datetime | None = None  #: of the last complete read
    lag: timedelta = timedelta(0)
    on_leave: str = "keep"
    adopt: str = "none"
    blind: bool = False  #: the records cannot be read: their states are kept by canonical key
    archived: frozenset[str] = frozenset()  #: ids that we archived before, and that the app may go on showing


@dataclass(frozen=True)
class Verdict:
    status: str
    key: Any = None
    remote_id: str | None = None
    sends: Mapping[str, Any] = field(default_factory=dict)


def canon(value: Any, form: Canonical) -> Any:
    """The form under which the app takes two values for the same; None for an empty text."""
    if value is None or form is Canonical.EXACT:
        return value
    text = value if form is Canonical.NUMBER else value.strip(" ")
    return (text.lower() if form is Canonical.LOWER else text) or None


def key_of(value: Any, form: Canonical) -> Any:
    """A key's canonical form; an empty text is no key."""
    return canon(value, form) or None


def decide(world: World) -> list[Verdict]:
    """What is to be done with each row of the model, in the rows' order."""
    times = Counter(key_of(r.key, world.key_form) for r in world.rows)
    return [_row(world, r, times) for r in world.rows]


def _row(world: World, row: Row, times: Counter[Any]) -> Verdict:
    key = key_of(row.key, world.key_form)
    if key is None or times[key] > 1:
        return Verdict("held", key)
    if world.blind:
        return _blind(world, row, key)
    same_key = [r for r in world.records if key_of(r.key, world.key_form) == key]
    live = [r for r in same_key if not r.deleted]
    if len(live) > 1:
        return Verdict("held", key)
    record, remote_id = _identify(world, key, live)
    state = next((s for s in world.states if s.remote_id == remote_id), None)
    if any(_unfit(f, row.values.get(f.name), new=remote_id is None) for f in world.fields):
        return Verdict("held", key)
    if _gone(world, record, remote_id, state, same_key):
        return Verdict("gone", key, remote_id)
    if remote_id is None:
        if world.mode == "update":
            return Verdict("missing", key)
        wanted = {f.name: _wanted(f, row, None) for f in world.fields if not _equal(f, _wanted(f, row, None), None)}
        return Verdict("create", key, None, wanted)
    if world.mode == "create":
        return Verdict("same", key, remote_id)
    return _compare(world, row, key, remote_id, record, state)


def _blind(world: World, row: Row, key: Any) -> Verdict:
    """A row whose record is known only by what was sent."""
    state = next((s for s in world.states if s.remote_id == key), None)
    remote_id = world.identities.get(key) or (key if state is not None else None)
    if any(_unfit(f, row.values.get(f.name), new=remote_id is None) for f in world.fields):
        return Verdict("held", key)
    if remote_id is not None:
        return (
            Verdict("same", key, remote_id)
            if world.mode == "create"
            else _compare(world, row, key, remote_id, None, state)
        )
    if world.mode == "update":
        return Verdict("missing", key)
    wanted = {f.name: _wanted(f, row, None) for f in world.fields}
    return Verdict(
        "create", key, None, {f.name: wanted[f.name] for f in world.fields if not _equal(f, wanted[f.name], None)}
    )


def _identify(world: World, key: Any, live: Sequence[Record]) -> tuple[Record | None, str | None]:
    """The record that a key means: the live one that has it, else the one that we made for it."""
    if live:
        return live[0], live[0].remote_id
    remote_id = world.identities.get(key)
    if remote_id is None:
        return None, None
    return next((r for r in world.records if r.remote_id == remote_id), None), remote_id


def _gone(
    world: World, record: Record | None, remote_id: str | None, state: State | None, same_key: Sequence[Record]
) -> bool:
    """Deleted in the app, by a mark or by absence from a complete read that must have shown it."""
    if record is not None:
        return record.deleted
    if remote_id is None:
        return any(r.deleted for r in same_key)
    return state is not None and _vouched(world, state)


def _unfit(f: Spec, value: Any, *, new: bool) -> bool:
    if f.in_place:
        return False
    if f.enum is not None and value is not None and value not in f.enum:
        return True
    if f.max_length is not None and value is not None and len(value) > f.max_length:
        return True
    if value is None and f.on_null == "clear" and not f.nullable:
        return True
    return value is None and f.required and new


def _vouched(world: World, state: State) -> bool:
    return world.read_began is not None and state.acked_at < world.read_began - world.lag


def _superseded(world: World, record: Record | None, state: State) -> bool:
    """Whether what was read is news to what was acknowledged (§5.2)."""
    if _vouched(world, state):
        return True
    if record is None or record.read_at is None:
        return False
    if state.receipt is not None:
        return record.version >= state.receipt and record.read_at > state.acked_at
    return record.read_at > state.acked_at + world.lag


def _wanted(f: Spec, row: Row, holds: Any) -> Any:
    if f.in_place:
        return tuple(sorted((set(holds or ()) - set(f.remove)) | set(f.add)))
    return row.values.get(f.name)


def _compare(world: World, row: Row, key: Any, remote_id: str, record: Record | None, state: State | None) -> Verdict:
    sends: dict[str, Any] = {}
    kept, parked = False, False
    news = not world.blind and (state is None or _superseded(world, record, state))
    for f in world.fields:
        known = state is not None and f.name in state.fields
        sent, stored = state.fields[f.name] if state is not None and known else (None, None)
        now = stored if known and not news else (record.values.get(f.name) if record is not None else None)
        wanted = _wanted(f, row, now)
        if f.only_create or _equal(f, wanted, now):
            continue
        if (wanted is None and f.on_null == "keep") or (f.if_empty and now is not None):
            continue
        if not known:
            sends[f.name] = wanted  # never sent by us: an overwrite
            continue
        # what the sync itself wants has moved; of a list to which it adds, that is another list of additions
        moved = not _equal(f, _wanted(f, row, sent) if f.in_place else wanted, sent)
        if _equal(f, now, stored):
            if moved:
                sends[f.name] = wanted
        elif f.conflict == "ours" or (f.conflict == "theirs" and moved):
            sends[f.name] = wanted
        elif f.conflict == "hold":
            parked = True
        else:
            kept = True
    if sends:
        return Verdict("update", key, remote_id, sends)
    if parked:
        return Verdict("parked", key, remote_id)
    return Verdict("kept" if kept else "same", key, remote_id)


def _equal(f: Spec, a: Any, b: Any) -> bool:
    return bool(canon(a, f.canonical) == canon(b, f.canonical))


def left(world: World) -> list[Verdict]:
    """What is to be done with each record that may be taken away, or cleared, and whose row has left the model."""
    keys = {key_of(r.key, world.key_form) for r in world.rows}
    found = {v.remote_id for v in decide(world)} | {_means(world, k) for k in keys if k is not None}
    verdicts = []
    for remote_id, state in _candidates(world):
        record = next((r for r in world.records if r.remote_id == remote_id), None)
        names = {k for k, i in world.identities.items() if i == remote_id and not _mirrors_all(world)}
        if world.blind and state is not None:
            names |= {state.remote_id}
        shown = key_of(record.key, world.key_form) if record is not None else None
        if remote_id in found or (names | {shown}) & (keys - {None}) or remote_id in world.archived:
            continue  # its row is there, be it held; or it was archived before
        gone = record.deleted if record is not None else state is not None and _vouched(world, state)
        if gone and not world.blind:
            continue  # gone already
        status, sends = {"delete": "remove", "archive": "archive"}.get(world.on_leave, ""), dict[str, Any]()
        if world.on_leave == "clear":
            status, sends = _clear(world, record, state) if state is not None else ("same", {})
        if status in ("remove", "archive", "update") and None in keys:
            status, sends = "left", {}
        verdicts.append(Verdict(status, None, remote_id, sends))
    return [v for v in verdicts if v.status != "same"]


def _mirrors_all(world: World) -> bool:
    """Whether all that the app shows goes by the keys that it shows."""
    return world.adopt == "all" and world.mode == "mirror" and not world.blind


def _candidates(world: World) -> list[tuple[str, State | None]]:
    """(the app's id, state) of records that may be taken away or cleared: ours, or what `adopt: all` adds to them."""
    if _mirrors_all(world):
        states = {s.remote_id: s for s in world.states}
        return [(r.remote_id, states.get(r.remote_id)) for r in world.records if not r.deleted]
    ours = []
    for s in world.states:
        made = s.remote_id in (world.identities if world.blind else world.identities.values())
        if made or world.on_leave == "clear" or world.adopt == "all":
            ours.append((world.identities.get(s.remote_id, s.remote_id) if world.blind else s.remote_id, s))
    return ours


def _means(world: World, key: Any) -> str | None:
    """The record that a key of the model means, also where its row is held."""
    if world.blind:
        return world.identities.get(key)
    live = [r for r in world.records if not r.deleted and key_of(r.key, world.key_form) == key]
    return _identify(world, key, live)[1]


def _clear(world: World, record: Record | None, state: State) -> tuple[str, dict[str, Any]]:
    """Only what we set is cleared, and only where the app still holds it."""
    sends: dict[str, Any] = {}
    kept = False
    for f in world.fields:
        if f.name not in state.fields:
            continue
        stored = state.fields[f.name][1]
        news = not world.blind and _superseded(world, record, state)
        now = (record.values.get(f.name) if record is not None else None) if news else stored
        if f.in_place:
            rest = tuple(sorted(set(now or ()) - set(f.add)))
            if now is not None and rest != now:
                sends[f.name] = rest
        elif f.nullable and now is not None and now != ():
            if _equal(f, now, stored):
                sends[f.name] = () if isinstance(now, tuple) else None
            else:
                kept = True
    return ("update" if sends else "kept" if kept else "same"), sends
