"""Before a plan: the apps are called, read and modelled; the syncs are bound to what they name."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from oploop.accounts import whose
from oploop.activate import keys, rekeying, states
from oploop.activate.bound import BoundSync
from oploop.errors import FixConfig, OploopError
from oploop.extract import StreamRequest, StreamResult
from oploop.model.base import ModelResult, ModelStatus
from oploop.project import Sync
from oploop.report import RunReport, SyncReport
from oploop.stages.ordering import waves
from oploop.stages.streams import refuse_misspelt, stream_requests
from oploop.warehouse.base import literal
from oploop.workspace import Event, Tell, Workspace, nobody, referenced

#: Which of the wanted streams to read.
Keep: TypeAlias = Callable[[StreamRequest], bool]


def prepare(ws: Workspace, syncs: Sequence[Sync]) -> None:
    """Let git and the apps begin with what will be asked of them, while the warehouse is opened and looked at. What is wrong with
    an app is told by `preflight`."""
    ws.release.ask()
    used = {s.app for s in syncs}
    for block in ws.project.apps.values():
        if block.read or block.name in used:
            with contextlib.suppress(OploopError):
                ws.app(block.name).prepare()


async def preflight(ws: Workspace, syncs: Sequence[Sync], rekey: Collection[str] = ()) -> None:
    """Call each app once, so that a wrong credential or address stops the run before anything has changed."""
    waves(syncs)  # references in a circle
    used = {s.app for s in syncs} | {app for s in syncs for app, *_ in referenced(ws, s)}
    names = [b.name for b in ws.project.apps.values() if b.read or b.name in used]
    stream_requests(ws, syncs)  # unknown streams and objects are named before any call
    await whose_all(ws, names)
    neighbours = neighbours_of(ws, syncs)
    bound = [await ws.precheck(s) for s in [*neighbours, *syncs]]
    refuse_shared_fields(bound)
    refuse_new_keys(ws, bound[len(neighbours) :], rekey)


async def check_plan(ws: Workspace, bound: Sequence[BoundSync]) -> None:
    """What a run would refuse before it reads anything, of what a plan need not look at: streams that are not there, fields that a
    sync which was not asked for writes too."""
    refuse_misspelt(ws)
    others = [await ws.bound_alone(s) for s in neighbours_of(ws, [b.sync for b in bound])]
    refuse_shared_fields([*others, *bound])


def neighbours_of(ws: Workspace, syncs: Sequence[Sync]) -> list[Sync]:
    """The other enabled syncs that write what these write, by whatever name they call it."""
    apps = {s.app for s in syncs}
    targets = {(s.app, ws.app(s.app).full_name(s.object)) for s in syncs}
    others = [s for s in ws.project.syncs.values() if s.enabled and s.app in apps and s not in syncs]
    return [s for s in others if (s.app, ws.app(s.app).full_name(s.object)) in targets]


def refuse_new_keys(ws: Workspace, bound: Sequence[BoundSync], rekey: Collection[str]) -> None:
    """FixConfig for a sync that has delivered by another key, or to another object, and of which nobody said that it is meant."""
    for b in bound:
        if b.name not in rekey:
            rekeying.refuse(ws.warehouse, b)


async def check_before_build(ws: Workspace, syncs: Sequence[Sync], rekey: Collection[str]) -> None:
    """What a plan would refuse is refused before its models are built."""
    refuse_new_keys(ws, [await ws.precheck(s) for s in syncs], rekey)


async def whose_all(ws: Workspace, names: Collection[str]) -> None:
    """Call each of these apps once; the first that does not answer is raised when all have been asked."""
    asked = (whose(ws.app(n), ws.project.apps[n]) for n in names)
    for answer in await asyncio.gather(*asked, return_exceptions=True):
        if isinstance(answer, BaseException):
            raise answer


async def extract(
    ws: Workspace, syncs: Sequence[Sync], tell: Tell = nobody, *, full: bool = False, keep: Keep = lambda _: True
) -> list[StreamResult]:
    """Read all wanted streams into their raw tables."""
    from oploop.extract.run import extract as extract_streams

    requests = [r for r in stream_requests(ws, syncs, full=full) if keep(r)]
    results = await extract_streams(
        requests,
        ws.warehouse,
        ws.runtime,
        progress=lambda p: tell(Event("extract", "tick", f"{p.app}.{p.stream} {p.read:,}")),
    )
    for r in results:
        if r.error is not None:
            r.error.at(ws.project.apps[r.app].place)
            tell(Event("extract", "note", f"{r.app}.{r.stream}: {r.error}"))
    return list(results)


async def unit_tests(ws: Workspace, tell: Tell = nobody) -> int:
    """Run the models' unit tests, unless these models and tests have passed them already; how many there are.

    Raises FixConfig that names the tests which fail: models that are not what their tests say are not built.
    """
    files = test_files(ws)
    if ws.project.models.engine != "sqlmesh" or not any(f.parent.name == "tests" for f in files):
        return 0
    fingerprint = hashlib.sha256(b"".join(str(f).encode() + f.read_bytes() for f in files)).hexdigest()
    passed = ws.warehouse.rows("SELECT tests FROM oploop.unit_tests WHERE fingerprint = ?", (fingerprint,))
    if passed:
        return int(passed[0][0])
    tell(Event("build", "tick", "unit tests"))
    results = (await ws.modeling()).test()
    failed = [r for r in results if not r.ok]
    if failed:
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        raise FixConfig(
            f"unit test {failed[0].name} failed{more}: {failed[0].message}",
            mend="mend the model, or the test",
            place=failed[0].place,
        )
    ws.warehouse.execute(
        "INSERT INTO oploop.unit_tests VALUES (?, ?, ?)", (fingerprint, len(results), ws.runtime.now())
    )
    return len(results)


def test_files(ws: Workspace) -> list[Path]:
    """All files of the models that a unit test may depend on."""
    folders = [ws.project.models.path / name for name in ("models", "macros", "seeds", "tests")]
    return sorted(f for folder in folders for f in folder.rglob("*") if f.is_file() and f.suffix != ".pyc")


async def build(ws: Workspace, run_id: str, tell: Tell = nobody, select: Sequence[str] = ()) -> list[ModelResult]:
    """Bring the environment's models up to date; which of them failed is kept, as it stops their syncs until mended."""
    if ws.project.models.engine == "none":
        return []
    modeler = await ws.modeling()  # loading it is part of the stage's time
    if not select and ws.project.models.engine == "dbt":  # its project may serve others too
        read = {s.model for s in ws.project.syncs.values() if s.enabled}
        select = sorted(read.intersection(ws.names.files()))  # a sync may read a table that is no model of dbt's
        if read and not select:
            return []
    before = _held_meanwhile(ws, run_id) if ws.project.models.engine == "dbt" else []
    results = list(
        modeler.build(ws.environment, select=select, progress=lambda text: tell(Event("build", "tick", text)))
    )
    now = ws.runtime.now()
    with ws.warehouse.transaction():
        _note_models(ws, before)
        _note_models(ws, [(r.model, (r.status.value, _why(r), run_id, now)) for r in results])
    return results


#: Of a model: its name and (status, message, run, when) as `oploop.models` has them; None: nothing is noted of it.
Noted: TypeAlias = tuple[str, tuple[Any, ...] | None]


def _held_meanwhile(ws: Workspace, run_id: str) -> list[Noted]:
    """Let the models of syncs count as failed while they are built, and what was noted of them before: dbt replaces a table before its
    tests run, so that a build that is broken off leaves what nobody has tested."""
    names = sorted({s.model for s in ws.project.syncs.values() if s.enabled}.intersection(ws.names.files()))
    rows = ws.warehouse.rows(
        f"SELECT model, status, message, run_id, noted_at FROM oploop.models WHERE environment = {literal(ws.environment)}"
    )
    known = {model: tuple(noted) for model, *noted in rows}
    broken = ("failed", "its last build was broken off, maybe before its tests ran", run_id, ws.runtime.now())
    with ws.warehouse.transaction():
        _note_models(ws, [(name, broken) for name in names])
    return [(name, known.get(name)) for name in names]


def _note_models(ws: Workspace, models: Sequence[Noted]) -> None:
    for name, noted in models:
        ws.warehouse.execute("DELETE FROM oploop.models WHERE environment = ? AND model = ?", (ws.environment, name))
        if noted is not None:
            ws.warehouse.execute("INSERT INTO oploop.models VALUES (?, ?, ?, ?, ?, ?)", (ws.environment, name, *noted))


def _why(r: ModelResult) -> str:
    failed = [c for c in r.checks if not c.ok and c.blocking]
    return r.message or "; ".join(f"audit {c.name} failed for {c.rows} rows" for c in failed)


async def bind_all(
    ws: Workspace, syncs: Sequence[Sync], report: RunReport, rekey: Collection[str] = ()
) -> list[BoundSync]:
    """Bind the syncs; one whose model was never built because it failed is reported, not raised.

    `rekey`: syncs that may deliver to another object, or by another key, than they have until now.
    """
    bound = []
    broken = {m.model: m for m in report.models if m.status in (ModelStatus.FAILED, ModelStatus.SKIPPED)}
    for sync in syncs:
        try:
            b = await ws.bound(sync)
            if not ws.read_only:
                states.claim(ws.warehouse, b)
            if b.name in rekey:
                await take_new_key(ws, b)
            rekeying.refuse(ws.warehouse, b)
            if not ws.read_only:
                keys.bring_to_form(ws.warehouse, b)
            bound.append(b)
        except FixConfig as e:
            if sync.model not in broken:
                raise
            why = f"model {sync.model} {broken[sync.model].status.value}: {_why(broken[sync.model])}"
            report.syncs.append(SyncReport(sync.name, f"{sync.app}.{sync.object}", "stopped", stopped=[why], error=e))
    refuse_shared_fields(bound)
    ws.fields.keep()
    return bound


async def take_new_key(ws: Workspace, b: BoundSync) -> None:
    """Take over what is known of a sync's records to its new key, or begin anew with its new object."""
    was, now = rekeying.delivered(ws.warehouse, b.name), ws.runtime.now()
    if was is None or was.is_of(b):
        return
    if (was.app, was.object) != (b.sync.app, b.sync.object):
        rekeying.begin_anew(ws.warehouse, b, now)
        return
    old = None
    try:
        old = await ws.bound(replace(b.sync, key=was.key))
    except FixConfig as e:
        if b.create_op is not None or b.blind:
            columns = ", ".join(was.key.values())
            raise FixConfig(
                f"its records are known by {columns}, and that cannot be told any more: {e.message}",
                mend=f"keep {columns} in the model for this one run",
                place=b.sync.place_of("key"),
            ) from None
    rekeying.move(ws.warehouse, old, b, now)


def refuse_shared_fields(bound: Sequence[BoundSync]) -> None:
    """One field of one object has one owning sync. What is appended is each sync's own, and never looked at again."""
    owners: dict[tuple[str, str, str], str] = {}
    for b in bound:
        for f in () if b.appends else b.fields:
            # the object as the app has it: a table may be named with and without its schema
            owner = owners.setdefault((b.sync.app, b.object.name, f.field.name), b.name)
            if owner != b.name:
                raise FixConfig(
                    f"{b.app_object} field {f.label!r} is also written by sync {owner!r}",
                    mend="let one sync own it",
                    place=b.sync.place_of("fields", f.label),
                )
