"""Validate, diff and plan, with what keeps a sync from being sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from oploop.activate import diff as diffing
from oploop.activate import plan as planning
from oploop.activate import saved, waiting
from oploop.activate.bound import BoundSync
from oploop.activate.proving import blame
from oploop.activate.refbind import source_column
from oploop.errors import FixConfig, OploopError
from oploop.project import OnLeave
from oploop.report import RunReport, SyncReport
from oploop.selection import Selection
from oploop.stages.costs import budget_of, times_of
from oploop.stages.looking import fetch_all
from oploop.warehouse.base import SqlError, literal, quote_table
from oploop.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says of a run. `allow`: sync -> guardrails that may be passed this once."""

    selection: Selection = field(default_factory=Selection)
    key: str | None = None
    limit: int | None = None
    full: bool = False
    allow: Mapping[str, frozenset[str]] = field(default_factory=dict)
    yes: bool = False
    backfill: bool = False  #: a first append sends what exists
    rekey: frozenset[str] = frozenset()  #: syncs that may have another key, or object, than they delivered by
    first_run: bool = False  #: nothing is remembered of these syncs because they never ran
    confirm: Callable[[planning.SyncPlan], bool] = lambda _: False


async def plan_sync(
    ws: Workspace,
    b: BoundSync,
    options: Options,
    run: RunReport | None = None,
    before: Sequence[SyncReport] = (),
    *,
    looked: bool = False,
) -> SyncReport:
    """Validate, diff and plan one sync; in a run, records are fetched first where the last read is too old to plan on.

    `before`: the reports of syncs that go first; of those that were not delivered, the records that they would make.
    `looked`: its records have just been fetched.
    """
    report = SyncReport(b.name, b.app_object)
    report.error = _never_read(ws, b)
    if report.error is not None:  # the other syncs go on
        report.stop(str(report.error))
        return report
    first = [
        r.plan.diff
        for r in before
        if r.plan is not None and r.delivery is None and (run is None or r.status == "planned")
    ]
    report.stopped += gate(ws, b)
    pause = _pause(ws, b)
    try:
        if run is not None and not report.stopped:
            report.stopped += await freshen(ws, b, options, run, looked=looked)
        report.plan = plan_only(ws, b, options, "" if run is None else run.run_id, first)
    except SqlError as e:  # the sync's own SQL fails on its data; the other syncs go on
        report.error = _not_read_yet(ws, b) or blame(b, ws.warehouse, e)
        report.stop(str(report.error))
        return report
    if pause is not None:
        report.paused = f"paused since {pause.since:%Y-%m-%d %H:%M} UTC{f': {pause.reason}' if pause.reason else ''}"
        report.status = "paused"
        return report
    report.stopped += [f.message for f in report.plan.stops]
    report.allow = [f"{b.name}:{planning.pass_word(f)}" for f in report.plan.stops]
    if report.stopped:
        only_first = all(f.check in ("first", "first-run") for f in report.plan.stops) and len(report.stopped) == len(
            report.plan.stops
        )
        if run is not None and only_first and options.confirm(report.plan):
            report.stopped, report.allow = [], []
        else:
            report.status = "stopped"
    return report


def _pause(ws: Workspace, b: BoundSync) -> waiting.Pause | None:
    """The sync's pause; also one of a name that its file had before."""
    found = waiting.paused(ws.warehouse)
    names = diffing.look(b, ws.warehouse).names if found else ()
    return next((found[n] for n in names if n in found), None)


def plan_only(
    ws: Workspace, b: BoundSync, options: Options, run_id: str, before: Sequence[diffing.Diff] = ()
) -> planning.SyncPlan:
    """Diff and plan one sync as the warehouse stands; changes nothing, sends nothing. `before`: see `diff.look`."""
    table = diffing.plan_table_name(b.name, run_id or "look")
    diff = diffing.diff(
        b,
        ws.warehouse,
        table=table,
        key=options.key,
        limit=options.limit,
        before=before,
        backfill=options.backfill,
        lasting=bool(run_id),
    )
    allow = set(options.allow.get(b.name, frozenset())) | ({"first"} if options.yes else set())
    allow |= {"first-run"} if options.first_run else set()
    return planning.make_plan(diff, ws.warehouse, budget=budget_of(ws, b), call_seconds=times_of(ws, b), allow=allow)


def gate(ws: Workspace, b: BoundSync) -> list[str]:
    """Why a sync may not send: its model, as last built, failed."""
    if not ws.warehouse.columns("oploop.models"):
        return []
    rows = ws.warehouse.rows(
        f"SELECT status, message FROM oploop.models WHERE environment = {literal(ws.environment)} "
        f"AND model = {literal(b.sync.model)} AND status IN ('failed', 'skipped')"
    )
    return [
        f"model {b.sync.model} {status}: {message or 'something that it depends on failed'}" for status, message in rows
    ]


def _never_read(ws: Workspace, b: BoundSync) -> FixConfig | None:
    """The stream without which the sync cannot be planned, as nothing of it was ever read; None where there is none."""
    unread = b.unread(ws.warehouse)
    return FixConfig(f"{unread} was never read", mend="oploop extract") if unread is not None else None


def _not_read_yet(ws: Workspace, b: BoundSync) -> FixConfig | None:
    """The mapped field that the app has got since its records were last read; None where there is none."""
    there = {c.lower() for c in ws.warehouse.columns(b.raw_table)} if b.raw_table is not None else set()
    for f in b.fields if there else ():
        column = source_column(f.field)
        if f.now is not None and column is not None and column.lower() not in there:
            return FixConfig(
                f"field {f.label!r} is new in the app since {b.app_object} was last read",
                mend="oploop extract",
                place=b.sync.place_of("fields", f.label),
            )
    return None


async def freshen(ws: Workspace, b: BoundSync, options: Options, run: RunReport, *, looked: bool = False) -> list[str]:
    """Make sure that what a plan compares with is what the app holds now. `looked`: the records have just been fetched.

    If the target's stream was not read completely in this run and its last complete read is older than the sync's
    `max_read_age`, the records to be updated are fetched by key; a sync that could create stops, since a record that was
    not read looks like one that is not there.
    """
    if b.stream is None or b.appends:
        return []
    result = next((s for s in run.extracted if (s.app, s.stream) == (b.sync.app, b.stream.name)), None)
    if result is not None and result.error is None:
        return []
    began = diffing.read_began(b, ws.warehouse)
    if began is None:
        return [f"{b.sync.app}.{b.stream.name} was never read completely"]
    if (ws.runtime.now() - began).total_seconds() <= b.sync.max_read_age:
        return []
    if b.create_op is not None or b.on_leave is not OnLeave.KEEP:
        return [f"the last complete read of {b.app_object} is too old to tell what is not there"]
    return [] if looked else await _fetch(ws, b, plan_only(ws, b, options, run.run_id).diff)


async def _fetch(ws: Workspace, b: BoundSync, changes: diffing.Diff) -> list[str]:
    """Fetch the records that are to be changed, by key; why they cannot be, if so."""
    rows = ws.warehouse.rows(
        f"SELECT __remote FROM {quote_table(changes.table)} WHERE __number IS NOT NULL AND __remote IS NOT NULL ORDER BY __number"
    )
    try:
        await fetch_all(ws, b, [remote for (remote,) in rows])
    except OploopError as e:
        return [f"{b.app_object} cannot be read: {e}"]
    return []


async def plan_saved(
    ws: Workspace, b: BoundSync, options: Options, run: RunReport, rows: list[list[str]]
) -> SyncReport:
    """Plan one sync anew, and keep of it what its saved plan has too.

    Its records are fetched by key first: who looked at the plan has not looked at what somebody wrote since the last read.
    """
    options = replace(options, yes=True, first_run=True)
    unseen = await _look_again(ws, b, options, rows)
    report = await plan_sync(ws, b, options, run, looked=unseen is not None)
    for why in unseen or ():
        report.stop(why)
    if report.plan is None:
        return report
    report.saved = True
    kept, report.not_equal = saved.restrict(report.plan.diff, ws.warehouse, rows)
    report.plan = planning.make_plan(
        kept,
        ws.warehouse,
        budget=budget_of(ws, b),
        call_seconds=times_of(ws, b),
        allow={"first", "first-run", *options.allow.get(b.name, ())},
    )
    return report


async def _look_again(ws: Workspace, b: BoundSync, options: Options, rows: list[list[str]]) -> list[str] | None:
    """Fetch the records that a saved plan's changes are of, by key; why they cannot be, if so. None: there is nothing to look at."""
    stays = b.stream is None or b.appends or _never_read(ws, b) or gate(ws, b) or _pause(ws, b)
    if stays:
        return None
    try:
        kept, _ = saved.restrict(plan_only(ws, b, options, "").diff, ws.warehouse, rows)
    except SqlError:  # the plan itself will say so
        return None
    return await _fetch(ws, b, kept)
