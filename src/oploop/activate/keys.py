"""Keys as they were written down: by a release, or of a column's type, whose canonical form was another one than today's.

What is parked keeps its key, by which the ledger knows its change too, and is compared in today's form. Identities, and the state of
records that cannot be read, are found by their keys: they are brought to today's form before a run plans.
"""

from __future__ import annotations

from oploop.activate import volumes
from oploop.activate.bound import BoundSync
from oploop.activate.convert import key_form
from oploop.activate.states import state_table
from oploop.records import Canonical
from oploop.warehouse.base import Warehouse, literal
from oploop.warehouse.forms import canonical

#: The forms that have changed, or that depend on a column's type.
_MOVED = frozenset({Canonical.NUMBER, Canonical.MOMENT})


def in_form(bound: BoundSync, key: str) -> str:
    """An expression for the form that a key has today, of one that was written down; `key` itself where that cannot be another."""
    forms = [Canonical.EXACT if k.native is not None else key_form(k.field) for k in bound.keys]
    if not set(forms) & _MOVED:
        return key
    parts = [key] if len(forms) == 1 else [f"split_part({key}, chr(31), {n})" for n in range(1, len(forms) + 1)]
    return " || chr(31) || ".join(
        canonical(part, form) if form in _MOVED else part for part, form in zip(parts, forms, strict=True)
    )


def bring_to_form(warehouse: Warehouse, bound: BoundSync) -> None:
    """Keep a sync's identities, and its state where that is kept by keys, by today's forms. All or nothing."""
    if bound.appends or in_form(bound, "key") == "key":
        return
    with warehouse.transaction():
        if warehouse.columns("oploop.records"):
            _identities(warehouse, bound)
        table, new = state_table(bound), in_form(bound, "remote_id")
        if bound.blind and warehouse.columns(table.replace('"', "")):
            warehouse.execute(
                f"UPDATE {table} SET remote_id = {new} WHERE sync = {literal(bound.name)} AND remote_id <> {new}"
            )


def _identities(warehouse: Warehouse, bound: BoundSync) -> None:
    new = in_form(bound, "canonical_key")
    moved = (
        f"app = {literal(bound.sync.app)} AND object = {literal(bound.sync.object)} "
        f"AND key_fields = {literal(bound.key_names)} AND canonical_key <> {new}"
    )
    if not warehouse.rows(f"SELECT 1 FROM oploop.records WHERE {moved} LIMIT 1"):
        return
    warehouse.execute(
        f"CREATE OR REPLACE TEMP TABLE oploop_moved_keys AS SELECT app, object, key_fields, {new} AS canonical_key, remote_id, "
        f"created_by, known_since FROM oploop.records WHERE {moved}"
    )
    volumes.forget_records(warehouse, moved)
    warehouse.execute(  # of a key there is one record
        "INSERT INTO oploop.record_rows SELECT app, object, key_fields, canonical_key, max(remote_id), max(created_by), max(known_since) "
        "FROM oploop_moved_keys n WHERE NOT EXISTS (SELECT 1 FROM oploop.records r WHERE r.app = n.app AND r.object = n.object "
        "AND r.key_fields = n.key_fields AND r.canonical_key = n.canonical_key) GROUP BY 1, 2, 3, 4"
    )
