"""What `oploop status` tells: from the state, and from the warehouse when nobody holds it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from oploop.activate import waiting
from oploop.errors import OploopError
from oploop.warehouse.base import quote_table, raw_table

if TYPE_CHECKING:
    from oploop.state.store import RunRow
    from oploop.warehouse.base import Warehouse
    from oploop.workspace import Workspace


@dataclass(slots=True)
class Overview:
    """All parts are lists of plain maps, as `-o json` prints them; times are aware datetimes."""

    project: str
    holder: str | None = None  #: who holds the warehouse, when another process does
    runs: list[dict[str, Any]] = field(default_factory=list)
    streams: list[dict[str, Any]] = field(default_factory=list)
    syncs: list[dict[str, Any]] = field(default_factory=list)
    unfinished: list[dict[str, Any]] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return {
            "project": self.project,
            "warehouse_held_by": self.holder,
            "runs": self.runs,
            "streams": self.streams,
            "syncs": self.syncs,
            "unfinished": self.unfinished,
        }


def look(ws: Workspace, limit: int, environment: str | None = None) -> Overview:
    """Gather everything; reads only. `environment`: only its runs."""
    o = Overview(ws.project.name)
    runs = ws.state.runs(max(limit, 50) if environment is None else 1_000)
    o.runs = [_run(r) for r in runs if environment in (None, r.environment)][:limit]
    warehouse = _open(ws, o)
    if warehouse is not None:
        o.streams = _streams(warehouse)
        o.syncs = _syncs(ws, warehouse)
    else:
        o.streams = _streams_of_runs(runs)
        o.syncs = _syncs_of_runs(ws, runs)
    live = {r.run_id for r in runs if r.status == "running"}
    for d in ws.state.open_deliveries():
        says = "under way" if d.run_id in live else "was cut off; the next run takes it into the ledger and goes on"
        o.unfinished.append({"run_id": d.run_id, "sync": d.sync, "began_at": d.began_at, "says": says})
    return o


def _open(ws: Workspace, o: Overview) -> Warehouse | None:
    if not ws.project.warehouse.server and not ws.project.warehouse.database.exists():
        return None
    try:
        return ws.warehouse
    except OploopError as e:
        if e.message.startswith("no warehouse yet"):
            return None
        if "is held by" not in e.message:
            raise
        lease = ws.state.lease("warehouse")
        o.holder = str(lease) if lease is not None else e.message.partition("is held by ")[2]
        return None


def _run(r: RunRow) -> dict[str, Any]:
    seconds = (r.finished_at - r.started_at).total_seconds() if r.finished_at is not None else None
    syncs = (r.summary or {}).get("syncs")
    return {
        "run_id": r.run_id,
        "environment": r.environment,
        "command": r.command,
        "status": r.status,
        "started_at": r.started_at,
        "seconds": seconds,
        "delivered": sum(s.get("delivered", 0) for s in syncs) if syncs is not None else None,
    }


def _streams(warehouse: Warehouse) -> list[dict[str, Any]]:
    if not warehouse.columns("oploop.streams"):
        return []
    rows = warehouse.rows("SELECT app, stream, complete_at, reading FROM oploop.streams ORDER BY 1, 2")
    out = []
    for app, stream, at, reading in rows:
        table = raw_table(app, stream)
        held = warehouse.rows(f"SELECT count(*) FROM {quote_table(table)}")[0][0] if warehouse.columns(table) else None
        out.append({"stream": f"{app}.{stream}", "rows": held, "read_at": at, "unfinished": bool(reading)})
    return out


def _streams_of_runs(runs: list[RunRow]) -> list[dict[str, Any]]:
    """When each stream was last read by a run that ended, newest run first."""
    found: dict[str, dict[str, Any]] = {}
    for r in runs:
        for name, s in (r.summary or {}).get("extracted", {}).items():
            if "error" not in s:
                found.setdefault(name, {"stream": name, "rows": None, "read_at": r.started_at, "unfinished": False})
    return [found[n] for n in sorted(found)]


def _syncs(ws: Workspace, warehouse: Warehouse) -> list[dict[str, Any]]:
    last: dict[str, tuple[Any, ...]] = {}
    parked: dict[str, int] = {}
    noted = warehouse.columns("oploop.sync_runs")
    if noted:
        failed = "failed" if "failed" in noted else "0"  # of an earlier release, which did not note it
        rows = warehouse.rows(
            f"SELECT sync, status, noted_at, delivered, rejected, unknown, held, run_id, {failed} FROM oploop.sync_runs "
            "QUALIFY row_number() OVER (PARTITION BY sync ORDER BY run_id DESC, noted_at DESC) = 1"
        )
        last = {r[0]: r for r in rows}
        parked = dict(warehouse.rows("SELECT sync, count(*) FROM oploop.parked GROUP BY 1"))
    pauses, out = waiting.paused(warehouse), []
    for sync in ws.project.syncs.values():
        r = last.get(sync.name, (sync.name, None, None, 0, 0, 0, 0, None, 0))
        out.append(
            {
                "sync": sync.name,
                "object": f"{sync.app}.{sync.object}",
                "status": r[1],
                "at": r[2],
                "run_id": r[7],
                "delivered": r[3],
                "rejected": r[4],
                "unknown": r[5],
                "failed": r[8] or 0,
                "held": r[6],
                "parked": parked.get(sync.name, 0),
                "paused": pauses[sync.name].since if sync.name in pauses else None,
            }
        )
    return out


def _syncs_of_runs(ws: Workspace, runs: list[RunRow]) -> list[dict[str, Any]]:
    out = []
    for sync in ws.project.syncs.values():
        row: dict[str, Any] = {"sync": sync.name, "object": f"{sync.app}.{sync.object}", "status": None, "at": None}
        row |= dict.fromkeys(("run_id", "paused")) | dict.fromkeys(
            ("delivered", "rejected", "unknown", "failed", "held", "parked"), 0
        )
        for r in runs:
            found = next((s for s in (r.summary or {}).get("syncs", []) if s["sync"] == sync.name), None)
            if found is not None:
                row |= {"status": found["status"], "at": r.finished_at or r.started_at, "run_id": r.run_id}
                row |= {k: found[k] for k in ("delivered", "rejected", "unknown", "failed", "held")}
                break
        out.append(row)
    return out
