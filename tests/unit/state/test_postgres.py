"""The state in a server: leases that expire, a process that was stopped for too long, sessions that break."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from oploop.errors import RetryLater, StopRun
from oploop.records import Op
from oploop.runtime import Runtime
from oploop.state import JournalStep, StateStore
from tests.postgres import Cluster
from tests.unit.state.conftest import NOON, Kind, postgres_kind


@pytest.fixture
def server(cluster: Cluster) -> Kind:
    return postgres_kind(cluster)


@pytest.fixture
def store(server: Kind) -> Iterator[StateStore]:
    made = server.open(Runtime(now=lambda: NOON))
    yield made
    made.close()


def ask(server: Kind, sql: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(server.address, autocommit=True) as db:
        done = db.execute(sql)  # type: ignore[call-overload]
        return done.fetchall() if done.description else []


def elsewhere(server: Kind, seconds: float) -> None:
    """All leases are those of another machine, that last said that it lives so long ago."""
    ask(
        server,
        "UPDATE oploop_journal.leases SET owner = 'another', host = 'runner-7/b/c', pid = 1, "
        f"beat_at = clock_timestamp() - interval '{seconds} seconds'",
    )


def test_a_lease_of_another_machine_is_void_when_nobody_keeps_it_up(server: Kind, store: StateStore) -> None:
    store.begin_run("r1", "prod", "oploop run")
    store.take_lease("warehouse", "oploop run")
    elsewhere(server, 50)
    lease = store.lease("warehouse")
    assert str(lease) == "oploop run (on runner-7, pid 1) since 2025-03-01 12:00:00 UTC"
    with pytest.raises(RetryLater, match="on runner-7"):
        store.take_lease("warehouse", "oploop run")
    assert [r.status for r in store.runs()] == ["running"]
    elsewhere(server, 61)
    assert store.lease("warehouse") is None
    assert [r.status for r in store.runs()] == ["interrupted"]
    store.take_lease("warehouse", "oploop run")
    store.begin_run("r2", "prod", "oploop run")
    names = "SELECT name FROM oploop_journal.leases ORDER BY 1"
    assert ask(server, names) == [("run:r2",), ("warehouse",)], "what a dead run left is taken away"
    another = server.open(Runtime(now=lambda: NOON))
    another.begin_run("r3", "dev", "oploop extract")
    another.close()
    assert ask(server, names) == [("run:r2",), ("run:r3",), ("warehouse",)], "one that lives keeps its own"


def test_whoever_holds_a_lease_keeps_it_up(server: Kind) -> None:
    store = server.open(Runtime(), beat=0.05)
    try:
        store.take_lease("warehouse", "oploop run")
        ask(server, "UPDATE oploop_journal.leases SET beat_at = 'epoch'")
        until = time.monotonic() + 5
        while store.lease("warehouse") is None and time.monotonic() < until:
            time.sleep(0.02)
        assert store.lease("warehouse") is not None
    finally:
        store.close()


def a_step(n: int) -> JournalStep:
    return JournalStep("r1", "people", f"s{n}", n, n, 1, Op.CREATE, NOON)


def test_a_process_that_was_stopped_for_too_long_journals_no_intent(server: Kind, store: StateStore) -> None:
    store.take_lease("warehouse", "oploop run")
    store.write_steps([a_step(1)])
    elsewhere(server, 0)
    with pytest.raises(StopRun, match="another has taken warehouse"):
        store.write_steps([a_step(2)])
    assert [s.step_id for s in store.steps("r1", "people")] == ["s1"]
    store.drop_lease("warehouse")  # it is the other's
    assert store.lease("warehouse") is not None
    store.write_steps([a_step(3)])  # what is known of calls already made is still written once the lease is given up


def test_what_an_app_says_is_journalled_whatever_it_holds(store: StateStore) -> None:
    said = a_step(1)
    said.error = "no\0pe 🚀 it's %s ?"
    store.write_steps([said])
    assert store.steps("r1", "people")[0].error == "no\ufffdpe 🚀 it's %s ?"


def test_a_session_that_breaks_is_made_anew(server: Kind, store: StateStore) -> None:
    store.take_lease("warehouse", "oploop run")
    killed = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid() AND usename = current_user"
    )
    ask(server, killed)
    store.write_steps([a_step(1)])
    ask(server, killed)
    with pytest.raises(RetryLater, match="the state in the warehouse cannot be had"):
        store.runs()
    assert store.runs() == []
    assert [s.step_id for s in store.steps("r1", "people")] == ["s1"]


def test_commits_reach_the_servers_disk(server: Kind) -> None:
    ask(server, "ALTER ROLE CURRENT_USER SET synchronous_commit = off")
    try:
        store: Any = server.open(Runtime())
        assert store._session.execute("SHOW synchronous_commit").fetchone() == ("on",)
        store.close()
    finally:
        ask(server, "ALTER ROLE CURRENT_USER RESET synchronous_commit")


def test_a_server_without_a_state_reads_as_empty(server: Kind) -> None:
    reader = server.look()
    assert (reader.runs(), reader.open_deliveries(), reader.lease("warehouse"), reader.run("x")) == ([], [], None, None)
    assert reader.steps("r", "s") == []
    reader.close()
    assert ask(server, "SELECT 1 FROM pg_namespace WHERE nspname = 'oploop_journal'") == []
