"""One schedule: a world, and what happens in it, turn by turn, until all is quiet."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from oploop import loop
from oploop.activate import waiting
from oploop.activate.plan import SyncPlan
from oploop.apps.transport import Answer, Request
from oploop.errors import OploopError
from oploop.loop import Options
from oploop.project.release import Release
from oploop.records import Replay
from oploop.report import RunReport
from oploop.stages.undoing import Wish, plan_undo
from oploop.storage import Storage
from oploop.warehouse.base import literal
from oploop.workspace import Workspace
from tests.fault.sim import wide
from tests.fault.sim import world as worlds
from tests.fault.sim.app import SimApp
from tests.fault.sim.clock import Clock, NothingLeft, SimLoop
from tests.fault.sim.ground import Ground
from tests.fault.sim.server import CALM, Server, Weather
from tests.fault.sim.storage import Crash, Points
from tests.fault.sim.world import SQL_TYPES, World, draw_row, draw_value

#: Turns that the engine gets, without mishaps, to become quiet.
PATIENCE = 8

#: What a turn's calls may meet; "" is nothing at all.
WEATHERS: dict[str, Weather] = {
    "calm": CALM,
    "lossy": Weather({"lost": 0.2, "cut": 0.1, "timeout": 0.05, "garbled": 0.05, "500 done": 0.1}),
    "busy": Weather({"429": 0.2, "429 hint": 0.2, "503 hint": 0.1, "burst": 0.1}, item_lock=0.2),
    "rude": Weather({"refused": 0.15, "login": 0.04, "unreachable": 0.1, "500": 0.1}, item_lock=0.1, unnamed=0.1),
    "slow": Weather({"timeout": 0.1, "lost": 0.05}, slow=0.3, unnamed=0.05),
    "storm": Weather(
        {"lost": 0.12, "cut": 0.08, "429 hint": 0.08, "500": 0.08, "500 done": 0.08, "refused": 0.05, "burst": 0.03},
        slow=0.1,
        item_lock=0.1,
        unnamed=0.05,
    ),
    "unread": Weather({"lost": 0.1}, unread=0.5),
    "crowded": Weather({"lost": 0.05}, meddle=0.6),
    "unheard": Weather({"lost": 0.05}, unheard=0.7),
}


#: Those that only the widest worlds know.
WIDE_ONLY = ("unread", "crowded", "unheard")
#: A schedule's worlds are small and move a lot: the guardrails on the model's size are not what is tried here.
ALLOWED = {name: frozenset({"rows", "nulls"}) for name in (worlds.SYNC, wide.FIRMS)}
#: Our tables that tell whose a row is, and by which column.
OF_SYNC = re.compile(r"FROM oploop\.(change_log|change_outcomes|held|parked|appended)\b")


class Wrong(AssertionError):
    """What must hold does not."""


@dataclass
class Turn:
    """What is known of one run of ours."""

    number: int
    run_id: str
    began: float = 0.0
    ended: float = -1.0
    crashed: bool = False
    error: str | None = None
    report: RunReport | None = None
    model: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  #: each side's rows, by its object
    undoes: tuple[str, ...] = ()  #: the runs that it takes back
    paused: bool = False  #: the sync was paused when it began
    left: list[tuple[str, str | None, str]] = field(default_factory=list)  #: what an undo named as not put back


class Simulation:
    """One seed, played. Its ground is shared by many seeds, one after the other, in a process."""

    def __init__(self, seed: int, ground: Ground, folder: Path, world: World | None = None) -> None:
        self.seed, self.ground, self.inner, self.folder = seed, ground, ground.warehouse, folder
        self.world = world or worlds.draw(seed)
        self.rng = random.Random(f"schedule {seed}")
        self.clock = Clock()
        self.trace: list[str] = []
        self.points = Points(self.note)
        self.server = Server(self.world, self.clock, self.points, self.note)
        self.rows = [dict(r) for r in self.world.rows]
        self.sides: list[Side] = [Side(self, self.world, self.server, self.rows)]
        if self.world.firms is not None:
            firms = Server(self.world.firms, self.clock, self.points, self.note)
            self.sides.insert(0, Side(self, self.world.firms, firms, [dict(r) for r in self.world.firms.rows]))
        self.gone: list[dict[str, Any]] = []  #: rows that left the model
        self.turns: list[Turn] = []
        self.happened: Counter[str] = Counter()  #: what befell us
        self.lost_state = False
        self.jumped = False
        self.points_seen = 60
        self.note(f"world: {self.world.object.operations} {self.world.stream} {self.world.behaviour} {self.world.sync}")

    def note(self, text: str) -> None:
        self.trace.append(f"{self.clock.seconds:10.2f} {text}")

    # -- the whole -----------------------------------------------------------------------------------------------------

    def play(self) -> None:
        """All of it; raises Wrong with what does not hold."""
        weathers = tuple(w for w in WEATHERS if w not in WIDE_ONLY or self.seed >= worlds.WIDE)
        if self.seed >= worlds.WIDE:
            weathers += ("crowded", "crowded")
        from tests.fault.sim import check

        self.prepare()
        for _ in range(self.rng.randint(2, 4) + self.world.extras.more_turns):
            if self.world.extras.leaves and self.turns:
                self.sides[-1].rows_leave()
            self.happenings()
            self.decisions()
            self.turn(self.rng.choice(weathers), mishaps=True)
            for side in self.sides:
                check.always(side)
        self.quieten()
        for side in self.sides:
            check.at_the_end(side)
        [smooth] = self.rows_of("SELECT count(*) AS n FROM oploop.volumes_told")
        self.happened["a delivery goes smoothly"] += smooth["n"]

    def prepare(self) -> None:
        """An empty warehouse and an empty state."""
        self.ground.empty()
        self.write_model()

    def write_model(self) -> None:
        """The models' tables as they are now."""
        for side in self.sides:
            names, given = ("code", *side.world.fields), side.rows
            rows = ", ".join("(" + ", ".join(_sql(r[n], SQL_TYPES[n]) for n in names) + ")" for r in given)
            columns = ", ".join(f"CAST({n} AS {SQL_TYPES[n]}) AS {n}" for n in names)
            empty = "" if given else " LIMIT 0"
            rows = rows or "(" + ", ".join("NULL" for _ in names) + ")"
            self.inner.execute(
                f"CREATE OR REPLACE TABLE {side.world.sync.model} AS SELECT {columns} "
                f"FROM (VALUES {rows}) t({', '.join(names)}){empty}"
            )

    # -- what happens --------------------------------------------------------------------------------------------------

    def happenings(self) -> None:
        """Between two turns the model moves, people work in the app, time passes."""
        rng = self.rng
        for _ in range(rng.randint(0, 4)):
            self.clock.seconds += rng.choice((0.0, 1.0, 30.0, 700.0))
            side = rng.choice(self.sides) if len(self.sides) > 1 else self.sides[0]
            rng.choice((side.model_changes, side.model_changes, side.people_work))()
        self.write_model()
        self.clock.seconds += rng.choice((0.1, 1.0, 20.0, 100.0, 900.0, 4000.0))
        if rng.random() < 0.1:
            was = self.clock.offset
            self.clock.offset += rng.choice((-4000.0, -50.0, -3.0, 0.4 * self.world.behaviour.lag))
            self.jumped = self.jumped or self.clock.offset != 0.0
            self.happened["the clock is set back" if self.clock.offset < was else "the clock is set forward"] += 1
            self.note(f"our clock jumps: it is {self.clock.offset} s off")
        if rng.random() < 0.06 and self.turns:
            self.lost_state = self.ground.lose_folder() or self.lost_state
            self.note(".oploop/ is lost")
            self.happened[".oploop/ is lost"] += 1

    def decisions(self) -> None:
        """What people decide of the sync: it is paused, resumed, a run is undone."""
        rng, extras = self.rng, self.world.extras
        done = [t for t in self.turns if t.run_id]
        if extras.undo and done and rng.random() < 0.4:
            undone = done[-1] if rng.random() < 0.6 else rng.choice(done)
            self.turn(
                rng.choice(("calm", *(w for w in WEATHERS if w not in WIDE_ONLY))),
                mishaps=rng.random() < 0.5,
                undoes=(undone.run_id,),
            )
            self.clock.seconds += rng.choice((0.1, 30.0, 4000.0))
        if extras.pause and rng.random() < 0.4:
            waiting.pause(self.inner, worlds.SYNC, None, None, self.clock.now())
            self.note("paused")
        elif rng.random() < 0.7:
            self.resume()

    def paused(self) -> bool:
        return worlds.SYNC in self._all_paused()

    def _all_paused(self) -> list[str]:
        """The syncs that are paused: an undo pauses each of its run."""
        return [str(sync) for (sync,) in self.inner.rows("SELECT DISTINCT sync FROM oploop.paused ORDER BY sync")]

    def is_put_back(self, turn: Turn) -> bool:
        """Whether it is no process of its own, but the part of one that put a canary back."""
        return any(t.run_id in turn.undoes and t.began <= turn.began <= t.ended for t in self.turns)

    def resume(self) -> None:
        """What `oploop resume` does."""
        for sync in self._all_paused():
            waiting.resume(self.inner, sync)
            self.note(f"resumed {sync}")

    # -- a turn --------------------------------------------------------------------------------------------------------

    def turn(self, weather: str, *, mishaps: bool, undoes: tuple[str, ...] = (), crash_at: int | None = None) -> Turn:
        """One process: opens what is stored, runs the loop once or undoes some runs, ends or dies."""
        rng = self.rng
        self.points.begin()
        self.points.crash_at = crash_at
        if mishaps and rng.random() < 0.5:
            self.points.crash_at = rng.randint(1, self.points_seen)
        elif mishaps and rng.random() < 0.12:
            start = rng.randint(1, self.points_seen)
            self.points.refuse = range(start, start + rng.choice((1, 5, 1000)))
            self.points.refuse_what = rng.choice(("warehouse", "state"))
        number = len(self.turns) + 1
        for side in self.sides:
            side.server.weather = WEATHERS[weather]
            side.server.begins(number)
        model = {side.world.name: [dict(r) for r in side.rows] for side in self.sides}
        turn = Turn(number, "", self.clock.seconds, model=model, undoes=undoes, paused=self.paused())
        self.turns.append(turn)
        what = f" undoes {', '.join(undoes)}" if undoes else ""
        self.note(f"turn {turn.number}:{what} {weather}, crash at {self.points.crash_at}, refuse {self.points.refuse}")
        self._live(turn)
        turn.ended = self.clock.seconds
        self.points_seen = max(30, self.points.count)
        how = "crashed" if turn.crashed else turn.error or (turn.report.status if turn.report else "?")
        self.note(f"turn {turn.number} ended: {how}; {self.points.count} points")
        return turn

    def _live(self, turn: Turn) -> None:
        event_loop = SimLoop(self.clock)
        event_loop.set_exception_handler(lambda *_: None)
        self.points.on_death.append(event_loop.stop)
        main = event_loop.create_task(self._run(turn))
        try:
            event_loop.run_until_complete(main)
        except NothingLeft as e:
            raise Wrong(f"the run never ends: {e}") from e
        except RuntimeError:
            if not self.points.dead:
                raise
        except Crash:
            pass
        finally:
            turn.crashed = self.points.dead
            self._bury(event_loop)

    def _bury(self, event_loop: SimLoop) -> None:
        """Whatever the dead process still tries is refused; what it had sent is on its way."""
        if self.points.dead:
            for side in self.sides:
                side.server.after_death()
        for _ in range(20):
            tasks = asyncio.all_tasks(event_loop)
            if not tasks:
                break
            for task in tasks:
                task.cancel()
            with contextlib.suppress(BaseException):
                event_loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        event_loop.close()
        self.ground.bury(crashed=self.points.dead)

    async def _run(self, turn: Turn) -> None:
        runtime = self.clock.runtime(self.rng)
        app = SimApp(self.world, runtime, self._send)
        project = worlds.project(self.world, self.folder)
        try:
            warehouse, store = self.ground.opened(runtime, self.points, self._begins)
            storage = Storage(project, runtime, "sim", _warehouse=warehouse, _state=store)
            ws = Workspace(project, "prod", runtime, "sim", _storage=storage, _apps={worlds.APP: app})
            ws.release = Release(
                self.folder, lambda _: None
            )  # git takes as long as a tenth of a turn to know of no commit
            async with ws:
                if turn.undoes:
                    await self._undo(ws, turn)
                else:
                    backfill = self.world.extras.backfill
                    options = Options(yes=True, first_run=True, allow=ALLOWED, backfill=backfill)
                    turn.report = await loop.run(ws, options)
        except OploopError as e:
            turn.error = f"{type(e).__name__}: {e}"
        except Crash:
            raise
        except BaseException as e:
            if not self.points.dead:
                raise Wrong(f"a run raised {type(e).__name__}: {e!r}") from e
            raise

    async def _send(self, request: Request) -> Answer:
        """To the server of the object that is asked for."""
        name = urlsplit(request.url).path.strip("/")
        return await next(side for side in self.sides if side.world.name == name).server(request)

    async def _undo(self, ws: Workspace, turn: Turn) -> None:
        """What `oploop undo` does."""
        await loop.recover(ws)
        reports = await plan_undo(ws, Wish(turn.undoes))
        turn.left = [(left.key, left.field, left.reason) for r in reports for left in r.left]
        if any(r.plan is not None and r.plan.changes for r in reports):
            turn.report = await loop.undo(ws, turn.undoes, reports)

    def _begins(self, run_id: str) -> None:
        """A run begins. A second one in a turn puts back the canary of the first."""
        turn = self.turns[-1]
        if not turn.run_id:
            turn.run_id = run_id
            return
        back = Turn(len(self.turns) + 1, run_id, self.clock.seconds, model=turn.model, undoes=(turn.run_id,))
        self.turns.append(back)
        for side in self.sides:
            side.server.begins(back.number)
        self.note(f"turn {back.number}: puts back the canary of {turn.run_id}")

    # -- the end -------------------------------------------------------------------------------------------------------

    def quieten(self) -> None:
        """No more mishaps: the engine runs until it has sent nothing for two turns; for one where that is enough, as a turn is a fifth of a
        schedule's time: all went well, it knows of all that it sent, and the app was at rest. Each fifth schedule plays the second, too."""
        self.clock.offset = max(self.clock.offset, 0.0)
        quiet = 0
        for _ in range(PATIENCE * slowness(self.world)):
            self.clock.seconds += 2000.0
            self.resume()
            sent, busy = self.received, self._at_work()
            turn = self.turn("calm", mishaps=False)
            if turn.report is None:
                raise Wrong(f"a run without mishaps fails: {turn.error}")
            quiet = quiet + 1 if self.received == sent and not self._all_paused() and not self._at_work() else 0
            settled = turn.report.status == "ok" and not busy and not self._unsure()
            if quiet == 2 or (quiet == 1 and settled and self.seed % 5):
                return
        raise Wrong(f"after {PATIENCE * slowness(self.world)} turns without mishaps it still sends")

    def _unsure(self) -> bool:
        return bool(self.rows_of("SELECT 1 FROM oploop.parked WHERE reason = 'unknown' LIMIT 1"))

    def _at_work(self) -> bool:
        return any(side.server.at_work() for side in self.sides)

    def faults(self) -> Counter[str]:
        """All that went wrong in it, by kind."""
        return sum((side.server.happened for side in self.sides), self.happened + self.points.happened)

    @property
    def received(self) -> int:
        """How many changes have reached the app."""
        return sum(len(side.server.received) for side in self.sides)

    def rows_of(self, sql: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.inner.query(sql).to_pylist()
        return found

    def careful(self, op: str) -> bool:
        """Whether an operation must not be sent twice."""
        operations = self.world.object.operations
        operation = next((o for name, o in operations.items() if name.value == op), None)
        return operation is not None and operation.replay in (Replay.LOOKUP, Replay.NEVER)


def slowness(world: World) -> int:
    """How many times the turns of others it may take: each canary may stop it once; what a job did is not heard, and known turns later,
    for each of the tries of a tug-of-war; each turn makes one level of what refers to it."""
    return 4 if world.sync.canary else 3 if world.behaviour.jobs else 2 if any(m.ref for m in world.sync.fields) else 1


class Side:
    """A simulation as it looks from one object: its world, its server, its model's rows, its sync's part of our tables."""

    def __init__(self, sim: Simulation, world: World, server: Server, rows: list[dict[str, Any]]) -> None:
        self.sim, self.world, self.server, self.rows = sim, world, server, rows

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sim, name)

    def rows_of(self, sql: str) -> list[dict[str, Any]]:
        if self.sim.world.firms is not None:
            sync, obj = literal(self.world.sync.name), literal(self.world.name)
            sql = OF_SYNC.sub(rf"FROM (SELECT * FROM oploop.\1 WHERE sync = {sync}) AS own", sql)
            sql = sql.replace("FROM oploop.records", f"FROM (SELECT * FROM oploop.records WHERE object = {obj}) AS own")
        return self.sim.rows_of(sql)

    def model_changes(self) -> None:
        """A row comes, goes, or moves."""
        rng, fields, rows = self.rng, self.world.fields, self.rows
        if not rows or rng.random() < 0.25:
            code = rng.choice((f"k{rng.randint(0, 9)}", f"K{rng.randint(0, 9)}", f"n{len(self.trace)}", None, ""))
            rows.append(draw_row(rng, fields, code))
        elif rng.random() < 0.15:
            rows.pop(rng.randrange(len(rows)))
        else:
            name = rng.choice(fields)
            rng.choice(rows)[name] = draw_value(rng, name)
        self.note(f"model{'' if self.world is self.sim.world else ' of firms'}: {rows}")

    def rows_leave(self) -> None:
        """Rows leave the model, and some that left come back."""
        rng = self.rng
        for _ in range(rng.randint(0, 3)):
            if self.rows and rng.random() < 0.65:
                self.gone.append(self.rows.pop(rng.randrange(len(self.rows))))
            elif self.gone:
                self.rows.append(self.gone.pop(rng.randrange(len(self.gone))))
        if self.rows and rng.random() < 0.7:  # a row without a key keeps all
            self.rows[:] = [r for r in self.rows if self.world.key(r["code"]) is not None]

    def people_work(self) -> None:
        """Somebody makes, edits or deletes a record in the app."""
        rng, server, fields = self.rng, self.server, self.world.fields
        live = server.live()
        dice = rng.random()
        if not live or dice < 0.1:
            if self.world.stream is not None:
                server.person_creates(draw_row(rng, fields, f"k{rng.randint(0, 9)}"))
        elif dice < 0.25:
            server.person_deletes(rng.choice(live).id)
        elif dice < 0.3:
            server.person_edits(rng.choice(live).id, {"code": f"p{rng.randint(0, 9)}"})
        else:
            name = rng.choice(fields)
            value = wide.draw_id(rng) if name in wide.REFS else draw_value(rng, name)
            server.person_edits(rng.choice(live).id, {name: value})

    def plan_of(self, turn: Turn) -> SyncPlan | None:
        """What a turn planned for this object."""
        found = turn.report.syncs if turn.report is not None else []
        return next((s.plan for s in found if s.sync == self.world.sync.name), None)


def _sql(value: Any, kind: str) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, list):
        return f"[{', '.join(literal(v) for v in value)}]::VARCHAR[]"
    return literal(value) if isinstance(value, str) else str(value)
