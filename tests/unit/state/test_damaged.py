"""The state file as other hands leave it: read as empty, or named in one line."""

from __future__ import annotations

import sqlite3
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
