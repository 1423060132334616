"""Which files were read, whatever comes late, changes or goes: a cursor that is exact and stays small."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import orjson
import pytest

from oploop.apps import seen as module
from oploop.apps.seen import Seen, day_of
from oploop.apps.storage import File, fingerprint
from oploop.records import Cursor

FIRST = date(2025, 1, 1)


def file(name: str, state: str = "1", modified: float | None = 1000.0) -> File:
    return File(f"/logs/{name}", name, 10, fingerprint(name, 10, state), modified)


def daily(days: int, *leaves: str) -> list[File]:
    return [file(f"src/{FIRST + timedelta(days=i)}/{leaf}") for i in range(days) for leaf in leaves]


def read(files: list[File], cursor: Cursor | None = None, since: datetime | None = None) -> tuple[list[str], Cursor]:
    """The names that a read takes, and the cursor after it."""
    seen = Seen(cursor, files, since)
    found = seen.todo()
    for one in found:
        seen.add(one)
    seen.settle()
    return [f.name for f in found], orjson.loads(orjson.dumps(seen.cursor()))


def test_each_is_read_once_the_oldest_day_first() -> None:
    files = [file("src/2025-01-02/a"), file("loose"), file("src/2025-01-01/b"), file("src/1735689600000/c")]
    names, cursor = read(files)
    assert names == ["src/1735689600000/c", "src/2025-01-01/b", "src/2025-01-02/a", "loose"]
    assert read(files, cursor)[0] == []
    assert read([*files, file("src/2025-01-01/late")], cursor)[0] == ["src/2025-01-01/late"]


def test_old_days_are_closed_and_late_files_in_them_are_found() -> None:
    files = daily(30, "a", "b")
    _, cursor = read(files)
    assert (len(cursor["named"]), len(cursor["closed"])) == (7, 23)
    late = file("src/2025-01-03/late", modified=2000.0)
    assert read([*files, late], cursor)[0] == [late.name]
    sly = file("src/2025-01-03/sly", modified=500.0)
    day = ["src/2025-01-03/a", "src/2025-01-03/b"]
    assert read([*files, sly], cursor)[0] == [*day, sly.name], "it cannot be told from one that was read"
    changed = [file(f.name, "2") if f.name == day[0] else f for f in files]
    assert read(changed, cursor)[0] == day
    gone = [f for f in files if f.name != day[0]]
    assert read(gone, cursor)[0] == [day[1]]


def test_a_flat_folder_is_closed_when_it_has_many_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_NAMED", 5)
    files = [file(f"{i}.gz") for i in range(6)]
    _, few = read(files[:5])
    assert len(few["named"][""]) == 5
    _, many = read(files)
    assert (many["named"], list(many["closed"])) == ({}, [""])
    assert read([*files, file("late.gz", modified=2000.0)], many)[0] == ["late.gz"]


def test_since_leaves_out_days_and_takes_the_cut_one_again_when_it_is_moved_back() -> None:
    files = daily(4, "a")
    since = datetime(2025, 1, 3, 12, tzinfo=UTC)
    names, cursor = read(files, since=since)
    assert names == ["src/2025-01-03/a", "src/2025-01-04/a"]
    assert read(files, cursor, since)[0] == []
    assert read(files, cursor, since - timedelta(days=1))[0] == ["src/2025-01-02/a", "src/2025-01-03/a"]


def test_a_cursor_of_the_middle_of_a_read_loses_nothing() -> None:
    files = daily(12, "a", "b")
    seen = Seen(None, files, None)
    done: set[str] = set()
    for one in seen.todo():
        seen.add(one)
        done.add(one.name)
        rest, _ = read(files, orjson.loads(orjson.dumps(seen.cursor())))
        assert done.isdisjoint(rest)
        assert done.union(rest) == {f.name for f in files}


@pytest.mark.parametrize(
    ("folder", "day"),
    [
        ("x/2025-01-31", "2025-01-31"),
        ("1738281600000", "2025-01-31"),
        ("1738281600", "2025-01-31"),
        ("x", None),
        ("2025-13-01", None),
        ("", None),
        ("12345678", None),
    ],
)
def test_days_by_folders_names(folder: str, day: Any) -> None:
    found = day_of(folder)
    assert (None if found is None else datetime.fromtimestamp(found, UTC).date().isoformat()) == day
