"""Deliveries to a scripted app, with a real journal: whatever it meets, each change ends in one outcome, and truly so."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import tracemalloc
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st

from oploop.activate import folding, ledger
from oploop.activate import plan as planning
from oploop.activate.begun import Begun
from oploop.activate.deliver import Deliverer
from oploop.activate.delivered import Delivery
from oploop.activate.journal import Journal
from oploop.apps.transport import MADE_BEFORE, REPEAT_UNTIL, Budget, DayQuota, NoAnswer, Transport
from oploop.errors import FixConfig, RetryLater
from oploop.records import Op, Operation, Outcome, Replay
from oploop.state import JournalStep, StateReader
from oploop.warehouse import Warehouse
from tests.unit.activate.engine import Engine, a_field, a_sync, an_object, at
from tests.unit.activate.script import Act, Clock, ScriptedApp
from tests.warehouses import state_of

CREATES, UPDATES = 7, 6
ALL = set(range(1, CREATES + UPDATES + 1))
STATUS = {"ok": "sent", "rejected": "rejected", "retry": "failed", "unknown": "unknown"}


class Post:
    """One plan, kept in the warehouse, that is delivered again and again, each time as another run."""

    def __init__(self, engine: Engine, folder: Path, operation: Operation, creates: int, updates: int) -> None:
        self.engine, self.clock = engine, Clock()
        self.runtime = self.clock.runtime()
        self.store, self.look = state_of(engine.warehouse, folder, self.runtime)
        rows = [(f"c{i:06}", "new") for i in range(creates)] + [(f"u{i:06}", "new") for i in range(updates)]
        engine.warehouse.execute("CREATE OR REPLACE TABLE mart.people (email VARCHAR, tier VARCHAR)")
        engine.warehouse.execute(
            f"INSERT INTO mart.people SELECT 'c' || lpad(i::VARCHAR, 6, '0'), 'new' FROM range({creates}) t(i) UNION ALL "
            f"SELECT 'u' || lpad(i::VARCHAR, 6, '0'), 'new' FROM range({updates}) t(i)"
        )
        assert len(rows) == creates + updates
        engine.records({"email": "VARCHAR", "tier": "VARCHAR"}, [])
        engine.warehouse.execute(
            f"INSERT INTO {engine.raw} SELECT 'r' || i, 'u' || lpad(i::VARCHAR, 6, '0'), 'old', 0, TIMESTAMPTZ '2025-03-01', "
            f"FALSE FROM range({updates}) t(i)"
        )
        obj = an_object(a_field("tier"), operations={Op.CREATE: operation, Op.UPDATE: operation})
        self.bound = engine.bind(a_sync("tier"), obj)
        self.plan = planning.make_plan(
            engine.diff(self.bound), engine.warehouse, budget=None, call_seconds=None, allow={"first"}
        )
        assert (self.plan.create, self.plan.update) == (creates, updates)
        self.table = ledger.keep_plan(self.plan, engine.warehouse, "kept", at(0))
        engine.warehouse.execute("DELETE FROM oploop.deliveries")
        self.run_id = ""

    async def deliver(
        self, app: ScriptedApp, progress: Any = lambda n: None, journal: Journal | None = None
    ) -> Delivery:
        self.run_id = f"run{int(self.run_id[3:] or 0) + 1}"
        return await Deliverer(
            self.plan,
            app,
            run_id=self.run_id,
            table=self.table,
            warehouse=self.engine.warehouse,
            journal=journal or Journal(self.store.write_steps),
            runtime=self.runtime,
            progress=progress,
        ).run()

    def journal(self) -> list[JournalStep]:
        return self.store.steps(self.run_id, "people")

    @contextlib.contextmanager
    def folded(self) -> Iterator[Warehouse]:
        """The warehouse as it is after folding; taken back at the end."""
        warehouse = self.engine.warehouse
        with contextlib.suppress(_Undo), warehouse.transaction():
            spec = ledger.spec_of(self.bound, warehouse, None)
            folding.fold(warehouse, Begun(self.run_id, spec, self.table, at(0)), self.journal(), at(99))
            yield warehouse
            raise _Undo

    def statuses(self) -> dict[int, str]:
        """Each begun change's status in the ledger."""
        with self.folded() as w:
            rows = w.rows("SELECT number, status FROM oploop.change_outcomes")
        assert len(rows) == len({n for n, _ in rows}), "one row a change"
        return dict(rows)


class _Undo(Exception):
    """Takes a fold back."""


def operation(replay: Replay = Replay.SAFE, batch: int = 4, in_flight: int = 2) -> Operation:
    return Operation(batch=batch, single_up_to=1, in_flight=in_flight, replay=replay)


@pytest.fixture
def post(engine: Engine, tmp_path: Path) -> Iterator[Any]:
    stores = []

    def make(op: Operation, creates: int = CREATES, updates: int = UPDATES) -> Post:
        made = Post(engine, tmp_path, op, creates, updates)
        stores.append(made.store)
        return made

    yield make
    for store in stores:
        store.close()


words = st.sampled_from(["ok", "ok", "refused", "skip", "later", "lost", "lost+"])
outcomes = st.sampled_from(["ok", "ok", "rejected", "retry", "unknown", "unknown+", "missing", "missing+"])
acts: st.SearchStrategy[Act] = words | st.lists(outcomes, min_size=1, max_size=4).map(tuple)
scripts = st.tuples(st.lists(acts, max_size=12), st.sampled_from(["ok", "ok", "later", "lost+", "refused", "fix"])).map(
    lambda s: [*s[0], s[1]]
)


@pytest.mark.parametrize("replay", list(Replay))
def test_whatever_happens_each_change_ends_in_one_true_outcome(post: Any, replay: Replay) -> None:
    office: Post = post(operation(replay))

    @settings(
        max_examples=40,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    @given(script=scripts, bad=st.frozensets(st.sampled_from(sorted(ALL)), max_size=2))
    def holds(script: list[Act], bad: frozenset[int]) -> None:
        app = ScriptedApp(script, office.runtime, bad=bad)
        ticks: list[int] = []
        reader = office.look()
        app.look = lambda step: assert_intent(reader, office.run_id, step)
        result = asyncio.run(office.deliver(app, ticks.append))
        reader.close()
        assert_true(office, app, result, ticks, replay)

    holds()


def assert_intent(reader: StateReader, run_id: str, step: Any) -> None:
    """The intent of a call is on disk, for another process to see, before the call is made."""
    span = (step.id, step.changes[0].number, step.changes[-1].number, step.op)
    found = [s for s in reader.steps(run_id, "people") if (s.step_id, s.first, s.last, s.op) == span]
    assert [s.outcome for s in found if s.outcome is None] == [None]
    assert [c.number for c in step.changes] == list(range(step.changes[0].number, step.changes[-1].number + 1))


def assert_true(office: Post, app: ScriptedApp, result: Delivery, ticks: Sequence[int], replay: Replay) -> None:
    tried = {c.number for s in app.steps for c in s.changes}
    assert tried <= ALL
    assert app.sent_again == []
    assert max(app.most_in_flight.values()) <= 2
    assert not +app.now_in_flight
    found = office.statuses()
    event(" ".join(sorted(set(found.values()))))
    assert set(found) == tried  # what was not begun is not in the ledger
    assert Counter(STATUS[o.value] for o in result.outcomes.elements()) == Counter(found.values())
    assert min(result.outcomes.values(), default=0) >= 0
    assert sum(ticks) == len(tried)
    assert (result.error is None) or tried <= ALL
    if result.error is None:
        assert tried == ALL
    for number, status in found.items():
        if status == "sent":
            assert number in app.acked
        elif status == "failed":
            assert app.done[number] == 0, "said to be undone, and was done"
        elif status == "unknown":
            assert number in app.unsure
    if replay in (Replay.NEVER, Replay.LOOKUP):
        assert max(app.done.values(), default=0) <= 1
    else:  # sent again only under the name of the first intent
        for number in tried:
            assert len({s.id for s in app.steps for c in s.changes if c.number == number}) == 1


async def test_full_batches_then_the_rest_and_receipts_in_any_order(post: Any) -> None:
    office: Post = post(operation())
    app = ScriptedApp(["ok"], office.runtime)
    result = await office.deliver(app)
    assert [len(s.changes) for s in app.steps] == [4, 3, 4, 2]
    assert [s.op for s in app.steps] == [Op.CREATE, Op.CREATE, Op.UPDATE, Op.UPDATE]
    assert (result.delivered, result.error, result.errors) == (13, None, [])
    with office.folded() as w:
        assert w.rows("SELECT canonical_key, remote_id FROM oploop.records ORDER BY 1")[0] == ("c000000", "id1")


async def test_one_bad_record_is_found_by_halving_and_the_others_are_sent(post: Any) -> None:
    office: Post = post(operation(batch=8), creates=8, updates=0)
    app = ScriptedApp(["ok"], office.runtime, bad=frozenset({6}))
    result = await office.deliver(app)
    assert (result.delivered, result.rejected) == (7, 1)
    assert result.errors == ["one of them is bad"]
    assert [[c.number for c in s.changes] for s in app.steps] == [
        [*range(1, 9)],
        [1, 2, 3, 4],
        [5, 6, 7, 8],
        [5, 6],
        [5],
        [6],
        [7, 8],
    ]
    assert office.statuses() == {n: "rejected" if n == 6 else "sent" for n in range(1, 9)}


async def test_a_lost_create_under_a_key_is_never_said_to_be_undone(post: Any) -> None:
    # the first answer is lost, the next tries do nothing: a later run must not create it under another key
    office: Post = post(operation(Replay.KEY, batch=1), creates=1, updates=0)
    for rest in (["later"], [("retry",)], ["fix"], ["refused"]):
        app = ScriptedApp(["lost+", *rest], office.runtime)
        result = await office.deliver(app)
        assert (result.unknown, result.failed) == (1, 0), rest
        assert office.statuses() == {1: "unknown"}
        with office.folded() as w:
            assert w.rows("SELECT key, reason FROM oploop.parked") == [("c000000", "unknown")]
            assert office.engine.diff(office.bound).counts == {"parked": 1}


async def test_a_stop_while_a_lost_create_waits_leaves_it_unknown(post: Any) -> None:
    office: Post = post(operation(Replay.KEY, batch=1), creates=2, updates=0)
    app = ScriptedApp(["lost+", "fix"], office.runtime)
    result = await office.deliver(app)
    assert len(app.steps) == 2  # the second was under way when the first waited
    assert (result.unknown, result.failed) == (1, 1)
    assert office.statuses() == {1: "unknown", 2: "failed"}


async def test_a_lost_create_under_a_key_is_sent_again_at_once(post: Any) -> None:
    office: Post = post(operation(Replay.KEY, batch=1), creates=1, updates=0)
    app = ScriptedApp(["lost+", "ok"], office.runtime)
    result = await office.deliver(app)
    assert (result.delivered, [s.id for s in app.steps]) == (1, ["s0001", "s0001"])
    assert office.clock.slept == [0.5]


@pytest.mark.parametrize(("waits", "sends"), [(30.0, 2), (70.0, 1)])
async def test_a_lost_create_is_sent_again_only_while_the_app_knows_its_key(
    post: Any, waits: float, sends: int
) -> None:
    office: Post = post(replace(operation(Replay.KEY, batch=1), ttl=120.0), creates=1, updates=0)
    app = ScriptedApp(["lost+", "ok"], office.runtime)
    app.look = lambda step: setattr(office.clock, "seconds", office.clock.seconds + waits)
    result = await office.deliver(app)
    assert (len(app.steps), result.unknown) == (sends, sends % 2)


async def test_calls_are_told_until_when_the_app_knows_their_key(post: Any) -> None:
    office: Post = post(replace(operation(Replay.KEY, batch=1), ttl=120.0), creates=1, updates=0)
    app = ScriptedApp(["later", "lost+", "ok"], office.runtime)
    told: list[tuple[float, bool]] = []
    app.look = lambda step: told.append((REPEAT_UNTIL.get(), MADE_BEFORE.get()))
    await office.deliver(app)  # a "not now" is a whole call's: the next run sends it
    await office.deliver(app)
    assert (told, office.clock.seconds) == ([(60.0, False), (60.0, False), (60.0, True)], 0.5)
    assert (REPEAT_UNTIL.get(), MADE_BEFORE.get()) == (inf, False)


@pytest.mark.parametrize("replay", [Replay.NEVER, Replay.LOOKUP])
async def test_a_lost_create_that_must_not_be_doubled_stays_unknown(post: Any, replay: Replay) -> None:
    office: Post = post(operation(replay), creates=4, updates=0)
    app = ScriptedApp(["lost+", "ok"], office.runtime)
    result = await office.deliver(app)
    assert (result.unknown, len(app.steps)) == (4, 1)
    with office.folded() as w:
        assert w.rows("SELECT count(*) FROM oploop.parked WHERE reason = 'unknown'") == [(4,)]


async def test_a_locked_record_is_tried_three_times_and_left_for_the_next_run(post: Any) -> None:
    office: Post = post(operation(), creates=3, updates=0)
    app = ScriptedApp([("ok", "retry", "ok"), "later"], office.runtime)
    assert (await office.deliver(app)).failed == 1
    app = ScriptedApp([("ok", "retry", "ok"), ("retry",)], office.runtime)
    result = await office.deliver(app)
    assert [[c.number for c in s.changes] for s in app.steps] == [[1, 2, 3], [2], [2]]
    assert (result.delivered, result.failed, result.errors) == (2, 1, ["locked"])
    assert office.statuses() == {1: "sent", 2: "failed", 3: "sent"}


async def test_a_mistake_of_configuration_stops_the_rest_and_loses_nothing(post: Any) -> None:
    office: Post = post(operation(batch=1, in_flight=3), creates=40, updates=0)
    app = ScriptedApp(["ok"] * 9 + ["fix"], office.runtime)
    result = await office.deliver(app)
    assert isinstance(result.error, FixConfig)
    found = office.statuses()
    assert len(app.steps) == len(found) <= 9 + 3
    assert Counter(found.values())["sent"] == 9
    assert set(found.values()) == {"sent", "failed"}
    assert result.delivered + result.failed == len(found)


async def test_a_spent_quota_ends_the_delivery_and_the_rest_is_deferred(post: Any) -> None:
    office: Post = post(operation(batch=2, in_flight=1), creates=6, updates=0)
    app = ScriptedApp(["ok", "spent"], office.runtime)
    result = await office.deliver(app)
    assert (result.deferred, len(app.steps), office.clock.slept) == (True, 2, [])
    assert result.outcomes == Counter({Outcome.OK: 2, Outcome.DEFERRED: 2}), "two were asked for, two never began"
    assert office.statuses() == {1: "sent", 2: "sent", 3: "deferred", 4: "deferred"}


async def test_what_the_days_quota_keeps_for_others_is_not_used_and_the_rest_is_deferred(post: Any) -> None:
    office: Post = post(operation(batch=2, in_flight=1), creates=10, updates=0)
    app = ScriptedApp(["ok"], office.runtime)
    budget = Budget(office.runtime, calls=100)
    budget.keep_daily = 0.2
    budget.learn_day(DayQuota(100, 22))
    app.transport = Transport("http://127.0.0.1:9", runtime=office.runtime, budget=budget)
    app.look = lambda step: budget.learn_day(DayQuota(100, 22 - len(app.steps)))
    result = await office.deliver(app)
    assert (result.deferred, len(app.steps)) == (True, 2)
    assert office.statuses() == {1: "sent", 2: "sent", 3: "sent", 4: "sent"}, "six never began"


async def test_a_defect_of_an_app_leaves_its_call_unknown(post: Any) -> None:
    office: Post = post(operation(Replay.NEVER), creates=4, updates=0)
    app = ScriptedApp([("no such act",)], office.runtime)
    result = await office.deliver(app)
    assert office.statuses() == dict.fromkeys(range(1, 5), "unknown")
    assert result.error is not None
    assert re.search(
        r"^sending to crm failed: AssertionError: no such act \(activate/script.py:\d+\)", str(result.error)
    )


@pytest.mark.parametrize("replay", [Replay.NEVER, Replay.SAFE])
async def test_after_a_defect_of_an_app_no_further_call_is_made(post: Any, replay: Replay) -> None:
    """It may have done what it failed on, and would fail on all the others too."""
    office: Post = post(replace(operation(replay), batch=1, in_flight=1), creates=5, updates=0)
    app = ScriptedApp(["ok", ("no such act",), "ok"], office.runtime)
    result = await office.deliver(app)
    assert len(app.steps) == 2
    assert office.statuses() == {1: "sent", 2: "unknown"}
    assert isinstance(result.error and result.error.__cause__, AssertionError)


async def test_a_defect_is_told_beside_what_ended_the_delivery_and_not_at_length(post: Any) -> None:
    office: Post = post(operation(Replay.NEVER, batch=1, in_flight=2), creates=2, updates=0)
    app = ScriptedApp(["away", (f"of {'x' * 9_000}\n",)], office.runtime)
    result = await office.deliver(app)
    assert isinstance(result.error, NoAnswer)
    said = next(e for e in result.errors if "AssertionError" in e)
    assert len(said) < 700
    assert "\n" not in said


async def test_what_the_journal_cannot_take_is_not_sent_and_an_answer_that_it_cannot_take_is_unknown(post: Any) -> None:
    for room, sent, unknown in ((0, 0, 0), (1, 1, 4), (2, 1, 0), (3, 2, 4)):  # writes that the disk has room for
        office: Post = post(operation(Replay.NEVER, in_flight=1), creates=8, updates=0)
        left = room

        def write(steps: Sequence[JournalStep], office: Post = office) -> None:
            nonlocal left
            if left == 0:
                raise RetryLater("the disk is full")
            left -= 1
            office.store.write_steps(steps)

        app = ScriptedApp(["ok"], office.runtime)
        result = await office.deliver(app, journal=Journal(write))
        assert (len(app.steps), result.unknown, str(result.error)) == (sent, unknown, "the disk is full"), room
        assert Counter(office.statuses().values()) == Counter(sent=4 * sent - unknown, unknown=unknown)


@pytest.mark.parametrize(
    ("kind", "replay", "most"),
    [
        ("creates", Replay.SAFE, 3),
        ("creates", Replay.KEY, 1),  # its key is no use to a later run, and an app that cannot be read tells nothing
        ("creates", Replay.NEVER, 1),
        ("creates", Replay.LOOKUP, 1),
        ("updates", Replay.KEY, 3),
    ],
)
async def test_intents_go_ahead_of_calls_only_where_they_do_no_harm(
    post: Any, kind: str, replay: Replay, most: int
) -> None:
    """How many a crash would leave unknown whose calls were not made."""
    office: Post = post(operation(replay, batch=1, in_flight=2), **{"creates": 0, "updates": 0, kind: 12})
    app, ahead = ScriptedApp(["ok"], office.runtime), []
    app.look = lambda step: ahead.append(len({s.step_id for s in office.journal()} - {s.id for s in app.steps}))
    await office.deliver(app)
    assert max(ahead) in (most, most - 1)
    assert max(app.most_in_flight.values()) <= 2


async def test_an_intent_whose_call_is_not_made_is_withdrawn(post: Any) -> None:
    office: Post = post(operation(in_flight=1), creates=8, updates=0)
    app, written = ScriptedApp(["fix"], office.runtime), []

    def write(steps: Sequence[JournalStep]) -> None:
        written.extend((s.first, s.withdrawn) for s in steps)
        office.store.write_steps(steps)

    result = await office.deliver(app, journal=Journal(write))
    assert (len(app.steps), result.failed, result.outcomes.total()) == (1, 4, 4)
    assert (5, True) in written
    assert office.statuses() == dict.fromkeys(range(1, 5), "failed")
    assert [s.first for s in office.journal()] == [1]


async def test_an_intent_that_still_waits_for_its_call_when_the_time_is_over_is_counted_as_unknown(post: Any) -> None:
    office: Post = post(operation(in_flight=1), creates=8, updates=0)
    app = ScriptedApp(["silent"], office.runtime)

    async def stop() -> None:
        for _ in range(2_000_000):  # what is loaded for the first time takes its time
            await asyncio.sleep(0)
            if app.steps and len(office.journal()) == 2:
                break
        office.runtime.stop.ask(signal.SIGTERM)

    result, _ = await asyncio.gather(office.deliver(app), stop())
    assert (len(app.steps), result.interrupted, result.unknown) == (1, True, 8)
    assert office.statuses() == dict.fromkeys(range(1, 9), "unknown")


async def test_nothing_is_sent_when_the_journal_cannot_be_written(post: Any) -> None:
    office: Post = post(operation())

    def full(steps: Sequence[JournalStep]) -> None:
        raise OSError("database or disk is full")

    app = ScriptedApp(["ok"], office.runtime)
    with pytest.raises(ExceptionGroup) as e:
        await office.deliver(app, journal=Journal(full))
    assert e.group_contains(OSError, match="disk is full")
    assert app.steps == []


async def test_memory_does_not_grow_with_the_changes(post: Any) -> None:
    office: Post = post(operation(batch=250, in_flight=2), creates=25_000, updates=0)
    used: list[int] = []

    def look(step: Any) -> None:
        used.append(tracemalloc.get_traced_memory()[0])
        app.steps.clear()
        app.acked.clear()
        app.done.clear()

    app = ScriptedApp(["ok"], office.runtime)
    app.look = look
    tracemalloc.start()
    try:
        result = await office.deliver(app)
    finally:
        tracemalloc.stop()
    assert (result.delivered, len(used)) == (25_000, 100)
    assert max(used[75:]) < max(used[10:35]) * 1.2 + 500_000


async def test_an_app_that_cannot_be_reached_is_not_asked_again_step_by_step(post: Any) -> None:
    office: Post = post(operation(batch=1, in_flight=2), 0, 10)
    app = ScriptedApp(["ok", "away"], office.runtime)
    result = await office.deliver(app)
    assert isinstance(result.error, NoAnswer)
    assert len(app.steps) <= 4, "what was under way ends, nothing more begins"
    assert result.delivered == 1
    assert set(office.statuses().values()) == {"sent", "failed"}
    office.run_id = "run7"
    again = await office.deliver(ScriptedApp(["ok"], office.runtime))
    assert (again.error, again.delivered) == (None, 10)
