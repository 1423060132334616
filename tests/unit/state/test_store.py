"""The state store: schema and migrations, runs of dead processes, leases, the journal's rows, and who may look."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import pytest

from oploop.errors import FixConfig, RetryLater
from oploop.records import Op, Outcome
from oploop.runtime import Runtime
from oploop.state import JournalStep, StateReader, StateStore
from oploop.state import postgres as state_of_servers
from oploop.state import store as state_of_files
from oploop.state.sqlite import migrate, open_sqlite
from tests.unit.state.conftest import NOON, Kind


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / ".oploop"


@pytest.fixture
def store(folder: Path) -> Iterator[StateStore]:
    made = StateStore(folder, Runtime(now=lambda: NOON))
    yield made
    made.close()


def schema(db: sqlite3.Connection) -> list[tuple[str, str]]:
    return db.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY 1").fetchall()


def test_the_schema_is_that_of_the_files(store: StateStore) -> None:
    plain = sqlite3.connect(":memory:")
    files = sorted(f.name for f in resources.files("oploop.state").joinpath("sql").iterdir() if f.name.endswith(".sql"))
    assert files[0].startswith("0001_")
    for name in files:
        plain.executescript(resources.files("oploop.state").joinpath("sql", name).read_text())
    opened = sqlite3.connect(store.path)
    assert schema(opened) == schema(plain)
    assert opened.execute("PRAGMA user_version").fetchone() == (len(files),)
    plain.close()
    opened.close()


def test_opening_again_changes_nothing(folder: Path, store: StateStore) -> None:
    store.begin_run("r1", "prod", "oploop run")
    again = StateStore(folder, Runtime())
    assert [r.run_id for r in again.runs()] == ["r1"]
    again.close()


def test_a_state_of_a_newer_oploop_is_left_alone(folder: Path, store: StateStore) -> None:
    store.close()
    db = sqlite3.connect(store.path)
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(FixConfig, match="newer oploop"):
        StateStore(folder, Runtime())


def test_processes_that_start_at_once_share_the_new_state(folder: Path) -> None:
    code = "import sys, pathlib; from oploop.state import StateStore; from oploop.runtime import Runtime\nsys.stdin.readline(); StateStore(pathlib.Path(sys.argv[1]), Runtime()).begin_run(sys.argv[2], 'prod', 'x')"
    starts = [
        subprocess.Popen([sys.executable, "-c", code, str(folder), f"r{n}"], stdin=subprocess.PIPE) for n in range(4)
    ]
    for p in starts:
        assert p.stdin is not None
        p.stdin.write(b"\n")
        p.stdin.close()
    assert [p.wait() for p in starts] == [0] * 4
    reader = StateReader(folder)
    assert {r.run_id for r in reader.runs()} == {"r0", "r1", "r2", "r3"}
    reader.close()


def test_a_migration_that_fails_leaves_nothing_of_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from oploop.state import sqlite as module

    db = open_sqlite(tmp_path / "s", str(tmp_path / "s"))
    migrate(db)
    after = db.execute("PRAGMA user_version").fetchone()[0] + 1
    with pytest.raises(sqlite3.OperationalError):
        module._apply(db, after, "CREATE TABLE more (a);\nCREATE TABLE runs (a);\n")
    assert not db.in_transaction
    assert "more" not in dict(schema(db))
    module._apply(db, after, "CREATE TABLE more (a); -- a comment;\nCREATE TABLE yet (a TEXT DEFAULT ';\n');\n")
    assert {"more", "yet"} <= set(dict(schema(db)))
    assert db.execute("PRAGMA user_version").fetchone() == (after,)
    module._apply(db, after, "CREATE TABLE more (a);")  # done already
    db.close()


def test_only_the_owner_may_look(folder: Path) -> None:
    folder.mkdir(mode=0o755)
    before = os.umask(0)
    try:
        StateStore(folder, Runtime()).close()
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_folder_that_cannot_be_made_and_a_file_that_is_no_state_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(FixConfig, match="state folder"):
        StateStore(tmp_path / "file" / "sub", Runtime())
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "state.sqlite").write_text("this is no database, and long enough to be seen as none" * 20)
    for kind in (lambda: StateStore(tmp_path / "bad", Runtime()), lambda: StateReader(tmp_path / "bad")):
        with pytest.raises(FixConfig, match="state file") as e:
            kind()
        assert "\n" not in str(e.value)


def test_a_reader_reads_what_is_not_there_as_empty_and_never_writes(folder: Path) -> None:
    reader = StateReader(folder)
    assert (reader.runs(), reader.open_deliveries(), reader.lease("warehouse"), reader.run("x")) == ([], [], None, None)
    reader.close()
    assert not folder.exists()
    StateStore(folder, Runtime()).close()
    reader = StateReader(folder)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader._db.execute("DELETE FROM runs")
    reader.close()


def test_runs_come_newest_first_and_are_found_by_their_beginning(both: StateStore) -> None:
    for run_id in ("01A", "01C", "01B"):
        both.begin_run(run_id, "prod", "oploop run")
    both.end_run("01C", "ok", {"seconds": 1.5, "é": None})
    assert [(r.run_id, r.status) for r in both.runs()] == [("01C", "ok"), ("01B", "running"), ("01A", "running")]
    assert [r.run_id for r in both.runs(limit=1)] == ["01C"]
    found = both.run("01C")
    assert found is not None
    assert (found.summary, found.finished_at, found.started_at, found.pid) == (
        {"seconds": 1.5, "é": None},
        NOON,
        NOON,
        os.getpid(),
    )
    assert both.run("02") is None


def dead_process() -> int:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


def test_runs_of_dead_processes_were_interrupted(store: StateStore) -> None:
    store.begin_run("r1", "prod", "oploop run")
    db = sqlite3.connect(store.path)
    db.execute("UPDATE runs SET pid = ?", (dead_process(),))
    db.commit()
    assert store.runs()[0].status == "interrupted"  # seen so at once, noted by the next run
    store.begin_run("r2", "prod", "oploop run")
    assert db.execute("SELECT run_id, status FROM runs ORDER BY 1").fetchall() == [
        ("r1", "interrupted"),
        ("r2", "running"),
    ]
    db.close()


def holder(kind: Kind) -> subprocess.Popen[bytes]:
    """Another process that holds the warehouse and is in the middle of a run."""
    words = [sys.executable, "-m", "tests.unit.state.holder", kind.name, kind.address]
    other = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdout is not None
    assert other.stdout.readline() == b"held\n"
    return other


def end(other: subprocess.Popen[bytes]) -> None:
    other.wait()
    assert other.stdin is not None
    assert other.stdout is not None
    other.stdin.close()
    other.stdout.close()


def test_a_lease_is_held_by_one_living_process(both: StateStore, kind: Kind) -> None:
    other = holder(kind)
    with pytest.raises(RetryLater, match=rf"warehouse is held by oploop run \(pid {other.pid}\) since"):
        both.take_lease("warehouse", "oploop plan")
    lease = both.lease("warehouse")
    assert lease is not None
    assert lease.pid == other.pid
    both.drop_lease("warehouse")  # not ours to drop
    assert both.lease("warehouse") is not None
    assert [r.status for r in both.runs()] == ["running"]
    other.kill()
    until = time.monotonic() + 5
    while both.lease("warehouse") is not None and time.monotonic() < until:
        time.sleep(0.01)
    assert both.lease("warehouse") is None  # dead, although nobody has waited for it: a zombie
    assert [r.status for r in both.runs()] == ["interrupted"]
    both.begin_run("ours", "prod", "oploop run")
    assert [(r.run_id, r.status) for r in both.runs()] == [("ours", "running"), ("other", "interrupted")]
    both.take_lease("warehouse", "oploop plan")
    end(other)
    mine = both.lease("warehouse")
    assert mine is not None
    assert (mine.pid, mine.since) == (os.getpid(), NOON)
    both.take_lease("warehouse", "oploop plan")  # one's own may be taken again
    both.drop_lease("warehouse")
    assert both.lease("warehouse") is None


def test_a_pid_that_was_given_to_another_process_holds_nothing(store: StateStore) -> None:
    store.take_lease("warehouse", "oploop run")
    db = sqlite3.connect(store.path)
    db.execute("UPDATE leases SET pid = 1, started = '12345678901'")
    db.commit()
    db.close()
    assert store.lease("warehouse") is None
    store.take_lease("warehouse", "oploop run")


def step(n: int, **more: object) -> JournalStep:
    fields: dict[str, object] = {"attempt": 1, "op": Op.CREATE, "began_at": NOON} | more
    return JournalStep("r1", "people", f"s{n}", n, n + 3, **fields)  # type: ignore[arg-type]


def test_a_journal_comes_back_as_it_was_written(both: StateStore) -> None:
    steps = [
        step(1),
        step(
            5,
            ended_at=NOON,
            outcome=Outcome.OK,
            version=7,
            exceptions=[(6, "rejected", 'it\'s\n"no" 🚀'), (7, "unknown", None)],
            ids=[(5, "id5")],
        ),
        step(9, attempt=2, outcome=Outcome.UNKNOWN, ended_at=NOON, error="cut", op=Op.UPDATE, note="job 7"),
    ]
    both.write_steps(steps)
    both.write_steps([JournalStep("r1", "other", "s1", 1, 1, 1, Op.UPDATE, NOON)])
    assert both.steps("r1", "people") == steps
    assert both.steps("r2", "people") == []


def test_a_journal_is_read_in_pages_as_often_as_it_is_asked(both: StateStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (state_of_files, state_of_servers):
        monkeypatch.setattr(module, "PAGE", 2)
    assert list(both.journal("r1", "people")) == []
    for n in range(7):
        both.write_steps([step(n), JournalStep("r1", "other", f"s{n}", 1, 1, 1, Op.UPDATE, NOON)])
    both.write_steps([step(n, withdrawn=True) for n in (2, 3, 4)] + [step(0, outcome=Outcome.OK, ended_at=NOON)])
    found = both.journal("r1", "people")
    assert list(found) == both.steps("r1", "people")
    assert [s.first for s in found] == [1, 5, 6, 0]


def test_receipts_replace_intents_and_the_last_to_be_written_comes_last(both: StateStore) -> None:
    first, second = step(1), step(1, attempt=2)
    both.write_steps([first])
    first.outcome, first.ended_at = Outcome.RETRY, NOON
    both.write_steps([first])
    both.write_steps([second])
    assert [(s.attempt, s.outcome) for s in both.steps("r1", "people")] == [(1, Outcome.RETRY), (2, None)]


def test_a_delivery_is_open_until_it_is_folded(both: StateStore) -> None:
    both.begin_delivery("r1", "people", "plan_1")
    both.write_steps([step(1)])
    (open_,) = both.open_deliveries()
    assert (open_.run_id, open_.sync, open_.plan_table, open_.began_at) == ("r1", "people", "plan_1", NOON)
    both.end_delivery("r1", "people")
    assert both.open_deliveries() == []
    assert both.steps("r1", "people") == []
    both.begin_delivery("r1", "people", "plan_2")  # after its canary
    assert [d.plan_table for d in both.open_deliveries()] == ["plan_2"]


def test_a_full_disk_is_said_and_the_store_goes_on_when_there_is_room(store: StateStore) -> None:
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(RetryLater, match=r"cannot be written: .*full — make room on its disk"):
        store.write_steps([step(n, error="x" * 5000) for n in range(20)])
    store._db.execute("PRAGMA max_page_count = 100000")
    assert store.steps("r1", "people") == []
    store.write_steps([step(1)])
    assert len(store.steps("r1", "people")) == 1


def test_commits_reach_the_disk(store: StateStore) -> None:
    assert store._db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    assert store._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
