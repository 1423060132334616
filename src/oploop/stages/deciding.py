"""What a person decides between runs: pause, resume, retry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from oploop.activate import conflicts, states, waiting
from oploop.errors import FixConfig
from oploop.project import Sync
from oploop.workspace import Workspace


@dataclass(slots=True)
class Retried:
    """What `retry` released of one sync, by reason; `waiting`: unknown ones that were said to be sent and wait for a read."""

    sync: str
    released: dict[str, int] = field(default_factory=dict)
    unknown: int = 0  #: left, as nobody said what became of them
    waiting: int = 0


async def retry(
    ws: Workspace, syncs: Sequence[Sync], *, key: str | None, reason: str | None, sent: bool | None
) -> list[Retried]:
    """Release parked changes of some syncs; `sent`: what a person says of those whose outcome is unknown."""
    wheres = {s.name: waiting.matching(s.name, key, reason) for s in syncs}
    bound = {s.name: await ws.bound_alone(s) for s in syncs}
    for b in bound.values():
        states.claim(ws.warehouse, b)
    found = {name: waiting.count_parked(ws.warehouse, where) for name, where in wheres.items()}
    unknown = {name: n for name, counts in found.items() if (n := counts.pop("unknown", 0))}
    if unknown and sent is None and not any(found.values()):
        raise FixConfig(
            f"{sum(unknown.values())} parked of {', '.join(unknown)} may or may not have arrived",
            mend="look in the app, then say --not-sent (the next run sends them) or --sent",
        )
    done = []
    for name, where in wheres.items():
        one = Retried(name, found[name])
        conflicts.let_ours_win(ws.warehouse, bound[name], where)
        waiting.release(ws.warehouse, where)
        if name in unknown and sent is None:
            one.unknown = unknown[name]
        elif name in unknown:
            waiting.say(ws.warehouse, bound[name], where, sent=bool(sent), now=ws.runtime.now())
            one.waiting = waiting.count_parked(ws.warehouse, where).get("unknown", 0)
            one.released = {**found[name], "unknown": unknown[name] - one.waiting}
        done.append(one)
    return done
