"""Verify: what the apps hold now of what was sent."""

from __future__ import annotations

from collections.abc import Sequence

from oploop.activate import diff as diffing
from oploop.activate import jobs, ledger, states, volumes, waiting
from oploop.activate.bound import BoundSync
from oploop.activate.found import take_found
from oploop.apps.base import App
from oploop.apps.defects import named
from oploop.records import Batch
from oploop.verify import Fetch, ReadBack, Target, Watched, read_back
from oploop.workspace import Event, Tell, Workspace, nobody, noting

#: Records of a sync that are fetched back by key at the end of a run; the others are seen by later reads.
READ_BACK = 1_000
#: Records fetched at once before they are compared: so many where a call brings few, and where one brings thousands, as each time
#: costs a look through the whole raw table.
FETCH, FETCH_AT_MOST = 1_000, 10_000


async def verify(ws: Workspace, bound: Sequence[BoundSync], *, within_run: bool, tell: Tell = nobody) -> list[ReadBack]:
    """Look at what the syncs' last deliveries left in the apps; by key where the reads cannot vouch for it yet."""
    results = []
    for b in bound:
        if not within_run:
            await jobs.ask(ws.app(b.sync.app), ws.warehouse, b, ws.runtime.now, noting(tell))
        take_found(ws.warehouse, b, ws.runtime.now())
        waiting.note_shown(ws.warehouse, b, ws.runtime.now())
        ledger.forget_unknown(ws.warehouse, b, diffing.vouched_until(b, ws.warehouse))
        target = target_of(ws, b)
        if target is None:
            continue
        now, fetch = ws.runtime.now(), fetcher(ws, b)
        results.append(
            await read_back(target, ws.warehouse, fetch=fetch, now=now, within_run=within_run, limit=READ_BACK)
        )
    return results


def target_of(ws: Workspace, b: BoundSync) -> Target | None:
    """What to look at for a sync; None when it is blind or has delivered nothing yet."""
    state = ws.warehouse.columns(states.state_table(b).replace('"', ""))
    if b.raw_table is None or b.stream is None or not state:
        return None
    if "as_sent" not in state and not ws.read_only:
        states.ensure_state(ws.warehouse, states.state_table(b), [])  # one of an earlier release lacks columns
    watched = tuple(
        Watched(f.field.name, f.label, f.now, ws.warehouse.sql_type(f.field.type), f.field.type, f.field.canonical)
        for f in b.fields
        if f.now is not None and f"{f.field.name}.at" in state
    )
    return Target(
        b.name,
        b.sync.app,
        b.sync.object,
        b.raw_table,
        b.id_column,
        states.state_table(b),
        watched,
        diffing.vouched_until(b, ws.warehouse),
        b.stream.lag,
        volumes.among,
        tuple((f.field.name, f.label) for f in b.fields if f.now is None and f"{f.field.name}.at" in state),
        volumes.forget_records,
    )


async def fetch_all(ws: Workspace, b: BoundSync, ids: Sequence[str], tell: Tell = nobody) -> None:
    """Fetch records by the app's own ids, as many at once as is worth while, and load them into the raw table."""
    fetch, size = fetcher(ws, b), max(FETCH, min(b.object.lookup_batch, FETCH_AT_MOST))
    for start in range(0, len(ids), size):
        tell(Event("verify", "tick", f"{b.name} {min(start + size, len(ids)):,} of {len(ids):,} looked at"))
        await fetch(ids[start : start + size])


def fetcher(ws: Workspace, b: BoundSync) -> Fetch:
    """Fetches a sync's records by the app's own ids and loads them into the raw table."""
    app: App = ws.app(b.sync.app)

    async def fetch(ids: Sequence[str]) -> Batch:
        from oploop.extract.load import load_fetched

        with named(f"fetching {b.app_object}"):
            batch = await app.fetch(b.sync.object, ids)
        assert b.stream is not None
        load_fetched(ws.warehouse, app.name, b.stream, batch)
        return batch

    return fetch
