"""Opening a warehouse: what can be wrong with the file, and who holds it."""

import asyncio
import contextlib
import os
import signal
import sqlite3
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from oploop.errors import FixConfig
from oploop.runtime import Runtime, Terminated, term_as_interrupt
from oploop.warehouse import SqlError, Warehouse, duckdb_file, open_warehouse
from oploop.warehouse.duckdb import PARTS

HOLD = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.read()"


def opened(path: Path, *, read_only: bool = False) -> Warehouse:
    return open_warehouse(path, read_only=read_only, runtime=Runtime())


def refused(path: Path, *, read_only: bool = False) -> str:
    with pytest.raises(FixConfig) as caught:
        opened(path, read_only=read_only)
    assert caught.value.exit_code == 2
    assert caught.value.mend
    assert "\n" not in str(caught.value)
    assert path.name in str(caught.value)
    return str(caught.value)


def test_a_new_warehouse_is_made_with_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "data" / "w.duckdb"
    warehouse = opened(path)
    warehouse.execute("CREATE TABLE t AS SELECT 1 AS a")
    warehouse.close()
    warehouse.close()
    again = opened(path, read_only=True)
    assert again.rows("SELECT a FROM t") == [(1,)]
    again.close()


def test_small_parts_are_joined_once_there_are_many_of_them(tmp_path: Path) -> None:
    """Each process leaves its rows in a part of its own, which `close` would join at once; with `put_off` it does so now and then."""

    def parts(put_off: bool) -> int:
        warehouse = opened(tmp_path / "w.duckdb")
        warehouse.execute("CREATE TABLE IF NOT EXISTS t (a BIGINT, b VARCHAR)")
        warehouse.execute("INSERT INTO t VALUES (1, 'x')")
        if put_off:
            warehouse.put_off("main.t")
        warehouse.close()
        warehouse = opened(tmp_path / "w.duckdb", read_only=True)
        [(found,)] = warehouse.rows("SELECT count(DISTINCT row_group_id) FROM pragma_storage_info('main.t')")
        warehouse.close()
        return int(found)

    assert [parts(put_off=False) for _ in range(3)] == [1, 1, 1]
    assert [parts(put_off=True) for _ in range(PARTS + 1)] == [*range(2, PARTS), 1, 2, 3]


def test_reading_needs_a_warehouse(tmp_path: Path) -> None:
    assert "no warehouse yet" in refused(tmp_path / "w.duckdb", read_only=True)
    assert "oploop extract" in refused(tmp_path / "w.duckdb", read_only=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("read_only", [True, False])
@pytest.mark.parametrize("content", [b"", b"name: acme\n", b"x" * 50_000])
def test_a_file_that_is_no_warehouse_is_left_alone(tmp_path: Path, content: bytes, read_only: bool) -> None:
    path = tmp_path / "w.duckdb"
    path.write_bytes(content)
    assert "is no warehouse" in refused(path, read_only=read_only)
    assert path.read_bytes() == content


def test_a_sqlite_file_is_no_warehouse(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE t (a)")
    db.close()
    assert "is no warehouse" in refused(path)


def test_a_folder_or_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "w.duckdb").mkdir()
    assert "is a directory" in refused(tmp_path / "w.duckdb")
    (tmp_path / "file").write_text("x")
    assert "not a directory" in refused(tmp_path / "file" / "w.duckdb")
    assert "not a directory" in refused(tmp_path / "file" / "sub" / "w.duckdb")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may do everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    opened(path).close()
    path.chmod(0)
    assert "permission denied" in refused(path)


def test_a_newer_and_a_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    opened(path).close()
    whole = path.read_bytes()
    path.write_bytes(whole[:9000])
    assert "is damaged" in refused(path)
    newer = f"Trying to read a database file with version number {struct.calcsize('q')}99, but we can only read ..."
    error = duckdb_file.explain(path, newer, holder=lambda: None, waited=None)
    assert "newer DuckDB" in str(error)
    denied = f'IO Error: Cannot open file "{path}": Permission denied'
    error = duckdb_file.explain(path, denied, holder=lambda: None, waited=None)
    assert error.mend == "give yourself the right to read and write it"


@pytest.fixture
def held(tmp_path: Path) -> Iterator[tuple[Path, subprocess.Popen[str]]]:
    path = tmp_path / "w.duckdb"
    opened(path).close()
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "held\n"
    yield path, process
    process.stdin.close()
    process.wait(10)
    process.stdout.close()


@pytest.mark.parametrize("read_only", [True, False])
def test_who_holds_it_is_said(held: tuple[Path, subprocess.Popen[str]], read_only: bool) -> None:
    path, process = held
    said = refused(path, read_only=read_only)
    assert f"held by process {process.pid}" in said
    assert "--wait" in said
    if Path("/proc/self/cmdline").exists():
        assert "import duckdb" in said  # its command line
        assert "since 20" in said


def test_our_own_state_knows_the_holder_better_unless_it_is_of_another(
    held: tuple[Path, subprocess.Popen[str]],
) -> None:
    path, process = held
    with pytest.raises(FixConfig, match=rf"held by oploop run \(pid {process.pid}\) since 10:02 "):
        open_warehouse(
            path,
            read_only=True,
            runtime=Runtime(),
            holder=lambda: f"oploop run (pid {process.pid}) since 10:02",
        )
    with pytest.raises(FixConfig, match=f"held by process {process.pid}"):
        open_warehouse(path, read_only=True, runtime=Runtime(), holder=lambda: "oploop run (pid 1) since 10:02")


def test_waiting_gets_it_when_it_is_let_go(held: tuple[Path, subprocess.Popen[str]]) -> None:
    path, process = held
    said: list[str] = []
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3 and process.stdin is not None:
            process.stdin.close()
            process.wait(10)

    runtime = Runtime(monotonic=lambda: 0.0, nap=pause)
    warehouse = open_warehouse(path, read_only=False, runtime=runtime, wait=60, on_wait=said.append)
    warehouse.close()
    assert len(pauses) == 3
    assert len(said) == 1
    assert f"process {process.pid}" in said[0]


def test_waiting_ends(held: tuple[Path, subprocess.Popen[str]]) -> None:
    clock = [0.0]

    def pause(seconds: float) -> None:
        clock[0] += seconds

    runtime = Runtime(monotonic=lambda: clock[0], nap=pause)
    with pytest.raises(FixConfig, match=r"\(waited 5 s\)"):
        open_warehouse(held[0], read_only=True, runtime=runtime, wait=5)
    assert clock[0] == pytest.approx(5)


def test_ctrl_c_ends_the_waiting(held: tuple[Path, subprocess.Popen[str]]) -> None:
    async def work() -> None:
        open_warehouse(
            held[0], read_only=True, runtime=Runtime(), wait=30, on_wait=lambda _: signal.raise_signal(signal.SIGINT)
        )

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(work())
    assert time.monotonic() - began < 20, "it went on waiting"


def test_statements(tmp_path: Path) -> None:
    warehouse = opened(tmp_path / "w.duckdb")
    assert warehouse.execute("CREATE TABLE t (a BIGINT, moment TIMESTAMPTZ)") == -1
    assert warehouse.execute("INSERT INTO t SELECT i, '2025-01-01' FROM range(25) r(i)") == 25
    assert warehouse.execute("UPDATE t SET a = a WHERE a < ?", [5]) == 5
    assert warehouse.columns("main.t") == {"a": "BIGINT", "moment": "TIMESTAMP WITH TIME ZONE"}
    assert warehouse.columns("main.nothing") == {}
    assert warehouse.columns("nowhere.t") == {}
    assert warehouse.columns("nowhere.main.t") == {}
    warehouse.execute("CREATE VIEW v AS SELECT 1 AS x")
    assert warehouse.tables() == ["main.t", "main.v"]
    assert [b.num_rows for b in warehouse.stream("SELECT * FROM t", batch_rows=10)] == [10, 10, 5]
    shown = warehouse.query("SELECT a, moment FROM t LIMIT 1")
    assert str(shown.schema.field("moment").type) == "timestamp[us, tz=UTC]"
    warehouse.register("shown", shown)
    assert warehouse.rows("SELECT a FROM shown") == [(0,)]
    warehouse.unregister("shown")
    with pytest.raises(SqlError) as caught:
        warehouse.rows("SELECT nothing FROM t")
    assert "\n" not in str(caught.value)
    assert 'column "nothing" not found' in caught.value.reason
    assert isinstance(caught.value.__cause__, duckdb.BinderException)
    with pytest.raises(SqlError):
        list(warehouse.stream("SELECT CAST('x' AS BIGINT) FROM t"))
    warehouse.close()


def test_times_are_utc_wherever_the_machine_stands(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib\nfrom oploop.warehouse import open_warehouse\nfrom oploop.runtime import Runtime\n"
        "w = open_warehouse(pathlib.Path(sys.argv[1]), read_only=False, runtime=Runtime())\n"
        "print(w.rows(\"SELECT CAST(TIMESTAMPTZ '2025-01-01 00:00:00' AS VARCHAR)\"))\n"
        "print(w.connection.cursor().execute(\"SELECT CAST(TIMESTAMPTZ '2025-01-01 00:00:00' AS VARCHAR)\").fetchall())\n"
        "print([b.to_pylist() for b in w.stream(\"SELECT CAST(TIMESTAMPTZ '2025-01-01' AS VARCHAR) AS a\")])\n"
    )
    env = {**os.environ, "TZ": "America/New_York"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "w.duckdb")], capture_output=True, text=True, env=env, check=True
    )
    assert done.stdout.count("2025-01-01 00:00:00+00") == 3, done.stdout


def test_a_transaction_is_all_or_nothing(tmp_path: Path) -> None:
    warehouse = opened(tmp_path / "w.duckdb")
    warehouse.execute("CREATE TABLE t (a BIGINT PRIMARY KEY)")

    def fail_in_the_middle() -> None:
        with warehouse.transaction(), warehouse.transaction():
            warehouse.execute("INSERT INTO t VALUES (2)")
            raise ZeroDivisionError

    def break_the_key() -> None:
        with warehouse.transaction():
            warehouse.execute("INSERT INTO t VALUES (1)")
            warehouse.execute("INSERT INTO t VALUES (1)")

    with pytest.raises(SqlError):
        break_the_key()
    with pytest.raises(ZeroDivisionError):
        fail_in_the_middle()
    assert warehouse.rows("SELECT * FROM t") == []
    with warehouse.transaction(), warehouse.transaction():
        warehouse.execute("INSERT INTO t VALUES (3)")
    assert warehouse.rows("SELECT * FROM t") == [(3,)]
    warehouse.close()


def test_another_threads_statement_waits_for_the_transaction(tmp_path: Path) -> None:
    warehouse = opened(tmp_path / "w.duckdb")
    warehouse.execute("CREATE TABLE t (a BIGINT)")
    other = threading.Thread(target=lambda: warehouse.execute("INSERT INTO t VALUES (2)"))
    with contextlib.suppress(ZeroDivisionError), warehouse.transaction():
        warehouse.execute("INSERT INTO t VALUES (1)")
        other.start()
        other.join(0.2)
        assert other.is_alive()
        raise ZeroDivisionError
    other.join(10)
    assert warehouse.rows("SELECT * FROM t") == [(2,)]
    warehouse.close()


@pytest.mark.parametrize("asks", ["rows", "stream"])
def test_sigterm_ends_a_statement_that_is_at_work_as_it_ends_all_else(tmp_path: Path, asks: str) -> None:
    """DuckDB tells an error of its own then, which passed for a defect; and what follows works."""
    w = opened(tmp_path / "w.duckdb")
    long = "SELECT max(hash(i)) FROM range(20000000000) t(i)"
    timer = threading.Timer(0.1, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with term_as_interrupt():
        timer.start()
        with pytest.raises(Terminated):
            w.rows(long) if asks == "rows" else list(w.stream(long))
    timer.join()
    w.close()
