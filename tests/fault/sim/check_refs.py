"""What must hold of references: whom a row means, and what a miss does. See check.py."""

from __future__ import annotations

from typing import Any

from oploop.project import FieldMapping, OnMiss
from tests.fault.sim.schedule import Side


def means(sim: Side, row: dict[str, Any], m: FieldMapping) -> list[str] | None:
    """The ids of the live records that a row refers to; None where it refers to nobody."""
    target = next(s for s in sim.sides if m.ref == f"{s.world.sync.app}.{s.world.name}")
    key = target.world.key(row[m.field])
    if key is None:
        return None
    return [r.id for r in target.server.live() if target.world.key((r.now or {}).get("code")) == key]


def holds(sim: Side, row: dict[str, Any]) -> bool:
    """Whether a reference of a row must hold it: it means nobody, or several."""
    found = [means(sim, row, m) for m in sim.world.sync.fields if m.ref is not None and m.on_miss is OnMiss.HOLD]
    return any(ids is not None and len(ids) != 1 for ids in found)


def gone(sim: Side) -> set[str | None]:
    """Keys of rows whose records were deleted in the app, which says so of them before anything else."""
    dead = [r for r in sim.server.records.values() if r.now is None]
    shown = {sim.world.key((v or {}).get("code")) for r in dead for _, _, v in r.past}
    known = {r["remote_id"]: r["canonical_key"] for r in sim.rows_of("SELECT * FROM oploop.records")}
    return shown | {known.get(r.id) for r in dead} if any(m.ref for m in sim.world.sync.fields) else set()


def wanted(sim: Side, row: dict[str, Any], m: FieldMapping) -> Any:
    """What a row wants of a field: of a reference the id that it means."""
    if m.ref is None:
        return row[m.field]
    ids = means(sim, row, m)
    return ids[0] if ids is not None and len(ids) == 1 else None


def may_be_any(sim: Side, row: dict[str, Any], m: FieldMapping) -> bool:
    """Whether a miss leaves the field as it is."""
    ids = means(sim, row, m)
    return ids is not None and len(ids) != 1 and m.on_miss is OnMiss.KEEP
