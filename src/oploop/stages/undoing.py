"""Undo: what runs changed in the apps, looked at anew and turned round; one plan for each of their syncs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from oploop.activate import diff as diffing
from oploop.activate import jobs, states, undo
from oploop.activate.bound import BoundSync
from oploop.activate.found import take_found
from oploop.activate.plan import SyncPlan
from oploop.errors import FixConfig, OploopError
from oploop.project import Mode, Sync
from oploop.report import SyncReport
from oploop.runtime import Interrupted
from oploop.selection import Selection
from oploop.stages.costs import budget_of, times_of
from oploop.stages.looking import fetch_all, verify
from oploop.warehouse.base import SqlError, literal
from oploop.workspace import Event, Tell, Workspace, nobody, noting


@dataclass(frozen=True, slots=True)
class Wish:
    """What a user wants undone: some runs, of the selected syncs, one key, so many changes of each."""

    runs: tuple[str, ...]
    selection: Selection = field(default_factory=Selection)
    key: str | None = None
    limit: int | None = None


async def plan_undo(ws: Workspace, wish: Wish, tell: Tell = nobody) -> list[SyncReport]:
    """A report for each sync that the runs delivered, with the plan that takes it back. Sends nothing."""
    chosen = {s.name for s in ws.pick(replace(wish.selection, off=True))}  # what it sent before it was switched off
    picky = bool(wish.selection.select or wish.selection.exclude)
    found: dict[str, list[undo.Touched]] = {}
    reports = []
    for t in undo.touched(ws.warehouse, wish.runs):
        sync = await _sync_of(ws, t)
        if sync is None:
            if not picky:
                report = SyncReport(t.sync, f"{t.app}.{t.object}")
                report.stop(
                    f"there is no sync {t.sync!r} any more that writes {t.app}.{t.object}; bring its file back to undo it"
                )
                reports.append(report)
        elif sync.name in chosen or (not picky and not sync.enabled):
            found.setdefault(sync.name, []).append(t)
    for name, parts in found.items():
        reports.append(await _plan_one(ws, ws.project.syncs[name], parts, wish, tell))
    return sorted(reports, key=lambda r: r.sync)


async def _sync_of(ws: Workspace, t: undo.Touched) -> Sync | None:
    """The sync that made the changes, also when its file has been renamed since."""
    sync = ws.project.syncs.get(t.sync)
    if sync is not None and (sync.app, sync.object) == (t.app, t.object):
        return sync
    for other in _writers(ws, t.app, t.object):  # claims its state under the new name
        states.claim(ws.warehouse, await ws.bound_alone(other))
    table = states.table_of(t.app, t.object)
    if "log_sync" not in ws.warehouse.columns(table.replace('"', "")):
        return None
    rows = ws.warehouse.rows(f"SELECT DISTINCT sync FROM {table} WHERE log_sync = {literal(t.sync)} ORDER BY 1")
    return next((ws.project.syncs[n] for (n,) in rows if n in ws.project.syncs), None)


def _writers(ws: Workspace, app: str, obj: str) -> list[Sync]:
    return [s for s in ws.project.syncs.values() if (s.app, s.object) == (app, obj)]


async def _plan_one(
    ws: Workspace, sync: Sync, parts: Sequence[undo.Touched], wish: Wish, tell: Tell = nobody
) -> SyncReport:
    report = SyncReport(sync.name, f"{sync.app}.{sync.object}")
    if ws.target(sync)[1] is None:
        report.stop(f"{report.object} cannot be read, so nobody knows what is to be put back")
        return report
    bound = await (_appended(ws, sync) if sync.mode is Mode.APPEND else ws.bound_alone(sync))
    if bound.blind:
        report.stop("the app's records cannot be read, so nobody knows what is to be put back")
        return report
    states.claim(ws.warehouse, bound)
    asked = undo.Asked(wish.runs, wish.key, wish.limit)
    if bound.sync.mode is not Mode.APPEND:
        take_found(ws.warehouse, bound, ws.runtime.now())  # also where no run came after the read
    labels, names = [label for t in parts for label in t.labels], [t.sync for t in parts]
    try:
        report.plan, report.left_reasons, report.left = await plan_runs(ws, bound, asked, labels, names, tell)
    except (SqlError, Interrupted):
        raise
    except OploopError as e:  # of the app: the other syncs go on
        report.stop(f"the app's records cannot be looked at: {e}")
    return report


async def _appended(ws: Workspace, sync: Sync) -> BoundSync:
    """An append sync bound so that its records are looked at, which appending never does and taking away must.

    Its key may be the model's own, which the app does not hold: records are told apart by their ids here, so any key of the
    app's stands in for it while the rest is bound.
    """
    own = await ws.bound_alone(sync)
    fields = (await ws.fields.held(sync)).fields
    label = next((n for n, f in fields.items() if f.key and f.source is not None), None)
    if label is None:
        return own
    seen = replace(sync, mode=Mode.CREATE, key={label: next(iter(sync.key.values()))}, at_most_once=True)
    bound = await ws.bound_alone(seen)
    return replace(bound, keys=own.keys, sync=replace(bound.sync, key=sync.key))


async def plan_runs(
    ws: Workspace, bound: BoundSync, asked: undo.Asked, labels: Sequence[str], names: Sequence[str], tell: Tell = nobody
) -> tuple[SyncPlan, list[tuple[str, int]], list[undo.Left]]:
    """The plan that takes runs of one sync back, after a look at the records as they are now."""
    described = (await ws.fields.held(bound.sync)).fields
    owners = {
        m.field: s.name
        for s in _writers(ws, bound.sync.app, bound.sync.object)
        if s.name != bound.name
        for m in s.fields
    }
    wide, missing = undo.with_fields(bound, described, ws.warehouse, list(dict.fromkeys(labels)), owners)
    states.claim(ws.warehouse, wide)
    await _ask(ws, wide, tell)  # before a look that could not see what they do
    ids = undo.gather(wide, ws.warehouse, [bound.name, *names], asked)
    await fetch_all(ws, wide, ids, tell)
    await verify(ws, [wide], within_run=False, tell=tell)
    table = diffing.plan_table_name(bound.name, ws.runtime.new_id())
    budget, took = budget_of(ws, wide), times_of(ws, wide)
    made = undo.make(wide, ws.warehouse, asked, missing, table=table, budget=budget, call_seconds=took)
    return made.plan, list(made.reasons), list(made.left)


async def _ask(ws: Workspace, bound: BoundSync, tell: Tell) -> None:
    """Ask after all jobs that may be at work on the object's records, also those of other syncs: what one of them may still change
    is not undone. A sync that is gone, or broken, tells nothing: its jobs count as at work."""
    for owner in jobs.owners(ws.warehouse, bound.sync.app, bound.sync.object):
        try:
            of = bound if owner == bound.name else await ws.bound_alone(ws.project.syncs[owner])
        except (KeyError, OploopError):
            continue
        await jobs.ask(ws.app(bound.sync.app), ws.warehouse, of, ws.runtime.now, noting(tell))


def runs_since(ws: Workspace, since: datetime, tell: Tell = nobody) -> tuple[str, ...]:
    """The runs of the workspace's environment that have sent something since a time, oldest first; FixConfig when there is none.

    Of one that died, and whose state was lost, nobody knows in which environment it was: it is told, and not among them.
    """
    found = undo.runs_since(ws.warehouse, since)
    ended = dict(ws.warehouse.rows("SELECT run_id, max(environment) FROM oploop.runs GROUP BY 1"))
    where = {run: ended.get(run) or _environment(ws, run) for run in found}
    own = tuple(run for run in found if where[run] == ws.environment)
    lost = [run for run in found if where[run] is None]
    if lost:
        ids = ", ".join(lost[:4]) + (", …" if len(lost) > 4 else "")
        tell(
            Event("verify", "note", f"left out, as nobody knows in which environment they were: {ids}; undo them by id")
        )
    if own:
        return own
    others = sorted({e for e in where.values() if e is not None})
    mend = f"add --env {', or --env '.join(others)}: there some have" if others else "oploop status lists the runs"
    raise FixConfig(f"no run of {ws.environment} has sent anything since {since:%Y-%m-%d %H:%M} UTC", mend=mend)


def _environment(ws: Workspace, run_id: str) -> str | None:
    """In which environment a run was that did not come to its end: the state knows of all, unless it was lost."""
    run = ws.state.run(run_id)
    return run.environment if run is not None else None


def runs_of(ws: Workspace, text: str) -> tuple[str, ...]:
    """The one run that a user means by its id or the beginning of it; FixConfig when there is none, or several."""
    prefix = text.strip().rstrip("…").upper()
    found = undo.runs_named(ws.warehouse, prefix) if prefix else ()
    if len(found) == 1:
        return found
    if found:
        raise FixConfig(
            f"{text!r} is the beginning of {len(found)} runs' ids", mend="give more of it: oploop status lists them"
        )
    if prefix and ws.state.run(prefix) is not None:
        raise FixConfig(f"run {text} changed nothing in any app", mend="oploop status lists the runs")
    raise FixConfig(f"there is no run {text!r} in the ledger", mend="oploop status lists the runs")
