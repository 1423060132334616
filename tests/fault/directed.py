"""Schedules written by hand, for faults that must meet at one place to do harm: chance finds them too seldom.

Each is played to its end like any other (`test_directed.py`), and shows that a mutation is wrong (`mutations.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from oploop.apps.transport import Request
from oploop.project import Conflict, FieldMapping, Mode, Sync
from oploop.records import (
    Column,
    ColumnType,
    Condition,
    Deletes,
    Field,
    FieldType,
    Object,
    Op,
    Operation,
    Replay,
    Stream,
)
from tests.fault.sim import check
from tests.fault.sim.ground import Ground
from tests.fault.sim.schedule import Simulation
from tests.fault.sim.world import APP, MODEL, OBJECT, PLACE, SYNC, Behaviour, World

SAFE = Operation(5, 1, 1, 1, Replay.SAFE)
BY_JOBS = frozenset({Op.CREATE, Op.UPDATE})
Row = dict[str, Any]


def world(
    *names: str,
    create: Operation = SAFE,
    update: Operation = SAFE,
    deletes: Deletes = Deletes.ABSENCE,
    existing: tuple[str, ...] = (),
    mode: Mode = Mode.UPSERT,
    conflict: Conflict = Conflict.THEIRS,
    **behaviour: Any,
) -> World:
    """People with a code and a name, some of whom (`existing`) the app has already."""
    how = Behaviour(**{"page": 50, **behaviour})
    columns = {"id": ColumnType.TEXT, "code": ColumnType.TEXT, "name": ColumnType.TEXT}
    stream = Stream(OBJECT, ("id",), columns, incremental=deletes is Deletes.MARKED, deletes=deletes, lag=how.lag)
    fields = {
        "code": Field("code", FieldType.TEXT, source=Column("code"), key=True, nullable=False),
        "name": Field("name", FieldType.TEXT, source=Column("name")),
    }
    sync = Sync(
        SYNC,
        MODEL,
        APP,
        OBJECT,
        {"code": "code"},
        (FieldMapping("name", column="name"),),
        PLACE,
        mode=mode,
        conflict=conflict,
    )
    made = {Op.CREATE: create, Op.UPDATE: update}
    listed = Object(OBJECT, made, stream=OBJECT, fields=fields)
    return World(0, listed, stream, how, sync, ("name",), [_row(n) for n in names], [_row(n) for n in existing])


def _row(name: str) -> Row:
    return {"code": f"k{name}", "name": name}


class Directed(Simulation):
    """A simulation in which nothing happens by chance."""

    def __init__(self, given: World, ground: Ground, folder: Path) -> None:
        super().__init__(0, ground, folder, given)
        self.calls(lambda request: None)
        self.server.behind = 0.0
        self.prepare()

    def calls(self, meet: Callable[[Request], str | None]) -> None:
        """What each call meets from now on."""
        self.server.meets = meet

    def writes(self, *mishaps: str) -> None:
        """What the next writing calls meet, one after the other; all others nothing."""
        left = list(mishaps)
        self.calls(lambda request: left.pop(0) or None if left and request.method == "POST" else None)

    def pages(self, *mishaps: str) -> None:
        """What the next calls of listings meet."""
        left = list(mishaps)
        self.calls(lambda request: left.pop(0) or None if left and _lists(request) else None)

    def go(self, seconds: float = 0.0, crash_at: int | None = None) -> None:
        """A run, so many seconds later."""
        self.clock.seconds += seconds
        self.write_model()
        self.turn("calm", mishaps=False, crash_at=crash_at)
        check.always(self.sides[0])

    def wants(self, name: str, code: str = "kAnn") -> None:
        """The model moves."""
        for row in self.rows:
            if row["code"] == code:
                row["name"] = name

    def end(self) -> None:
        """All goes well from here on, until it is quiet."""
        self.calls(lambda request: None)
        self.write_model()
        self.quieten()
        check.at_the_end(self.sides[0])


def _lists(request: Request) -> bool:
    return request.method == "GET" and "ids=" not in request.url


# -- the schedules ----------------------------------------------------------------------------------------------------


def dies_anywhere_in_a_fold(make: Callable[[World], Directed]) -> None:
    """At each write of a delivery's fold, and before and after it."""
    given = world(
        "Ann", "Bob", "Cid", "bad", existing=("Cid",), create=Operation(2, 1, 1, 1, Replay.LOOKUP, settle=0.0)
    )
    points = _of_the_fold(make(given))
    for point in points:
        sim = make(given)
        sim.wants("Cod", "kCid")
        sim.go(crash_at=point)
        sim.go(5.0)
        sim.end()


def _of_the_fold(sim: Directed) -> list[int]:
    """The points of a run from the fold's first statement to its end."""
    sim.wants("Cod", "kCid")
    sim.go()
    names = sim.points.names
    first = next(n for n, name in enumerate(names) if "oploop.change_rows" in name)
    last = next(n for n, name in enumerate(names) if n > first and name == "after a commit")
    return list(range(first, last + 2))


def dies_anywhere_in_a_delivery(make: Callable[[World], Directed]) -> None:
    """Of creates whose keys the app knows, where the intents of calls that wait stand in the journal already: at each write of the
    journal and each call, so also between an intent and its call."""
    given = world("Ann", "Bob", "Cid", create=Operation(1, 1, 1, 1, Replay.KEY, ttl=3600.0))
    for point in _of_the_delivery(make(given)):
        sim = make(given)
        sim.go(crash_at=point)
        sim.go(5.0)
        sim.end()


def _of_the_delivery(sim: Directed) -> list[int]:
    """The points of a run from just before its first writing call to its fold."""
    sim.go()
    names = sim.points.names
    first = next(n for n, name in enumerate(names) if "before POST" in name)
    last = next(n for n, name in enumerate(names) if "oploop.change_rows" in name)
    ahead = [n for n in range(first, last) if "commit of the state" in names[n] or "POST" in names[n]]
    assert len(ahead) > 6
    return [first - 1, *ahead]


def a_key_is_forgotten_meanwhile(make: Callable[[World], Directed]) -> None:
    """The answer to a create is lost; when the app has time for it again, it has forgotten the idempotency key."""
    sim = make(world("Ann", create=Operation(1, 1, 1, 1, Replay.KEY, ttl=120.0), forget=120.0))
    sim.writes("lost", "429 hint", "429 hint", "429 hint")
    sim.server.hint = 100
    sim.go()
    sim.go(30.0)
    sim.end()


def there_and_back(make: Callable[[World], Directed]) -> None:
    """A value is sent, another one, and the first one again, while the app remembers each idempotency key."""
    how = Operation(1, 1, 1, 1, Replay.KEY, ttl=86400.0)
    sim = make(world("Ann", existing=("Ann",), update=how, forget=86400.0))
    for name in ("Eve", "Dee", "Eve"):
        sim.wants(name)
        sim.go(60.0)
    sim.end()


def a_new_record_is_listed_late(make: Callable[[World], Directed]) -> None:
    """A record that was fetched after it was made is not in a listing within the lag, and then its row moves."""
    sim = make(world("Ann", "Bob", lag=600.0))
    sim.go()
    sim.server.behind = 0.999
    sim.go(30.0)
    sim.wants("Eve")
    sim.end()


def a_listing_breaks_off(make: Callable[[World], Directed]) -> None:
    """The second page of a listing does not come; the rows of what it would have shown move."""
    sim = make(world("Ann", "Bob", "Cid", page=1))
    sim.go()
    sim.pages("", "refused")
    sim.go(700.0)
    sim.wants("Eve", "kCid")
    sim.end()


def an_old_change_comes_last(make: Callable[[World], Directed]) -> None:
    """A listing of changes, the newest first, breaks off; the next read goes on with older ones."""
    sim = make(world("Ann", existing=("Ann", "Bob"), deletes=Deletes.MARKED, page=1, history=True))
    sim.go()
    sim.wants("Eve")
    sim.go(60.0)
    sim.pages("", "refused")
    sim.go(60.0)
    sim.pages("", "", "refused")
    sim.go(60.0)
    sim.pages("", "", "", "refused")
    sim.go(60.0)
    sim.end()


def a_listing_is_behind(make: Callable[[World], Directed]) -> None:
    """What was written could not be fetched back, and the next listing shows the record as it was before."""
    sim = make(world("Ann", existing=("Ann",), lag=600.0, conflict=Conflict.OURS))
    sim.clock.seconds = 1000.0
    sim.wants("Eve")
    sim.calls(lambda request: "refused" if "ids=" in request.url else None)
    sim.server.behind = 0.999
    sim.go()
    sim.go(30.0)
    sim.end()


def somebody_comes_between(make: Callable[[World], Directed]) -> None:
    """A record is edited between the read that was planned on and the write; the field is held then."""
    how = replace(SAFE, condition=Condition("stamp"))
    sim = make(world("Ann", existing=("Ann",), update=how, conflict=Conflict.HOLD))
    sim.wants("Eve")
    sim.go()
    sim.wants("Dee")
    left = ["Bob"]

    def edit(request: Request) -> None:
        if request.method == "POST" and left:
            sim.server.person_edits("001", {"name": left.pop()})

    sim.calls(edit)
    sim.go(60.0)
    sim.end()


def two_wait_for_each_other(make: Callable[[World], Directed]) -> None:
    """Two new people are each other's boss, a third one is the second's: neither can be made first."""
    given = world("Ann", "Bob", "Cid", "Dee")
    assert given.stream is not None
    boss = FieldMapping("boss", ref=f"{APP}.{OBJECT}", by="code", column="boss")
    fields = {**given.object.fields, "boss": Field("boss", FieldType.TEXT, source=Column("boss"))}
    of = {"kAnn": "kBob", "kBob": "kAnn", "kCid": "kBob", "kDee": None}
    given = replace(
        given,
        object=replace(given.object, fields=fields),
        stream=replace(given.stream, columns={**given.stream.columns, "boss": ColumnType.TEXT}),
        sync=replace(given.sync, fields=(*given.sync.fields, boss)),
        fields=("name", "boss"),
        rows=[{**row, "boss": of[row["code"]]} for row in given.rows],
    )
    sim = make(given)
    sim.go()
    sim.end()


def the_clock_is_set_back(make: Callable[[World], Directed]) -> None:
    """A read of the future must vouch for nothing: a create whose answer was lost is not made again before a read tells."""
    sim = make(world("Ann", create=Operation(1, 1, 1, 1, Replay.LOOKUP, settle=0.0)))
    sim.rows.clear()
    sim.go()
    sim.rows.append(_row("Ann"))
    sim.clock.offset, sim.jumped = -3000.0, True
    for _ in range(2):
        sim.calls(lambda request: "lost" if request.method == "POST" else "refused" if _lists(request) else None)
        sim.go(20.0)
    sim.end()


def a_job_ends_while_nobody_looks(make: Callable[[World], Directed]) -> None:
    """What a job made was there as soon as it ended, so a read long afterwards shows it, however far behind it is."""
    given = world("Ann", create=Operation(1, 1, 1, 1, Replay.LOOKUP, settle=900.0), lag=60.0, jobs=BY_JOBS)
    sim = make(given)

    def unheard(request: Request) -> str | None:
        if "?job=" not in request.url:
            return None
        sim.server.jobs["j1"].ready = sim.clock.seconds + 300.0
        return "login"

    sim.calls(unheard)
    sim.go()
    ready = sim.server.jobs["j1"].ready
    assert ready is not None
    assert not sim.server.live()
    sim.calls(lambda request: None)
    sim.server.behind = 0.999
    sim.go(1200.0)
    assert [r.past[0][0] for r in sim.server.live()] == [ready]
    sim.end()


def a_job_goes_on_unheard(make: Callable[[World], Directed]) -> None:
    """A job cannot be asked after and works for hours; the next ones cannot be heard of either, and then one says that it works."""
    sim = make(world("Ann", "Bob", create=Operation(2, 1, 1, 1, Replay.LOOKUP, settle=0.0), jobs=BY_JOBS))
    _takes_hours(sim)
    for seconds in (0.0, 100.0, 2000.0):
        sim.go(seconds)
    sim.calls(lambda request: None)
    sim.go(100.0)
    assert not sim.server.live()
    sim.end()


def a_job_changes_records_late(make: Callable[[World], Directed]) -> None:
    """A job that changes a record is not heard of any more; the model moves on, and the job must not have the last word."""
    sim = make(world("Ann", existing=("Ann",), jobs=BY_JOBS))
    sim.wants("Eve")
    _takes_hours(sim)
    sim.go()

    def at_once(request: Request) -> None:
        for job in list(sim.server.jobs.values())[1:]:
            job.ready = job.began

    sim.calls(at_once)
    sim.wants("Dee")
    sim.go(100.0)
    sim.end()


def _takes_hours(sim: Directed) -> None:
    """No job can be asked after, and each takes 9,000 s."""

    def unheard(request: Request) -> str | None:
        if "?job=" not in request.url:
            return None
        for job in sim.server.jobs.values():
            if job.results is None:
                job.ready = (job.began or 0.0) + 9000.0
        return "refused"

    sim.calls(unheard)


SCHEDULES: dict[str, Callable[[Callable[[World], Directed]], None]] = {
    f.__name__.replace("_", " "): f
    for f in (
        dies_anywhere_in_a_fold,
        dies_anywhere_in_a_delivery,
        a_key_is_forgotten_meanwhile,
        there_and_back,
        a_new_record_is_listed_late,
        a_listing_breaks_off,
        an_old_change_comes_last,
        a_listing_is_behind,
        somebody_comes_between,
        two_wait_for_each_other,
        the_clock_is_set_back,
        a_job_ends_while_nobody_looks,
        a_job_goes_on_unheard,
        a_job_changes_records_late,
    )
}


def play(name: str, ground: Ground, folder: Path) -> list[str]:
    """Play one of them; the trace of its last simulation. Raises Wrong with what does not hold."""
    made: list[Directed] = []

    def make(given: World) -> Directed:
        made.append(Directed(given, ground, folder))
        return made[-1]

    try:
        SCHEDULES[name](make)
    except AssertionError as e:
        e.add_note("\n".join(made[-1].trace))
        raise
    return made[-1].trace
