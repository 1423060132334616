"""Creates whose answer was lost: how it is found out what became of them (design: §5.7).

A read that shows the record tells that it was done, a complete read that should show it and does not tells that it was
not. Both need a key that the create itself sends and that can be read; a key that the app chooses tells nothing, and
then such a create stays unknown until a person decides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from oploop.activate import keys
from oploop.activate.convert import key_form
from oploop.activate.refbind import RAWT
from oploop.errors import FixConfig
from oploop.records import DELETED, Replay
from oploop.warehouse.base import Warehouse, literal, quote_table, raw_table
from oploop.warehouse.forms import canonical

if TYPE_CHECKING:
    from oploop.activate.bound import BoundSync


def was(kind: str) -> str:
    """The condition on `oploop.parked` that a change was of this kind; one that the ledger has forgotten counts as an update."""
    log = (
        "EXISTS (SELECT 1 FROM oploop.change_log l WHERE l.run_id = parked.run_id AND l.key = parked.key "
        "AND l.app = parked.app AND l.object = parked.object AND l.op "
    )
    return f"NOT {log}<> 'update')" if kind == "update" else f"{log}= {literal(kind)})"


def any_unknown(warehouse: Warehouse, bound: BoundSync) -> bool:
    """Whether it is unknown of some change of the sync what became of it."""
    return bool(
        warehouse.rows(f"SELECT 1 FROM oploop.parked WHERE sync = {literal(bound.name)} AND reason = 'unknown' LIMIT 1")
    )


def findable(bound: BoundSync) -> bool:
    """Whether a read can show what an unknown create made."""
    return bound.stream is not None and all(k.field.source is not None and not k.field.read_only for k in bound.keys)


def waits_for_person(bound: BoundSync) -> bool:
    """Whether an unknown create is never sent again by itself: it cannot be told what became of it, or it should not be."""
    if bound.create_op is None:
        return False
    replay = bound.object.operations[bound.create_op].replay
    return replay is Replay.NEVER or bound.sync.at_most_once or not findable(bound)


def known_by_keys(bound: BoundSync) -> dict[str, float]:
    """Operations whose calls a later run may make once more, under their keys: of which nobody else can tell what became of them; and for
    how many seconds the app knows a key. A change that a later run may send anew needs none."""
    if bound.sync.at_most_once or findable(bound):
        return {}
    return {
        op.value: operation.ttl
        for op, operation in bound.object.operations.items()
        if operation.replay is Replay.KEY
        and operation.finishes
        and operation.ttl is not None
        and not operation.by_a_later_run(op)
    }


def refuse_unfindable(bound: BoundSync) -> None:
    """A create that has to be looked up when its answer is lost needs a field to look it up by, or the user's word."""
    if bound.create_op is None or bound.sync.at_most_once or findable(bound):
        return
    if bound.object.operations[bound.create_op].replay is not Replay.LOOKUP:
        return
    unsent = [k.field.name for k in bound.keys if k.field.source is None or k.field.read_only]
    key = f"key {', '.join(unsent)} is not sent by a create" if unsent else "its records cannot be read"
    other = "use a key that a create sends and that can be read"
    if not bound.appends:
        other += ", or mode: update"
    raise FixConfig(
        f"{bound.app_object} does not tell a repeated create from a new one, and {key}: one whose answer is lost could not be looked up",
        mend=f"{other}; or set at_most_once: true, and it stays unknown until oploop retry",
        place=bound.sync.place_of("key"),
    )


def key_of(bound: BoundSync, warehouse: Warehouse) -> str:
    """The canonical key of the app's record RAWT, where one is `findable`."""
    parts = [
        canonical(warehouse.field_value(k.field.source, k.field.type, RAWT), key_form(k.field))
        for k in bound.keys
        if k.field.source is not None
    ]
    return " || chr(31) || ".join(parts)


def _shown(bound: BoundSync, warehouse: Warehouse) -> str | None:
    """The keys of the live records that were read, as a select of one column; None when there are none to look at."""
    if not findable(bound) or bound.stream is None:
        return None
    table = raw_table(bound.sync.app, bound.stream.name, deleted_too=True)
    if not warehouse.columns(table):
        return None
    key = key_of(bound, warehouse)
    return f"SELECT {key} AS key FROM {quote_table(table)} AS {RAWT} WHERE NOT {RAWT}.{DELETED} AND ({key}) IS NOT NULL"


def created(bound: BoundSync, warehouse: Warehouse) -> str | None:
    """The condition on `oploop.parked` for unknown creates of the sync whose record a read has shown."""
    shown = _shown(bound, warehouse)
    if shown is None:
        return None
    return f"sync = {literal(bound.name)} AND reason = 'unknown' AND {keys.in_form(bound, 'key')} IN ({shown}) AND {was('create')}"
