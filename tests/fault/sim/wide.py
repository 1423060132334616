"""What the widest worlds have: a second object to which people refer, jobs, listings of changes, hours without listings."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from oploop.project import Conflict, FieldMapping, OnMiss, OnNull
from oploop.records import Column, ColumnType, Condition, Deletes, Field, FieldType, Op, Operation, Replay
from tests.fault.sim.extras import Extras

if TYPE_CHECKING:
    from tests.fault.sim.world import World

FIRMS = "firms"
#: Fields that hold the id of another record: of a firm, of one of the same people.
REFS = ("firm", "boss")


def widen(world: World, draw: Callable[[int], World]) -> World:
    """The same world with some of it; `draw`: a world of its own for the firms."""
    rng = random.Random(f"wide {world.seed}")
    world = _jobs(rng, world)
    if world.stream is None:
        return world
    world = _undone(world)
    world = _conditions(rng, world)
    if world.stream.deletes is Deletes.MARKED and rng.random() < 0.4:
        world = replace(world, behaviour=replace(world.behaviour, history=True))
    kind = rng.choice(("plain", "firms", "firms", "boss", "boss", "both"))
    fields = {"plain": (), "firms": ("firm",), "boss": ("boss",), "both": REFS}[kind]
    if "firm" in fields:
        world = replace(world, firms=_firms(world.seed, draw))
    return _refer(rng, world, fields)


def _conditions(rng: random.Random, world: World) -> World:
    """The app takes updates of records that must be as they were read."""
    if rng.random() < 0.4:
        return world
    update = world.object.operations[Op.UPDATE]
    single = replace(update, batch=1, single_up_to=1) if rng.random() < 0.5 else None
    condition = Condition(rng.choice(("stamp", None)), single)
    operations = {**world.object.operations, Op.UPDATE: replace(update, condition=condition)}
    fields = tuple(replace(m, conflict=Conflict.HOLD) if rng.random() < 0.5 else m for m in world.sync.fields)
    return replace(world, object=replace(world.object, operations=operations), sync=replace(world.sync, fields=fields))


def _jobs(rng: random.Random, world: World) -> World:
    """New records are made by jobs, records changed by them perhaps, which take their time, and longer than anybody waits."""
    made = world.object.operations.get(Op.CREATE)
    if made is None or made.replay not in (Replay.LOOKUP, Replay.NEVER) or rng.random() < 0.5:
        return world
    jobs = frozenset((Op.CREATE, Op.UPDATE) if rng.random() < 0.4 else (Op.CREATE,))
    return replace(world, behaviour=replace(world.behaviour, jobs=jobs, job_kept=rng.choice((60.0, 3000.0, 86400.0))))


def _undone(world: World) -> World:
    """Runs whose jobs may still be at work are undone."""
    if not world.behaviour.jobs or random.Random(f"undone {world.seed}").random() < 0.4:
        return world
    operations = {**world.object.operations, Op.REMOVE: Operation(1, 1, 1, 1, Replay.SAFE)}
    return replace(world, object=replace(world.object, operations=operations), extras=Extras(undo=True))


def _firms(seed: int, draw: Callable[[int], World]) -> World:
    """A world of firms, in the same app: they can be read, and behave as they like."""
    for n in range(1_000_000 + seed, 2_000_000 + seed):
        world = draw(n)
        if world.stream is not None:
            break
    assert world.stream is not None
    sync = replace(world.sync, name=FIRMS, model=f"mart.{FIRMS}", object=FIRMS)
    return replace(
        world,
        name=FIRMS,
        object=replace(world.object, name=FIRMS, stream=FIRMS),
        stream=replace(world.stream, name=FIRMS),
        sync=sync,
    )


def _refer(rng: random.Random, world: World, fields: tuple[str, ...]) -> World:
    """People refer to firms, or to others of their own."""
    assert world.stream is not None
    mappings = []
    for name in fields:
        more: dict[str, Any] = {}
        if rng.random() < 0.3:
            more["conflict"] = rng.choice((Conflict.OURS, Conflict.HOLD))
        if rng.random() < 0.3:
            more["on_null"] = OnNull.CLEAR
        target = f"{world.sync.app}.{FIRMS if name == 'firm' else world.name}"
        miss = rng.choice((OnMiss.HOLD, OnMiss.HOLD, OnMiss.KEEP, OnMiss.CLEAR))
        mappings.append(FieldMapping(name, ref=target, by="code", column=name, on_miss=miss, **more))
    described = {n: Field(n, FieldType.TEXT, source=Column(n)) for n in fields}
    columns = dict.fromkeys(fields, ColumnType.TEXT)
    rows = [{**row, **{n: draw_ref(rng) for n in fields}} for row in world.rows]
    return replace(
        world,
        object=replace(world.object, fields={**world.object.fields, **described}),
        stream=replace(world.stream, columns={**world.stream.columns, **columns}),
        sync=replace(world.sync, fields=(*world.sync.fields, *mappings)),
        fields=(*world.fields, *fields),
        rows=rows,
        existing=[{**row, **dict.fromkeys(fields)} for row in world.existing],
    )


def draw_ref(rng: random.Random) -> str | None:
    """The code of somebody, mostly of one that there is."""
    return rng.choice((None, f"k{rng.randint(0, 3)}", f"k{rng.randint(0, 6)}", f"k{rng.randint(0, 6)}", "K1", "nobody"))


def draw_id(rng: random.Random) -> str | None:
    """An id that people write into such a field."""
    return rng.choice((None, "001", "002", f"{rng.randint(1, 6):03}", "999"))
