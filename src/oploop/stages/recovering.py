"""Deliveries of runs that died, taken into the ledger; calls of them that an app knows by their keys are made once more before."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable

from oploop.activate import finishing, folding, ledger, volumes
from oploop.activate.begun import Begun
from oploop.activate.settling import noted, settle
from oploop.errors import OploopError
from oploop.runtime import GRACE
from oploop.state import JournalStep
from oploop.workspace import Tell, Workspace, nobody, noting


async def recover(ws: Workspace, *, only: Collection[str] | None = None, tell: Tell = nobody) -> list[str]:
    """Take deliveries of runs that died into the ledger, from their journal; what has no receipt is unknown, unless the app
    can still tell what became of it. `only`: those for which `finish` of a run in their own environment may still do something stay,
    but for these syncs."""
    done = []
    for begun in ledger.unfolded(ws.warehouse):
        stays = only is not None and begun.spec.sync not in only and _could_finish(ws, begun)
        if not stays:
            steps = _steps(ws, begun)
            await _settle(ws, begun, steps, tell)
            done.append(_fold(ws, begun, steps))
    volumes.sweep(ws.warehouse)
    stay = {(b.run_id, b.spec.sync) for b in ledger.unfolded(ws.warehouse)}
    for left in ws.store.open_deliveries():  # folded, and the run died before it could say so
        if (left.run_id, left.sync) not in stay:
            ws.store.end_delivery(left.run_id, left.sync)
    return done


async def finish(ws: Workspace, syncs: Collection[str], tell: Tell = nobody) -> list[str]:
    """Make calls of these syncs' dead runs once more (see `finishing`), then take their deliveries into the ledger. Once the run is to
    end, what is under way has its time, and what is left waits for the next run. Where nothing will be sent, what a run of another
    environment has begun stays for the next one there."""
    done = []
    for begun in ledger.unfolded(ws.warehouse):
        if begun.spec.sync not in syncs or _waits_elsewhere(ws, begun):
            continue
        steps = _steps(ws, begun)
        if not await _in_time(ws, asyncio.ensure_future(_settle(ws, begun, steps, tell)), grace=0.0):
            break  # what is asked, the next run asks as well
        if _is_own(ws, begun) and _could_finish(ws, begun) and not await _finish(ws, begun, steps):
            break
        done.append(_fold(ws, begun, steps))
    return done


def _steps(ws: Workspace, begun: Begun) -> Iterable[JournalStep]:
    """A delivery's journal, to be gone through several times."""
    if ws.store.run(begun.run_id) is None:  # the state was lost: anything may have been sent
        return ledger.all_unknown(ws.warehouse, begun)
    return ws.store.journal(begun.run_id, begun.spec.sync)


def _fold(ws: Workspace, begun: Begun, steps: Iterable[JournalStep]) -> str:
    folding.fold(ws.warehouse, begun, steps, ws.runtime.now())
    ws.store.end_delivery(begun.run_id, begun.spec.sync)
    return f"{begun.spec.sync} of run {begun.run_id}"


async def _settle(ws: Workspace, begun: Begun, steps: Iterable[JournalStep], tell: Tell) -> None:
    """Ask after calls of which the app kept a note."""
    spec = begun.spec
    if any(map(noted, steps)) and spec.app in ws.project.apps:
        app, told = ws.app(spec.app), noting(tell)
        settled = await settle(app, ws.warehouse, spec, begun.plan_table, steps, ws.runtime.now(), told)
        ws.store.write_steps(settled)


def _could_finish(ws: Workspace, begun: Begun) -> bool:
    """Whether a run of a delivery's environment may still do something for it; see `finishing.could`."""
    if ws.store.run(begun.run_id) is None:
        return False
    steps = ws.store.journal(begun.run_id, begun.spec.sync)
    return finishing.could(ws.project.syncs.get(begun.spec.sync), begun, ws.warehouse, steps, ws.runtime.now())


def _is_own(ws: Workspace, begun: Begun) -> bool:
    """Whether a delivery was one of this environment: another's models are not meant for this one's apps."""
    run = ws.store.run(begun.run_id)
    return run is not None and run.environment == ws.environment


def _waits_elsewhere(ws: Workspace, begun: Begun) -> bool:
    """Whether a delivery is better left to a run of its own environment, as this one sends nothing that could be meant for the same."""
    return not _is_own(ws, begun) and _could_finish(ws, begun) and not ws.delivers(begun.spec.app)


async def _finish(ws: Workspace, begun: Begun, steps: Iterable[JournalStep]) -> bool:
    """Whether the delivery's calls are made, as far as they may be: False where the run is to end before."""
    sync, stop = ws.project.syncs[begun.spec.sync], ws.runtime.stop
    if not ws.delivers(sync.app):
        return True
    try:
        bound = await ws.bound_alone(sync)
    except OploopError:
        return not stop.asked
    app = ws.app(sync.app)
    if not finishing.may(bound, begun, ws.warehouse, finishing.account_of(app, begun.run_id)):
        return True
    work = asyncio.ensure_future(
        finishing.finish(
            app, ws.warehouse, bound, begun, steps, ws.runtime, lambda answered: ws.store.write_steps([answered])
        )
    )
    return await _in_time(ws, work, grace=GRACE)


async def _in_time(ws: Workspace, work: asyncio.Future[None], *, grace: float) -> bool:
    """Wait for what is under way; once the run is to end, for so many seconds more. Whether the run goes on."""
    hurry = asyncio.create_task(_hurry(ws, work, grace))
    try:
        await work
    except asyncio.CancelledError:
        if not hurry.done():  # it is not us who ended it
            raise
    finally:
        hurry.cancel()
    return not ws.runtime.stop.asked


async def _hurry(ws: Workspace, work: asyncio.Future[None], grace: float) -> None:
    await ws.runtime.stop.wait()
    await ws.runtime.sleep(grace)
    work.cancel()
