"""What worlds have besides from a seed on: rows that leave, append, undo, pause, canary, records that are made again."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from oploop.project import Adopt, Limit, Limits, Mode, OnDeleted, OnLeave
from oploop.records import Op, Operation, Replay

if TYPE_CHECKING:
    from tests.fault.sim.world import World


@dataclass(frozen=True, slots=True)
class Extras:
    """What people do in a world besides working in the app, and how an app behaves that archives."""

    undo: bool = False  #: runs are undone, and undos too
    leaves: bool = False  #: rows leave the model often
    more_turns: int = 0
    pause: bool = False
    backfill: bool = False  #: a first append sends what exists
    shows_archived: bool = False  #: the listing goes on showing what was archived


def widen(world: World) -> World:
    """The same world with some of it."""
    rng = random.Random(f"extras {world.seed}")
    blind = world.stream is None
    given: dict[str, Any] = {}
    kind = rng.choice(("leave", "leave", "leave", "append", "recreate", "plain"))
    operations = _taking(rng, world.object.operations)
    if kind == "leave":
        given = _leaving(rng, blind=blind)
    elif kind == "append":
        given = {"mode": Mode.APPEND}
        operations = _making(rng, operations)
    elif kind == "recreate" and not blind and world.sync.mode is not Mode.UPDATE:
        given = {"on_deleted": OnDeleted.RECREATE}
    made = operations.get(Op.CREATE)
    if kind == "append" and made is not None and made.replay is Replay.LOOKUP and blind:
        given["at_most_once"] = True
    if rng.random() < 0.2 and not blind and kind != "append":
        given["canary"] = rng.randint(1, 3)
    extras = Extras(
        leaves=kind == "leave",
        more_turns=rng.randint(0, 1) if kind == "leave" else 0,
        undo=rng.random() < 0.4 and not blind,
        pause=rng.random() < 0.2,
        backfill=rng.random() < 0.5,
        shows_archived=rng.random() < 0.4,
    )
    every = Limits(removes=Limit(count=1000))
    sync = replace(world.sync, **{"limits": every, **given})
    existing = world.existing if given.get("adopt") else world.existing[: rng.randint(0, 2)]
    return replace(
        world, existing=existing, object=replace(world.object, operations=operations), sync=sync, extras=extras
    )


def _leaving(rng: random.Random, *, blind: bool) -> dict[str, Any]:
    leaves = rng.choice((OnLeave.DELETE, OnLeave.DELETE, OnLeave.ARCHIVE, OnLeave.CLEAR))
    given: dict[str, Any] = {"on_leave": leaves}
    if rng.random() < 0.3 and not blind:
        given["adopt"] = Adopt.ALL
    if rng.random() < 0.4:
        given["mode"] = Mode.MIRROR
    if rng.random() < 0.15 and not blind:
        given["on_deleted"] = OnDeleted.RECREATE
    return given


def _taking(rng: random.Random, operations: Mapping[Op, Operation]) -> dict[Op, Operation]:
    """Records can be removed and archived."""

    def how() -> Operation:
        batch, replay = rng.choice((1, 1, 2, 3)), rng.choice((Replay.SAFE, Replay.SAFE, Replay.SAFE, Replay.NEVER))
        return Operation(batch, 1, 1, rng.choice((1, 2, 4)), replay)

    return {**operations, Op.REMOVE: how(), Op.ARCHIVE: how()}


def _making(rng: random.Random, operations: Mapping[Op, Operation]) -> dict[Op, Operation]:
    """Records can be made by a call of its own, which an append needs."""
    made = {op: how for op, how in operations.items() if op is not Op.UPSERT}
    if Op.CREATE not in made:
        made[Op.CREATE] = Operation(rng.choice((1, 2, 3)), 1, 1, 2, Replay.LOOKUP, settle=rng.choice((0.0, 30.0)))
    return made
