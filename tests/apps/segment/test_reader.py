"""The reader over real files: each once, in any order, whatever is wrong with some of them."""

from __future__ import annotations

import asyncio
import gzip
import os
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec
import orjson
import pytest

from oploop.apps import jsonlines, storage
from oploop.apps.seen import MAX_NAMED
from oploop.apps.segment import reader as reading
from oploop.errors import FixConfig
from oploop.records import ReadOptions
from tests.apps.segment.support import FIRST_DAY, app, event, packed, put, read


def opening(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of files that are opened from now on, one after the other."""
    opened: list[str] = []
    real = storage.Store.opened

    def noted(self: storage.Store, file: storage.File) -> Any:
        opened.append(file.path)
        return real(self, file)

    monkeypatch.setattr(storage.Store, "opened", noted)
    return opened


async def test_an_event_becomes_typed_columns_and_its_record(tmp_path: Path) -> None:
    sent = event(1, context={"device": {"type": "ios"}}, sentAt="2025-11-08T10:00:00.5Z", odd={"x": 1})
    put(tmp_path, "a.gz", [{**sent, "writeKey": "wk_secret"}])
    row = (await read(tmp_path)).rows[0]
    assert row["messageId"] == "m1"
    assert row["event"] == "Signed In"
    assert row["timestamp"] == row["receivedAt"] == datetime(2025, 11, 8, 10, 0, 1, tzinfo=UTC)
    assert row["sentAt"].microsecond == 500_000
    assert orjson.loads(row["properties"]) == {"n": 1}
    assert orjson.loads(row["odd"]) == {"x": 1}
    assert row["_version"] == int(row["receivedAt"].timestamp() * 1_000_000)
    assert row["_deleted"] is False
    assert orjson.loads(row["_raw"]) == sent  # without the write key, which is a credential


async def test_each_stream_takes_its_own_type(tmp_path: Path) -> None:
    kinds = ["track", "identify", "page", "group", "screen", "alias"]
    put(tmp_path, "a.gz", [event(i, kind, traits={"type": "track"}) for i, kind in enumerate(kinds)])
    spaced = "".join(f'{{"type": "{k}", "messageId": "s-{k}"}}\n' for k in kinds)
    (tmp_path / "spaced.jsonl").write_text(spaced)
    for i, kind in enumerate(kinds):
        assert (await read(tmp_path, kind)).ids == [f"m{i}", f"s-{kind}"]


async def test_a_file_is_read_once_and_new_ones_whatever_their_order(tmp_path: Path) -> None:
    put(tmp_path, "b.gz", [event(2)], day=1)
    first = await read(tmp_path)
    again = await read(tmp_path, cursor=first.cursor)
    put(tmp_path, "c.gz", [event(3)], day=2)
    put(tmp_path, "a.gz", [event(1)], day=0)
    put(tmp_path, "aa.gz", [event(4)], day=1)
    later = await read(tmp_path, cursor=again.cursor)
    assert (first.ids, again.ids, later.ids) == (["m2"], [], ["m1", "m3", "m4"])
    assert again.batches[-1].complete
    assert (await read(tmp_path, cursor=later.cursor)).ids == []


async def test_a_late_file_in_a_closed_day_is_read_and_only_it(tmp_path: Path) -> None:
    for day in range(30):
        for name in "ab":
            os.utime(put(tmp_path, f"{name}.gz", [event(day * 2 + (name == "b"))], day=day), (1000.0, 1000.0))
    first = await read(tmp_path)
    assert len(first.rows) == 60
    assert len(first.cursor["closed"]) == 23
    assert len(first.cursor["named"]) == 7
    put(tmp_path, "late.gz", [event(1000)], day=3)
    late = await read(tmp_path, cursor=first.cursor)
    assert late.ids == ["m1000"]
    assert (await read(tmp_path, cursor=late.cursor)).ids == []


async def test_a_late_file_with_an_old_time_makes_its_day_be_read_again(tmp_path: Path) -> None:
    for day in range(10):
        os.utime(put(tmp_path, "a.gz", [event(day)], day=day), (1000.0, 1000.0))
    first = await read(tmp_path)
    os.utime(put(tmp_path, "late.gz", [event(1000)], day=1), (500.0, 500.0))
    assert (await read(tmp_path, cursor=first.cursor)).ids == ["m1", "m1000"]


@pytest.mark.parametrize("days", [3, 12], ids=["newest day", "closed day"])
async def test_a_file_that_grew_is_read_again(tmp_path: Path, days: int) -> None:
    for day in range(days):
        put(tmp_path, "a.gz", [event(day)], day=day)
    first = await read(tmp_path)
    put(tmp_path, "a.gz", [event(0), event(500)], day=0)
    assert (await read(tmp_path, cursor=first.cursor)).ids == ["m0", "m500"]


async def test_the_cursor_stays_small_in_one_flat_folder(tmp_path: Path) -> None:
    for i in range(MAX_NAMED + 5):
        (tmp_path / f"{i:05d}.jsonl").write_bytes(orjson.dumps(event(i)))
    first = await read(tmp_path)
    assert len(first.rows) == MAX_NAMED + 5
    assert len(orjson.dumps(first.cursor)) < 300
    late = tmp_path / "late.jsonl"
    late.write_bytes(orjson.dumps(event(9999)))
    later = max(p.stat().st_mtime for p in tmp_path.iterdir()) + 5
    os.utime(late, (later, later))
    assert (await read(tmp_path, cursor=first.cursor)).ids == ["m9999"]


async def test_duplicates_collapse_to_the_one_received_last(tmp_path: Path) -> None:
    put(tmp_path, "a.gz", [event(1), event(2), event(1, receivedAt="2025-11-08T11:00:00Z", userId="later")])
    rows = (await read(tmp_path)).rows
    assert sorted((r["messageId"], r["userId"]) for r in rows) == [("m1", "later"), ("m2", "u2")]


async def test_a_torn_gzip_gives_what_stands_before_the_tear(tmp_path: Path) -> None:
    put(tmp_path, "fine.gz", [event(5000)])
    path = put(tmp_path, "torn.gz", [event(i, noise=uuid4().hex) for i in range(3000)])
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    first = await read(tmp_path)
    assert 1000 < len(first.rows) < 2500
    assert "m5000" in first.ids
    assert len(first.notes) == 1
    assert "torn.gz: damaged or cut off" in first.notes[0]
    path.write_bytes(whole)  # the upload ends
    assert len((await read(tmp_path, cursor=first.cursor)).rows) == 3000


async def test_damage_inside_a_gzip_keeps_the_lines_before_it(tmp_path: Path) -> None:
    path = put(tmp_path, "a.gz", [event(i, noise=uuid4().hex) for i in range(3000)])
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 64] = b"\xff" * 64
    path.write_bytes(bytes(data))
    found = await read(tmp_path)
    assert len(found.rows) > 1000
    assert any("damaged" in note for note in found.notes)


async def test_bad_lines_are_counted_and_the_others_read(tmp_path: Path) -> None:
    lines = [
        orjson.dumps(event(1)),
        b"<html>",
        b'{"type":"track","messageId":"cut',
        b'{"type":"track","userId":"no id"}',
        b"[1, 2]",
        b"",
        b"   ",
        orjson.dumps(event(2)),
    ]
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(lines))
    segment = app(tmp_path)
    ids: list[str] = []
    for stream in ("track", "identify"):
        ids += [i async for b in segment.read(stream, None, ReadOptions()) for i in b.table["messageId"].to_pylist()]
    assert ids == ["m1", "m2"]
    assert segment.notes == [
        "a.json: 2 lines left out: no JSON; the others were read",
        "a.json: 2 lines left out: no event (an object with type and messageId); the others were read",
    ]
    await segment.aclose()


async def test_gzip_members_one_after_the_other_are_one_file(tmp_path: Path) -> None:
    (tmp_path / "a.gz").write_bytes(packed([event(1)]) + packed([event(2)]) + b"\0" * 100)
    found = await read(tmp_path)
    assert found.ids == ["m1", "m2"]
    assert found.notes == []


async def test_unpacked_gz_and_other_names(tmp_path: Path) -> None:
    (tmp_path / "really-plain.gz").write_bytes(orjson.dumps(event(1)))  # S3 unpacks for some clients
    (tmp_path / ".part.gz").write_bytes(b"half")
    (tmp_path / "_SUCCESS").write_bytes(b"")
    (tmp_path / "notes.txt").write_bytes(b"not a log")
    (tmp_path / "empty.gz").write_bytes(b"")
    found = await read(tmp_path)
    assert (found.ids, found.notes) == (["m1"], [])


async def test_any_filesystem_does(tmp_path: Path) -> None:
    root = f"memory://bucket-{uuid4().hex}/segment-logs"
    fs, path = fsspec.url_to_fs(root)
    fs.pipe(f"{path}/src1/{FIRST_DAY}/a.gz", packed([event(1)]))
    first = await read(root)
    fs.pipe(f"{path}/src1/{FIRST_DAY}/b.gz", packed([event(2)]))
    later = await read(root, cursor=first.cursor)
    assert (first.ids, later.ids) == (["m1"], ["m2"])


async def test_since_skips_days_and_events_and_can_be_moved_back(tmp_path: Path) -> None:
    for day in range(4):
        put(tmp_path, "a.gz", [event(day, receivedAt=f"2025-11-{8 + day:02d}T10:00:00Z")], day=day)
    since = ReadOptions(since=datetime(2025, 11, 10, 12, tzinfo=UTC))
    first = await read(tmp_path, options=since)
    assert first.ids == ["m3"]
    moved = ReadOptions(since=datetime(2025, 11, 9, tzinfo=UTC))
    back = await read(tmp_path, cursor=first.cursor, options=moved)
    assert back.ids == ["m1", "m2"]
    assert (await read(tmp_path, cursor=back.cursor)).ids == ["m0", "m1"]  # the day that was cut, again


async def test_excluded_fields_leave_the_record_too(tmp_path: Path) -> None:
    put(tmp_path, "a.gz", [event(1, context={"ip": "10.0.0.1"})])
    row = (await read(tmp_path, options=ReadOptions(exclude=frozenset({"context"})))).rows[0]
    assert "context" not in row
    assert "10.0.0.1" not in row["_raw"]


async def test_times_that_are_missing_or_strange(tmp_path: Path) -> None:
    odd = event(1, receivedAt="yesterday", timestamp="2025-11-08T10:00:00.123456789Z")
    put(tmp_path, "a.gz", [odd, event(2)])
    rows = {r["messageId"]: r for r in (await read(tmp_path)).rows}
    assert rows["m1"]["receivedAt"] is None
    assert rows["m1"]["_version"] == int(datetime(2025, 11, 8, 10, tzinfo=UTC).timestamp()) * 1_000_000 + 123_456
    assert orjson.loads(rows["m1"]["_raw"])["receivedAt"] == "yesterday"


async def test_every_cursor_on_the_way_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "BATCH_ROWS", 4)
    for day in range(12):
        put(tmp_path, "a.gz", [event(day * 10 + i) for i in range(3)], day=day)
    whole = await read(tmp_path)
    assert len([b for b in whole.batches if b.cursor]) > 3
    seen: set[str] = set()
    for batch in whole.batches:
        seen |= set(batch.table["messageId"].to_pylist())
        if batch.cursor is not None:
            rest = await read(tmp_path, cursor=orjson.loads(orjson.dumps(batch.cursor)))
            assert seen | set(rest.ids) == set(whole.ids)
            assert not seen & set(rest.ids)


async def test_a_large_file_is_streamed_and_reads_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "a.gz", [event(i) for i in range(5000)])
    monkeypatch.setattr(reading, "WHOLE_UP_TO", 100)
    monkeypatch.setattr(storage, "WHOLE_UP_TO", 10_000)
    monkeypatch.setattr(jsonlines, "PIECE_BYTES", 50_000)
    monkeypatch.setattr(jsonlines, "MAX_BLOCK", 30_000)
    monkeypatch.setattr(reading, "BATCH_ROWS", 500)
    found = await read(tmp_path)
    assert len(found.rows) == 5000
    assert len(found.batches) > 5
    assert [b.cursor is None for b in found.batches[:5]] == [True] * 5  # no safe point inside a file


async def test_streams_side_by_side_unpack_a_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for day in range(5):
        put(tmp_path, "a.gz", [event(day * 2), event(day * 2 + 1, "identify")], day=day)
    opened = opening(monkeypatch)
    segment = app(tmp_path)

    async def rows(stream: str) -> int:
        return sum([b.table.num_rows async for b in segment.read(stream, None, ReadOptions())])

    assert await asyncio.gather(rows("track"), rows("identify")) == [5, 5]
    assert len(opened) == 5
    await segment.aclose()


@pytest.mark.parametrize("whole_up_to", [2**20, 0], ids=["fetched whole", "streamed"])
async def test_a_file_that_goes_away_is_noted_and_read_if_it_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole_up_to: int
) -> None:
    monkeypatch.setattr(reading, "WHOLE_UP_TO", whole_up_to)
    monkeypatch.setattr(storage, "WHOLE_UP_TO", whole_up_to)
    gone = put(tmp_path, "a.gz", [event(1)])
    put(tmp_path, "b.gz", [event(2)])
    data = gone.read_bytes()
    segment = app(tmp_path)
    assert segment._reader is not None
    listed = segment._reader.logs()
    gone.unlink()
    segment._reader.logs = lambda: listed  # type: ignore[method-assign]
    batches = [b async for b in segment.read("track", None, ReadOptions())]
    assert [r["messageId"] for b in batches for r in b.table.to_pylist()] == ["m2"]
    assert "a.gz: listed, and not there when it was to be read" in segment.notes[0]
    again = app(tmp_path)
    assert again._reader is not None
    again._reader.logs = lambda: listed  # type: ignore[method-assign]
    batches = [b async for b in again.read("track", batches[-1].cursor, ReadOptions())]
    assert (sum(b.table.num_rows for b in batches), again.notes) == (0, []), "it is told once"
    for each in (segment, again):
        await each.aclose()
    gone.write_bytes(data)
    assert (await read(tmp_path, cursor=batches[-1].cursor)).ids == ["m1"]


async def test_leaving_a_read_early_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "BATCH_ROWS", 2)
    for day in range(9):
        put(tmp_path, "a.gz", [event(day)], day=day)
    segment = app(tmp_path)
    batches = segment.read("track", None, ReadOptions())
    await anext(batches)
    await batches.aclose()
    await segment.aclose()
    await asyncio.sleep(0.05)
    assert len(asyncio.all_tasks()) == 1


async def test_leaving_a_large_file_early_closes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "a.gz", [event(i) for i in range(5000)])
    monkeypatch.setattr(reading, "WHOLE_UP_TO", 0)
    monkeypatch.setattr(jsonlines, "PIECE_BYTES", 50_000)
    monkeypatch.setattr(jsonlines, "MAX_BLOCK", 30_000)
    monkeypatch.setattr(reading, "BATCH_ROWS", 100)
    segment = app(tmp_path)
    batches = segment.read("track", None, ReadOptions())
    await anext(batches)
    assert any(t.name.startswith("segment") for t in threading.enumerate())
    await batches.aclose()
    assert not any(t.name.startswith("segment") for t in threading.enumerate())
    await segment.aclose()


async def test_files_are_unpacked_ahead_while_one_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "BATCH_ROWS", 2)
    for day in range(9):
        put(tmp_path, "a.gz", [event(day)], day=day)
    opened = opening(monkeypatch)
    segment = app(tmp_path)
    batches = segment.read("track", None, ReadOptions())
    await anext(batches)  # while the first file is in hand
    await asyncio.sleep(0.2)
    assert len(opened) == 1 + reading.AHEAD
    await batches.aclose()
    await segment.aclose()


async def test_an_empty_folder_is_read_in_full(tmp_path: Path) -> None:
    found = await read(tmp_path)
    assert found.rows == []
    assert found.batches[-1].complete
    assert "receivedAt" in found.batches[-1].table.column_names


async def test_doctor_names_logs(tmp_path: Path) -> None:
    put(tmp_path, "a.gz", [event(1)])
    assert (await app(tmp_path).check()).line == "logs: 1 files, newest of 2025-11-08"
    for url, said in [(tmp_path / "nowhere", "nothing at"), ("nosuchthing://x", "cannot list")]:
        with pytest.raises(FixConfig, match=said) as e:
            await app(url).check()
        assert "logs" in str(e.value)


async def test_a_password_in_the_url_is_not_shown() -> None:
    with pytest.raises(FixConfig) as e:
        await read(f"memory://me:hunter2@nowhere-{uuid4().hex}/x")
    assert "hunter2" not in str(e.value)


def test_one_of_logs_and_write_key_is_needed() -> None:
    with pytest.raises(ValueError, match="needs logs"):
        app()


async def test_reading_needs_logs() -> None:
    with pytest.raises(FixConfig, match="logs is not set"):
        [b async for b in app(write_key="wk").read("track", None, ReadOptions())]


def test_gzip_of_the_helper_is_real() -> None:
    assert gzip.decompress(packed([event(1)])).endswith(b"\n")
