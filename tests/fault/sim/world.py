"""Worlds, drawn from a seed: an object as an app declares it, how the app really behaves, a sync, a model."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from oploop.errors import Place
from oploop.project import (
    AppBlock,
    Budget,
    Conflict,
    Engine,
    FieldMapping,
    Mode,
    ModelsBlock,
    OnNull,
    Project,
    Sync,
    WarehouseBlock,
    WarehouseType,
)
from oploop.project.nouns import Only
from oploop.project.yaml import Block
from oploop.records import (
    Canonical,
    Column,
    ColumnType,
    Deletes,
    Field,
    FieldType,
    Object,
    Op,
    Operation,
    Replay,
    Stream,
)
from tests.fault.sim import wide
from tests.fault.sim.extras import Extras, widen

#: From this seed on worlds have the extras.
EXTRAS = 10_000
#: From this one on they have references, jobs, listings of changes instead.
WIDE = 20_000
APP, OBJECT, MODEL, SYNC = "crm", "people", "mart.people", "people"
PLACE = Place("syncs/people.yml", 1)
STAGES = ("new", "open", "won")
#: A text with this in it is refused by the app; with that, silently ignored where the field is so.
BAD, DEAF = "bad", "!"
KINDS = {"name": FieldType.TEXT, "score": FieldType.INTEGER, "stage": FieldType.TEXT, "tags": FieldType.LIST}
SQL_TYPES = {"code": "VARCHAR", "name": "VARCHAR", "score": "BIGINT", "stage": "VARCHAR", "tags": "VARCHAR[]"}
SQL_TYPES |= dict.fromkeys(wide.REFS, "VARCHAR")


#: The last digit of seeds whose apps call records by their codes; an odd one, as of those all deliveries are folded as large ones.
BY_CODE = 7


@dataclass(slots=True)
class Behaviour:
    """How the app really is, as far as a run has to live with it."""

    lag: float = 0.0  #: the longest that a read may be behind; the stream declares as much
    clocked: str = "record"  #: what answers tell of the app's clock: record, date, nothing
    tells_ids: bool = True
    whole: bool = False  #: refuses a batch with a bad record as a whole
    forget: float = 3600.0  #: seconds for which it knows an idempotency key
    page: int = 3
    quirks: dict[str, str] = field(default_factory=dict)  #: field -> trim | lower | deaf
    history: bool = False  #: its listing is of changes, the newest first
    jobs: frozenset[Op] = frozenset()  #: what is done by jobs, which take their time
    job_kept: float = 86400.0  #: seconds after its end for which it knows a job
    by_code: bool = False  #: a new record's id is its code, unless one has it


@dataclass(slots=True)
class World:
    """Everything that a schedule stands on."""

    seed: int
    object: Object
    stream: Stream | None
    behaviour: Behaviour
    sync: Sync
    fields: tuple[str, ...]
    rows: list[dict[str, Any]]
    existing: list[dict[str, Any]]  #: records that the app holds before we came
    extras: Extras = field(default_factory=Extras)
    name: str = OBJECT
    firms: World | None = None  #: what the records refer to, with a sync of its own

    @property
    def all(self) -> tuple[World, ...]:
        """This one and the one that it refers to, in the order of their syncs."""
        return (self,) if self.firms is None else (self.firms, self)

    @property
    def fold_case(self) -> bool:
        return self.object.fields["code"].canonical is Canonical.LOWER

    def key(self, code: Any) -> str | None:
        """The key's canonical text."""
        if code is None:
            return None
        text = code.strip(" ").lower() if self.fold_case else code
        return text or None

    def create_operation(self) -> Operation | None:
        return self.object.operations.get(Op.CREATE) or self.object.operations.get(Op.UPSERT)


def draw(seed: int) -> World:
    """The world of a seed."""
    world = _draw(seed)
    if seed >= WIDE:
        return wide.widen(world, _draw)
    world = widen(world) if seed >= EXTRAS else world
    return _by_code(world) if seed % 10 == BY_CODE else world


def _by_code(world: World) -> World:
    """The same world, whose app calls records by their codes, and has none before we come: a first delivery in which all goes well
    needs no row for any of its changes."""
    if world.stream is None or world.sync.mode is Mode.APPEND:
        return world
    return replace(world, behaviour=replace(world.behaviour, by_code=True, tells_ids=True), existing=[])


def _draw(seed: int) -> World:
    rng = random.Random(f"world {seed}")
    fields = tuple(sorted(rng.sample(sorted(KINDS), rng.choice((1, 1, 2, 2, 3)))))
    behaviour = _behaviour(rng, fields)
    blind = rng.random() < 0.08
    stream = None if blind else _stream(rng, behaviour)
    mode = rng.choice((Mode.UPSERT, Mode.UPSERT, Mode.UPSERT, Mode.CREATE, Mode.UPDATE))
    obj = _object(rng, fields, stream, behaviour)
    if blind:
        mode = rng.choice((Mode.UPSERT, Mode.CREATE))
    rows = [draw_row(rng, fields, f"k{i}") for i in range(rng.randint(1, 7))]
    existing = [draw_row(rng, fields, f"k{i}") for i in range(rng.randint(0, 4))] if not blind else []
    sync = _sync(rng, fields, mode, blind)
    made = obj.operations.get(Op.CREATE)
    if made is not None and made.replay is Replay.LOOKUP and (blind or rng.random() < 0.2):
        sync = replace(sync, at_most_once=True)  # what cannot be looked up is refused otherwise
    return World(seed, obj, stream, behaviour, sync, fields, rows, existing)


def _behaviour(rng: random.Random, fields: tuple[str, ...]) -> Behaviour:
    quirks = {}
    for name in fields:
        if KINDS[name] is FieldType.TEXT and name != "stage" and rng.random() < 0.6:
            quirks[name] = rng.choice(("trim", "lower", "deaf"))
    return Behaviour(
        lag=rng.choice((0.0, 0.0, 5.0, 60.0, 600.0)),
        clocked=rng.choice(("record", "date", "nothing")),
        tells_ids=rng.random() < 0.85,
        whole=rng.random() < 0.3,
        forget=rng.choice((120.0, 3600.0, 86400.0)),
        page=rng.choice((2, 3, 50)),
        quirks=quirks,
    )


def _stream(rng: random.Random, behaviour: Behaviour) -> Stream:
    columns = {"id": ColumnType.TEXT, "code": ColumnType.TEXT, "name": ColumnType.TEXT, "score": ColumnType.INTEGER}
    columns |= {"stage": ColumnType.TEXT, "tags": ColumnType.JSON}
    deletes = rng.choice((Deletes.MARKED, Deletes.ABSENCE))
    return Stream(OBJECT, ("id",), columns, incremental=deletes is Deletes.MARKED, deletes=deletes, lag=behaviour.lag)


def _object(rng: random.Random, fields: tuple[str, ...], stream: Stream | None, behaviour: Behaviour) -> Object:
    form = rng.choice((Canonical.EXACT, Canonical.LOWER))
    listed = {"code": Field("code", FieldType.TEXT, source=Column("code"), key=True, nullable=False, canonical=form)}
    for name in fields:
        canonical = Canonical.EXACT
        if behaviour.quirks.get(name) in ("trim", "lower") and rng.random() < 0.3:
            canonical = Canonical.TRIM if behaviour.quirks[name] == "trim" else Canonical.LOWER
        enum = STAGES if name == "stage" else None
        listed[name] = Field(name, KINDS[name], source=Column(name), enum=enum, canonical=canonical)
    return Object(
        OBJECT,
        _operations(rng, behaviour, blind=stream is None),
        stream=OBJECT if stream is not None else None,
        fields=listed,
    )


def _operations(rng: random.Random, behaviour: Behaviour, *, blind: bool) -> Mapping[Op, Operation]:
    def how(replay: Replay, **more: Any) -> Operation:
        batch = rng.choice((1, 1, 2, 3, 5))
        settle = rng.choice((0.0, 30.0, 900.0)) if replay is Replay.LOOKUP else None
        ttl = behaviour.forget if replay is Replay.KEY else None
        single = rng.randint(1, batch)
        return Operation(batch, single, 1, rng.choice((1, 2, 4)), replay, ttl=ttl, settle=settle, **more)

    create = rng.choice((Replay.KEY, Replay.LOOKUP, Replay.NEVER, None))
    update = rng.choice((Replay.SAFE, Replay.SAFE, Replay.SAFE, Replay.KEY, Replay.NEVER))
    operations = {Op.UPDATE: how(update)}
    if create is None:
        operations[Op.UPSERT] = how(Replay.SAFE, keys=("code",))
    else:
        operations[Op.CREATE] = how(create)
    return operations


def _sync(rng: random.Random, fields: tuple[str, ...], mode: Mode, blind: bool) -> Sync:
    mappings = []
    for name in fields:
        more: dict[str, Any] = {"column": name}
        if name == "tags" and rng.random() < 0.5:
            more = {"add": ("vip",)}
        elif rng.random() < 0.12 and not blind:
            more["if_empty"] = True
        elif rng.random() < 0.1:
            more["only"] = Only.CREATE
        if rng.random() < 0.3:
            more["conflict"] = rng.choice((Conflict.OURS, Conflict.HOLD))
        if rng.random() < 0.3:
            more["on_null"] = OnNull.CLEAR
        mappings.append(FieldMapping(name, **more))
    return Sync(
        name=SYNC,
        model=MODEL,
        app=APP,
        object=OBJECT,
        key={"code": "code"},
        fields=tuple(mappings),
        place=PLACE,
        mode=mode,
        conflict=rng.choice((Conflict.THEIRS, Conflict.THEIRS, Conflict.OURS, Conflict.HOLD)),
    )


def draw_row(rng: random.Random, fields: tuple[str, ...], code: str | None) -> dict[str, Any]:
    """A row of the model, or a record."""
    return {"code": code, **{name: draw_value(rng, name) for name in fields}}


def draw_value(rng: random.Random, name: str) -> Any:
    """A value of a field, now and then one that an app does not like."""
    if rng.random() < 0.08:
        return None
    match name:
        case "firm" | "boss":
            return wide.draw_ref(rng)
        case "score":
            return rng.randint(0, 5)
        case "stage":
            return rng.choice((*STAGES, *STAGES, "lost?"))
        case "tags":
            return sorted(rng.sample(("a", "b", "vip"), rng.randint(0, 3)))
        case _:
            word = rng.choice(("Ann", "Bob", " Cid ", "dee", "Eve"))
            extra = rng.choice(("", "", "", "", BAD, DEAF))
            return f"{word}{rng.randint(1, 3)}{extra}"


def project(world: World, root: Path) -> Project:
    """The user's project, as if it had been read from files."""
    block = AppBlock(APP, "simulated", Block(PLACE), {}, Budget(), PLACE, root, variables=None)  # type: ignore[arg-type]
    return Project(
        name="sim",
        root=root,
        warehouse=WarehouseBlock(WarehouseType.DUCKDB, root / "none.duckdb"),
        models=ModelsBlock(Engine.NONE, root),
        apps={APP: block},
        environments={},
        syncs={w.sync.name: w.sync for w in world.all},
        warnings=[],
    )
