"""What the ledger lets go of, and what it never does."""

from __future__ import annotations

from datetime import datetime, timedelta

from oploop.activate import states
from oploop.activate.retention import retain
from oploop.project import Retention
from tests.unit.activate.engine import T0, Engine
from tests.unit.activate.test_states import World

DAY = timedelta(days=1)
KEEP = Retention(changes=DAY.total_seconds(), held=DAY.total_seconds(), runs=DAY.total_seconds())
LATE = T0 + 30 * DAY


def runs_of(world: World) -> list[str]:
    return [r for (r,) in world.w.rows("SELECT DISTINCT run_id FROM oploop.change_log ORDER BY 1")]


def test_only_the_last_change_of_each_record_outlives_its_time(engine: Engine) -> None:
    world = World(engine)
    tiers, notes = world.sync("tiers", "tier", others=["notes"]), world.sync("notes", "note", others=["tiers"])
    world.sends(tiers, 10)
    world.sends(notes, 20)
    world.shows(21)
    world.wants(("lead", 1, "hi"), ("iron", 2, "ho"))
    world.sends(tiers, 30)  # of one record only
    world.w.execute(
        "INSERT INTO oploop.parked (sync, app, object, key, reason, run_id, noted_at) VALUES ('notes', 'crm', 'people', 'x', 'unknown', 'r9', ?)",
        (T0,),
    )
    retain(world.w, Retention(), LATE)
    assert world.w.rows("SELECT count(*) FROM oploop.change_log") == [(5,)]
    retain(world.w, KEEP, T0 + timedelta(seconds=40))  # all of it is of today
    assert world.w.rows("SELECT count(*) FROM oploop.change_log") == [(5,)]
    retain(world.w, KEEP, LATE)
    rows = world.w.rows("SELECT run_id, sync, key FROM oploop.changes ORDER BY 1, 3")
    assert rows == [("r1", "tiers", "b@x"), ("r2", "notes", "a@x"), ("r2", "notes", "b@x"), ("r3", "tiers", "a@x")]
    assert world.w.rows("SELECT count(*) FROM oploop.change_outcomes") == [(4,)]
    world.w.execute(f"DELETE FROM {states.state_table(tiers)} WHERE sync = 'tiers'")
    retain(world.w, KEEP, LATE)
    assert runs_of(world) == ["r2"]
    assert world.counts(notes) == {}


def test_a_change_that_is_parked_stays(engine: Engine) -> None:
    world = World(engine)
    tiers = world.sync("tiers", "tier")
    world.sends(tiers, 10)
    world.w.execute(f"DELETE FROM {states.state_table(tiers)}")
    world.w.execute(
        "INSERT INTO oploop.parked (sync, app, object, key, reason, run_id, noted_at) VALUES ('tiers', 'crm', 'people', 'b@x', 'unknown', 'r1', ?)",
        (T0,),
    )
    retain(world.w, KEEP, LATE)
    assert world.w.rows("SELECT key FROM oploop.changes") == [("b@x",)]


def test_runs_and_held_rows(engine: Engine) -> None:
    w = engine.warehouse

    def ran(run_id: str, sync: str, obj: str, status: str, at: datetime) -> None:
        w.execute(
            "INSERT INTO oploop.sync_runs (run_id, sync, object, status, noted_at) VALUES (?, ?, ?, ?, ?)",
            (run_id, sync, obj, status, at),
        )
        w.execute(
            "INSERT INTO oploop.runs (run_id, environment, status, finished_at) VALUES (?, 'prod', ?, ?)",
            (run_id, status, at),
        )
        w.execute(
            "INSERT INTO oploop.held_log (run_id, sync, key, reason, noted_at) VALUES (?, ?, 'k', 'why', ?)",
            (run_id, sync, at),
        )

    ran("r1", "a", "crm.people", "ok", T0)
    ran("r2", "a", "crm.people", "ok", T0 + DAY)
    ran("r3", "a", "crm.people", "stopped", T0 + 2 * DAY)
    ran("r4", "b", "crm.people", "stopped", T0 + 2 * DAY)
    ran("r5", "c", "crm.deals", "stopped", LATE)
    retain(w, KEEP, LATE)
    assert w.rows("SELECT run_id FROM oploop.sync_runs ORDER BY 1") == [("r2",), ("r3",), ("r4",), ("r5",)]
    assert w.rows("SELECT run_id FROM oploop.held_log ORDER BY 1") == [("r3",), ("r4",), ("r5",)]
    assert w.rows("SELECT run_id FROM oploop.runs") == [("r5",)]
