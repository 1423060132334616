"""Which streams a run reads: those that the project asks for and that are due, and those that show what syncs write."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from datetime import datetime

from oploop.accounts import asking
from oploop.apps.named import asks_account
from oploop.errors import FixConfig, OploopError, did_you_mean
from oploop.extract import StreamRequest, stream_states
from oploop.extract.tables import LoadedStreams
from oploop.project import AppBlock, StreamBlock, Sync
from oploop.records import ReadOptions, Stream
from oploop.workspace import Workspace, referenced


def stream_requests(ws: Workspace, syncs: Sequence[Sync], *, full: bool = False) -> list[StreamRequest]:
    """The streams to read, in order; FixConfig for a stream, a date or a field that cannot be meant."""
    wanted = _asked_for(ws)
    shown: set[tuple[str, str]] = set()
    for sync in syncs:
        stream = ws.target(sync)[1]
        if stream is not None:
            shown.add((sync.app, stream.name))
        shown |= {(app_name, of.name) for app_name, _, _, of in referenced(ws, sync) if of is not None}
    shown |= {(block.name, name) for block in ws.project.apps.values() for name in block.tables}
    for target in sorted(shown):
        wanted.setdefault(target, ReadOptions())
    due = [name for name in wanted if full or name in shown or _due(ws, *name)]
    return [StreamRequest(ws.source(a, s), ws.app(a).streams[s], wanted[a, s], full) for a, s in due]


def _asked_for(ws: Workspace) -> dict[tuple[str, str], ReadOptions]:
    """The streams under `read`, and how."""
    wanted: dict[tuple[str, str], ReadOptions] = {}
    for block in ws.project.apps.values():
        app = ws.app(block.name)
        with asking(block):
            refuse_unknown(block, app.streams)
        for name, options in block.read.items():
            since, exclude = options.since, frozenset(options.exclude)
            check_reading(f"{block.name}.{name}", options, app.streams[name], ws.runtime.now())
            wanted[block.name, name] = ReadOptions(since=since, exclude=exclude)
    return wanted


def refuse_unknown(block: AppBlock, streams: Mapping[str, Stream]) -> None:
    """FixConfig, with its place and the nearest right name, for a stream of a block that its app does not have."""
    places = {n: b.place for n, b in block.read.items()} | {n: b.place for n, b in block.tables.items()}
    for name, place in places.items():
        if name not in streams:
            raise FixConfig(f"{block.name} has no stream {name!r}", mend=did_you_mean(name, streams), place=place)


def refuse_misspelt(ws: Workspace) -> None:
    """The same for all apps, as far as it can be told without a call: not of those whose streams only the account knows, nor of
    blocks that a run would refuse anyway."""
    for block in ws.project.apps.values():
        if not block.read and not block.tables:
            continue
        try:
            streams = ws.app(block.name).streams
        except OploopError:
            continue
        own = streams.own if isinstance(streams, LoadedStreams) else streams
        if not asks_account(own):
            refuse_unknown(block, streams)


def _due(ws: Workspace, app: str, stream: str) -> bool:
    """Whether a stream is to be read again: `every` has gone by since the last complete read began."""
    block = ws.project.apps[app].read.get(stream)
    if block is None or block.every is None:
        return True
    state = stream_states(ws.warehouse).get((app, stream))
    if state is None or state.complete_began is None or state.reading:
        return True
    return (ws.runtime.now() - state.complete_began).total_seconds() >= block.every


def check_reading(name: str, options: StreamBlock, stream: Stream, now: datetime) -> None:
    """Refuse what would quietly read everything, or nothing: a mistyped field to exclude, a date to come.

    Records have fields that are no columns, which may be excluded from `_raw`; so only what looks like a column is one.
    """
    if options.since is not None and options.since > now:
        raise FixConfig(
            f"{name}: since {options.since:%Y-%m-%d} is still to come, so nothing would be read",
            mend="write a date that has passed",
            place=options.place,
        )
    for field_name in options.exclude:
        near = difflib.get_close_matches(field_name, stream.columns, n=1, cutoff=0.8)
        if field_name not in stream.columns and near:
            raise FixConfig(
                f"{name} has no field {field_name!r} to exclude",
                mend=f"did you mean {near[0]!r}?",
                place=options.place,
            )
