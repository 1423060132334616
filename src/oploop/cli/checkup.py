"""What `oploop doctor` looks at. Every look is on its own: what is wrong with one thing hides nothing of the others."""

from __future__ import annotations

import asyncio
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from oploop.accounts import whose
from oploop.activate import rekeying
from oploop.activate.bind import AnyColumns
from oploop.cli import show
from oploop.errors import FixConfig, OploopError
from oploop.extract.tables import columns_of
from oploop.project import LOCK, written_secrets
from oploop.stages import alerting
from oploop.stages.reading import neighbours_of, refuse_shared_fields
from oploop.stages.streams import refuse_unknown
from oploop.warehouse import open_warehouse

if TYPE_CHECKING:
    from oploop.activate.bound import BoundSync
    from oploop.project import Sync
    from oploop.selection import Selection
    from oploop.warehouse.base import Warehouse
    from oploop.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor. `ok` None: cannot be told yet, and no mistake."""

    name: str
    ok: bool | None
    text: str = ""
    error: OploopError | None = None


async def examine(ws: Workspace, selection: Selection) -> list[Finding]:
    """Everything, in the order in which a newcomer mends it."""
    findings = [_config(ws)]
    names = list(ws.project.apps)
    apps = await asyncio.gather(*(_app(ws, n) for n in names))
    findings += apps
    findings += _written(ws, [n for n, f in zip(names, apps, strict=True) if f.ok])
    if not names:
        findings.append(Finding("apps", None, "none yet: name one in oploop.yml; oploop apps lists them"))
    well = {n for n, f in zip(names, apps, strict=True) if f.ok}
    findings += _alerts(ws) if all(a.to in well for a in ws.project.alerts) else []
    findings += [_warehouse(ws), _state(ws)]
    with _some_warehouse(ws) as (warehouse, real):
        findings += [f for n in names if n in well for f in _tables(ws, n, warehouse, real)]
        for sync in ws.pick(selection):
            if sync.app in well:
                findings.append(await _sync(ws, sync, warehouse, real))
            else:
                findings.append(Finding(sync.name, None, f"not checked, as {sync.app} does not answer"))
    return findings


def _config(ws: Workspace) -> Finding:
    p = ws.project
    parts = [p.name, show.count(len(p.apps), "app"), show.count(len(p.syncs), "sync"), f"models by {p.models.engine}"]
    return Finding("oploop.yml", True, " · ".join(parts))


async def _app(ws: Workspace, name: str) -> Finding:
    """Whether the app answers, and what is read of it exists."""
    block = ws.project.apps[name]
    try:
        app = ws.app(name)
        refuse_unknown(block, app.streams)
        return Finding(name, True, show.clean((await whose(app, block)).line))
    except OploopError as e:
        if e.place is None or e.place == block.place:
            e.place = block.place_named(e.message)
        return Finding(name, False, str(e), e)


def _written(ws: Workspace, names: Sequence[str]) -> list[Finding]:
    """Secrets that stand in the file, as the apps declare them; those that look like one were told already."""
    found = [w for n in names for w in written_secrets(type(ws.app(n)).Config, ws.project.apps[n])]
    told = {w.partition(" looks like")[0] for w in ws.project.warnings}
    return [Finding("secrets", None, w) for w in found if w.partition(" is a secret")[0] not in told]


def _alerts(ws: Workspace) -> list[Finding]:
    """Whether those that are to be told of a run can be told by their app."""
    try:
        alerting.refuse(ws)
    except OploopError as e:
        return [Finding("alerts", False, str(e), e)]
    return []


def _tables(ws: Workspace, name: str, warehouse: Warehouse, real: bool) -> Iterator[Finding]:
    """The tables that other tools load for an app, and their columns."""
    for stream, block in ws.project.apps[name].tables.items():
        title = f"{name}.{stream}"
        if not real:
            yield Finding(title, None, f"{block.table} was not looked at, as the warehouse is not there")
            continue
        try:
            columns_of(ws.app(name).streams[stream], block, warehouse)
            yield Finding(title, True, f"from {block.table}")
        except OploopError as e:
            e = e.at(block.place)
            yield Finding(title, False, str(e), e)


def _warehouse(ws: Workspace) -> Finding:
    block = ws.project.warehouse
    if not block.server and not block.database.exists():
        return Finding("warehouse", None, f"{block.database.name} is not there yet; oploop extract makes it")
    try:
        name = ws.warehouse.label if block.server else block.database.name
        tables = [t for t in ws.warehouse.tables() if not t.startswith("oploop") and not t.endswith("__all")]
        return Finding("warehouse", True, f"{name}, {show.count(len(tables), 'table')}")
    except OploopError as e:
        if e.message.startswith("no warehouse yet"):
            return Finding("warehouse", None, f"{e.message}; oploop extract makes it")
        e = e.at(ws.project.warehouse.place)
        return Finding("warehouse", False, str(e), e)


def _state(ws: Workspace) -> Finding:
    folder = ws.project.state_dir
    if ws.project.warehouse.server:
        return _server_state(ws)
    if not folder.exists():
        return Finding("state", None, f"{folder.name}/ is not there yet; the first run makes it")
    mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & 0o077:
        e = FixConfig(f"{folder} can be read by others (mode {mode:04o})", mend=f"chmod 700 {folder}")
        return Finding("state", False, str(e), e)
    try:
        runs = ws.state.runs(1)
    except OploopError as e:
        return Finding("state", False, str(e), e)
    last = f", last run {show.ago(runs[0].started_at, ws.runtime.now())}" if runs else ""
    return Finding("state", True, f"{folder.name}/, mode {mode:04o}{last}")


def _server_state(ws: Workspace) -> Finding:
    try:
        runs = ws.state.runs(1)
    except OploopError as e:
        return Finding("state", False, str(e), e)
    last = f", last run {show.ago(runs[0].started_at, ws.runtime.now())}" if runs else ""
    return Finding("state", True, f"in the warehouse{last}")


@contextmanager
def _some_warehouse(ws: Workspace) -> Iterator[tuple[Warehouse, bool]]:
    """The project's warehouse; while it is not there or held, an empty one, since fields are checked in its types."""
    try:
        yield ws.warehouse, True
        return
    except OploopError:
        pass
    with tempfile.TemporaryDirectory() as folder:
        empty = open_warehouse(Path(folder) / "empty.duckdb", read_only=False, runtime=ws.runtime)
        try:
            yield empty, False
        finally:
            empty.close()


async def _sync(ws: Workspace, sync: Sync, warehouse: Warehouse, real: bool) -> Finding:
    """A sync's object, fields and columns, as far as they can be known."""
    try:
        ws.target(sync)
        held = await ws.fields.held(sync)
        table, columns, note = _model(ws, sync, real)
        bound = await ws.bind(sync, table, columns, warehouse)
        if real:
            rekeying.refuse(warehouse, bound)
        await _refuse_shared(ws, bound, warehouse)
    except OploopError as e:
        e = e.at(sync.place)
        return Finding(sync.name, False, str(e), e)
    blind = ", blind: its records cannot be read" if bound.blind else ""
    text = f"{sync.model} → {bound.app_object}, {show.count(len(bound.fields), 'field')}{blind}"
    off = "" if sync.enabled else " · not enabled"
    told = [
        f"{name!r} is called {now!r} in the app now, and stays the same field" for name, now in held.renamed.items()
    ]
    told += [note] if note else []
    if bound.lost:
        return _lost_fields(sync, held.lost)
    return Finding(sync.name, None if note else True, " · ".join([text + off, *told]))


async def _refuse_shared(ws: Workspace, bound: BoundSync, warehouse: Warehouse) -> None:
    """FixConfig for a field that another sync writes too. One that is wrong in itself is told on its own line."""
    others = []
    for other in neighbours_of(ws, [bound.sync]):
        with suppress(OploopError):
            others.append(await ws.bind(other, other.model, AnyColumns(), warehouse))
    refuse_shared_fields([*others, bound])


def _lost_fields(sync: Sync, lost: Mapping[str, str]) -> Finding:
    """Fields that are held until someone decides; the sync's others go on."""
    name, why = next(iter(lost.items()))
    more = f" (and {len(lost) - 1} more)" if len(lost) > 1 else ""
    e = FixConfig(
        f"field {name!r}{more} {why}: it is held, the other fields go on",
        mend=f"mend it in the app, or map another field; if it is meant, remove its line from {LOCK}",
        place=sync.place_of("fields", name),
    )
    return Finding(sync.name, False, str(e), e)


def _model(ws: Workspace, sync: Sync, real: bool) -> tuple[str, dict[str, str], str]:
    """Where the sync's model stands, its columns, and what cannot be told yet."""
    if real:
        try:
            table = ws.model_table(sync)
            return table, ws.warehouse.columns(table), ""
        except OploopError:
            if ws.project.models.engine == "none" or sync.model not in ws.names.files():
                raise
    elif ws.project.models.engine != "none" and sync.model not in ws.names.files():
        from oploop.errors import did_you_mean

        mend = did_you_mean(sync.model, ws.names.files())
        raise FixConfig(f"there is no model {sync.model!r}", mend=mend, place=sync.place_of("model"))
    why = "not there yet" if ws.project.models.engine == "none" else f"not built in {ws.environment}"
    return sync.model, AnyColumns(), f"the model is {why}, so its columns were not checked"
