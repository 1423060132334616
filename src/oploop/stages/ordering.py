"""In which order syncs go: one whose field refers to an object goes after those that make records of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from oploop.activate.bound import BoundSync
from oploop.errors import FixConfig
from oploop.project import Mode, Sync

#: Modes that make records to which others may refer.
_MAKING = (Mode.CREATE, Mode.UPSERT, Mode.MIRROR, Mode.APPEND)

S = TypeVar("S", Sync, BoundSync)


def waves(syncs: Sequence[S]) -> list[list[S]]:
    """The syncs in groups, each planned once those before it are delivered; FixConfig for references in a circle.

    A sync whose field refers to its own object does not wait for itself.
    """
    left, done = list(syncs), []
    while left:
        ready = [s for s in left if not _waits_for(s, left)]
        if not ready:
            raise _circle(left)
        done.append(ready)
        left = [s for s in left if s not in ready]
    return done


def _plain(s: Sync | BoundSync) -> Sync:
    return s if isinstance(s, Sync) else s.sync


def _waits_for(s: S, others: Sequence[S]) -> list[tuple[str, S]]:
    """The field by which a sync waits, and the sync that it waits for."""
    sync, found = _plain(s), []
    for m in sync.fields:
        for other in others:
            o = _plain(other)
            if m.ref == f"{o.app}.{o.object}" and o.mode in _MAKING and o.name != sync.name:
                found.append((m.field, other))
    return found


def _circle(left: Sequence[S]) -> FixConfig:
    """The error that names a circle of references and the files in it."""
    path: list[S] = [left[0]]
    fields: list[str] = []
    while True:
        field, other = _waits_for(path[-1], left)[0]
        fields.append(field)
        if other in path:
            start = path.index(other)
            path, fields = path[start:], fields[start:]
            break
        path.append(other)
    round_: list[Sync] = [_plain(s) for s in path]
    told = ", ".join(
        f"{s.place.file} ({by}) needs {nxt.place.file}"
        for s, by, nxt in zip(round_, fields, [*round_[1:], round_[0]], strict=True)
    )
    return FixConfig(
        f"references go in a circle: {told}",
        mend="take one of the fields into a sync of its own, with mode: update",
        place=round_[0].place_of("fields", fields[0]),
    )
