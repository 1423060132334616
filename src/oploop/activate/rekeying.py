"""Another key, or another object, for a sync that has delivered (design: §5.4): refused, unless the user asks for it.

With another key the identities of records are taken over: a row of the model tells its old key and its new one, and so
which record is meant from now on. State per field is kept by the app's id and stays where it is. With another object the
sync begins anew; the records of the old one are left as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import orjson

from oploop.activate import sql, states
from oploop.activate.bound import BoundSync
from oploop.activate.mapping import MODEL
from oploop.errors import FixConfig
from oploop.warehouse.base import Warehouse, literal, quote_table

#: Temporary table of (old key, new key) of the model's rows, where both are of one row only.
PAIRS = "oploop_rekeyed"


@dataclass(frozen=True, slots=True)
class Delivered:
    """What a sync delivers to since its first delivery. `key`: app field -> model column."""

    app: str
    object: str
    key_fields: str
    key: dict[str, str]

    def is_of(self, bound: BoundSync) -> bool:
        """Another column of the model for the same field of the app is no other key, unless the key is the sync's own."""
        if bound.appends and self.key != dict(bound.sync.key):
            return False
        return (self.app, self.object, self.key_fields) == (bound.sync.app, bound.sync.object, bound.key_names)


def delivered(warehouse: Warehouse, sync: str) -> Delivered | None:
    """The object and the key with which a sync has delivered; None when it never has."""
    if not warehouse.columns("oploop.sync_targets"):
        return None
    rows = warehouse.rows(
        f"SELECT app, object, key_fields, key, noted_at FROM oploop.sync_targets WHERE sync = {literal(sync)}"
    )
    if not rows:
        return None
    app, obj, key_fields, key, _ = max(rows, key=lambda r: r[4])
    return Delivered(app, obj, key_fields, orjson.loads(key))


def note(warehouse: Warehouse, bound: BoundSync, now: datetime) -> None:
    """Note what a sync delivers to, when a delivery of it begins."""
    was = delivered(warehouse, bound.name)
    if was is not None and was.is_of(bound) and was.key == dict(bound.sync.key):
        return
    warehouse.execute("DELETE FROM oploop.sync_targets WHERE sync = ?", (bound.name,))
    key = orjson.dumps(dict(bound.sync.key)).decode()
    warehouse.execute(
        "INSERT INTO oploop.sync_targets VALUES (?, ?, ?, ?, ?, ?)",
        (bound.name, bound.sync.app, bound.sync.object, bound.key_names, key, now),
    )


def refuse(warehouse: Warehouse, bound: BoundSync) -> None:
    """Raise FixConfig when the sync has delivered to another object, or by another key."""
    was = delivered(warehouse, bound.name)
    if was is None or was.is_of(bound):
        return
    moved = (was.app, was.object) != (bound.sync.app, bound.sync.object)
    if moved:
        says = f"it has delivered to {was.app}.{was.object}; with `to: {bound.app_object}` it would begin anew"
    else:
        says = f"it has delivered by key {was.key_fields}; by {bound.key_names} it would not know its records again"
    raise FixConfig(
        says,
        mend=f"change it back, or if it is meant: oploop run --rekey {bound.name} (plan --rekey {bound.name} shows it first)",
        place=bound.sync.place_of("to" if moved else "key"),
    )


def begin_anew(warehouse: Warehouse, bound: BoundSync, now: datetime) -> None:
    """Let a sync deliver to another object: what waits for the old one is forgotten, its records are left as they are."""
    with warehouse.transaction():
        warehouse.execute(
            "DELETE FROM oploop.parked WHERE sync = ? AND NOT (app = ? AND object = ?)",
            (bound.name, bound.sync.app, bound.sync.object),
        )
        warehouse.execute("DELETE FROM oploop.append_syncs WHERE sync = ?", (bound.name,))
        note(warehouse, bound, now)


def move(warehouse: Warehouse, old: BoundSync | None, bound: BoundSync, now: datetime) -> None:
    """Keep the sync's records, and what is parked of them, by its new key. All or nothing.

    `old`: the sync bound by its old key; None where that cannot be told any more and the app's ids are enough.
    """
    with warehouse.transaction():
        if old is not None:
            _pair(warehouse, old, bound)
            _identify(warehouse, old, bound, now)
            if not bound.blind:
                _identify_left(warehouse, old, bound, now)
            elif not bound.appends:
                _move_blind_state(warehouse, bound)
            _move_keys(warehouse, bound)
        note(warehouse, bound, now)


def _joined(bound: BoundSync) -> str:
    return " || chr(31) || ".join(f"({k.wanted})" for k in bound.keys)


def _pair(warehouse: Warehouse, old: BoundSync, new: BoundSync) -> None:
    rows = f"SELECT {_joined(old)} AS okey, {_joined(new)} AS nkey FROM {quote_table(new.model_table)} AS {MODEL}"
    both = (
        "SELECT okey, nkey, count(*) OVER (PARTITION BY okey) AS olds, count(*) OVER (PARTITION BY nkey) AS news "
        f"FROM ({rows}) AS t WHERE okey IS NOT NULL AND nkey IS NOT NULL"
    )
    warehouse.execute(
        f"CREATE OR REPLACE TEMP TABLE {PAIRS} AS SELECT okey, nkey FROM ({both}) AS t WHERE olds = 1 AND news = 1"
    )


def _ours(bound: BoundSync, alias: str) -> str:
    """The condition on `oploop.records` for the object's identities by the sync's key."""
    return (
        f"{alias}.app = {literal(bound.sync.app)} AND {alias}.object = {literal(bound.sync.object)} "
        f"AND {alias}.key_fields = {literal(bound.key_names)}"
    )


def _insert(warehouse: Warehouse, new: BoundSync, old: BoundSync, found: str, now: datetime) -> None:
    """Identities by the new key for `found`, a select of (nkey, rid), where there are none."""
    warehouse.execute(
        f"INSERT INTO oploop.record_rows SELECT ?, ?, ?, f.nkey, f.rid, (SELECT max(o.created_by) FROM oploop.records o "
        f"WHERE {_ours(old, 'o')} AND o.remote_id = f.rid), ? FROM ({found}) AS f WHERE f.rid IS NOT NULL AND f.nkey IS NOT NULL "
        f"AND NOT EXISTS (SELECT 1 FROM oploop.records n WHERE {_ours(new, 'n')} "
        "AND (n.canonical_key = f.nkey OR n.remote_id = f.rid))",
        (new.sync.app, new.sync.object, new.key_names, now),
    )


def _identify(warehouse: Warehouse, old: BoundSync, new: BoundSync, now: datetime) -> None:
    """The record of each row of the model: the app's only live one with the old key, or the one that we made for it."""
    made = f"SELECT canonical_key, max(remote_id) AS rid FROM oploop.records r WHERE {_ours(old, 'r')} GROUP BY 1"
    rid, joins = "made.rid", f"LEFT JOIN ({made}) made ON made.canonical_key = p.okey"
    if old.raw_table is not None and warehouse.columns(old.raw_table):
        live = f"SELECT __akey, max(__remote) AS rid FROM ({sql.app_select(old, with_key=True)}) AS t WHERE NOT __deleted GROUP BY 1"
        joins += f" LEFT JOIN ({live} HAVING count(*) = 1) live ON live.__akey = p.okey"
        rid = "COALESCE(live.rid, made.rid)"
    _insert(warehouse, new, old, f"SELECT p.nkey, {rid} AS rid FROM {PAIRS} p {joins}", now)


def _identify_left(warehouse: Warehouse, old: BoundSync, new: BoundSync, now: datetime) -> None:
    """Records of ours whose rows have left the model are known by the new key that the app shows of them, if any."""
    if new.raw_table is None or not warehouse.columns(new.raw_table):
        return
    there = f"SELECT {_joined(old)} AS okey FROM {quote_table(old.model_table)} AS {MODEL}"
    found = (
        f"SELECT min(t.__akey) AS nkey, r.remote_id AS rid FROM oploop.records r JOIN ({sql.app_select(new, with_key=True)}) AS t "
        f"ON t.__remote = r.remote_id WHERE {_ours(old, 'r')} AND NOT t.__deleted "
        f"AND NOT EXISTS (SELECT 1 FROM ({there}) AS m WHERE m.okey = r.canonical_key) GROUP BY r.remote_id"
    )
    _insert(warehouse, new, old, found, now)


def _move_blind_state(warehouse: Warehouse, bound: BoundSync) -> None:
    """The state of records that cannot be read is kept by their key; what is not in the model any more is forgotten."""
    table, own = states.state_table(bound), literal(bound.name)
    if not warehouse.columns(table.replace('"', "")):
        return
    warehouse.execute(f"DELETE FROM {table} WHERE sync = {own} AND remote_id NOT IN (SELECT okey FROM {PAIRS})")
    warehouse.execute(
        f"UPDATE {table} SET remote_id = (SELECT p.nkey FROM {PAIRS} p WHERE p.okey = remote_id) WHERE sync = {own}"
    )


def _move_keys(warehouse: Warehouse, bound: BoundSync) -> None:
    """What is parked, and what was appended, by its new key."""
    where = (
        f"sync = {literal(bound.name)} AND app = {literal(bound.sync.app)} AND object = {literal(bound.sync.object)}"
    )
    moved = f"key IN (SELECT okey FROM {PAIRS})"
    warehouse.execute(
        f"UPDATE oploop.parked SET key = (SELECT p.nkey FROM {PAIRS} p WHERE p.okey = key) WHERE {where} AND {moved}"
    )
    if bound.appends:  # an old key may look like another row's new one
        warehouse.execute(f"DELETE FROM oploop.appended WHERE {where} AND NOT {moved}")
        warehouse.execute(
            f"UPDATE oploop.appended SET key = (SELECT p.nkey FROM {PAIRS} p WHERE p.okey = key) WHERE {where}"
        )
