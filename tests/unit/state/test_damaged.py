"""The state file as other hands leave it: read as empty, or named in one line."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from oploop.errors import FixConfig
from oploop.runtime import Runtime
from oploop.state import StateReader, StateStore


def test_an_empty_file_reads_as_empty(tmp_path: Path) -> None:
    (tmp_path / "state.sqlite").touch()
    state = StateReader(tmp_path)
    assert state.runs() == []
    assert state.lease("warehouse") is None
    state.close()


def test_a_file_without_its_tables_is_named(tmp_path: Path) -> None:
    StateStore(tmp_path, Runtime()).close()
    with sqlite3.connect(tmp_path / "state.sqlite") as db:
        db.execute("DROP TABLE runs")
    db.close()
    state = StateReader(tmp_path)
    with pytest.raises(FixConfig, match=r"state\.sqlite cannot be read: no such table: runs — restore it"):
        state.runs()
    state.close()


def test_what_an_older_one_wrote_has_no_table_of_what_came_since(tmp_path: Path) -> None:
    StateStore(tmp_path, Runtime()).close()
    with sqlite3.connect(tmp_path / "state.sqlite") as db:
        [version] = db.execute("PRAGMA user_version").fetchone()
        db.execute("DROP TABLE call_times")
        db.execute(f"PRAGMA user_version = {version - 1}")
    db.close()
    state = StateReader(tmp_path)
    assert state.call_times("zendesk", "tickets") == {}
    state.close()


ASKS = """
import sys
from pathlib import Path
from oploop.errors import OploopError
from oploop.runtime import Runtime
from oploop.state import StateReader, StateStore
try:
    {kind}
except OploopError as e:
    print(e)
"""


@pytest.mark.parametrize(
    ("kind", "mode", "said"),
    [
        ("print([r.run_id for r in StateReader(Path(sys.argv[1])).runs()])", 0o500, "['r0']"),
        (
            "StateReader(Path(sys.argv[1]))",
            0o000,
            "cannot be read: Permission denied — give yourself the right to read",
        ),
    ],
)
@pytest.mark.parametrize("died", [False, True])
def test_a_state_that_may_not_be_written_can_be_read(
    tmp_path: Path, kind: str, mode: int, said: str, died: bool
) -> None:
    """Seen by a process that has no right to all, which root's have. `died`: the last to write it could not clean up behind it."""
    drop = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    if drop and shutil.which(drop[0]) is None:
        pytest.skip("root may do everything, and there is no setpriv")
    folder = tmp_path / "state"
    store = StateStore(folder, Runtime())
    store.begin_run("r0", "prod", "oploop run")
    if died:
        folder = Path(shutil.copytree(folder, tmp_path / "left", ignore=shutil.ignore_patterns("*-shm")))
        assert (folder / "state.sqlite-wal").stat().st_size
    store.close()
    for file in folder.iterdir():
        file.chmod(0o400)
    folder.chmod(mode)
    try:
        command = [*drop, sys.executable, "-c", ASKS.format(kind=kind), str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    finally:
        folder.chmod(0o700)
    assert said in done.stdout


@pytest.mark.parametrize(
    "kind", ["StateReader(Path(sys.argv[1]) / 'there')", "StateStore(Path(sys.argv[1]) / 'new', Runtime())"]
)
def test_a_state_on_a_full_disk_is_not_to_be_moved_away(tmp_path: Path, kind: str) -> None:
    """A process that may write no byte more into any file stands for it; a reader keeps a file beside the state too."""
    StateStore(tmp_path / "there", Runtime()).close()
    full = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
    command = [sys.executable, "-c", full + ASKS.format(kind=kind), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "cannot be opened: " in done.stdout
    assert done.stdout.endswith("make room on its disk, then run again\n")


def test_a_state_that_is_damaged_while_it_is_open_is_named_when_it_is_written(tmp_path: Path) -> None:
    store = StateStore(tmp_path, Runtime())
    store.begin_run("r1", "prod", "test")
    store._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    file = tmp_path / "state.sqlite"
    with file.open("r+b") as f:
        f.seek(4096)
        f.write(b"\xff" * (file.stat().st_size - 4096))
    store._db.execute("PRAGMA shrink_memory")
    with pytest.raises(FixConfig, match=r"cannot be written: .* malformed — restore it, or move it away"):
        store.begin_run("r2", "prod", "test")
    store.close()
