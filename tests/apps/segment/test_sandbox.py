"""The sandbox against Segment's documented rules, and with Segment's own library."""

from __future__ import annotations

import base64
import gzip
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
import segment.analytics as library
from segment.analytics.client import Client

from oploop.apps.segment import SegmentApp, SegmentSandbox
from oploop.runtime import Runtime
from tests.apps.segment.support import event, read

BASIC = {"Authorization": "Basic " + base64.b64encode(b"wk_test_oploop:").decode()}


async def post(url: str, body: Any, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    async with aiohttp.ClientSession() as session, session.post(url, data=data, headers=headers or BASIC) as answer:
        return answer.status, await answer.json()


@pytest.mark.parametrize("zipped", [False, True])
async def test_what_segments_own_library_sends_is_read_back(tmp_path: Path, zipped: bool) -> None:
    sandbox = SegmentSandbox(logs=tmp_path)
    with sandbox.running() as url:
        failed: list[Any] = []
        client = Client(
            "wk_test_oploop", host=url, on_error=lambda e, _: failed.append(e), gzip=zipped, upload_interval=0.05
        )
        at = datetime(2025, 1, 31, 12, tzinfo=UTC)
        client.track("u1", "Report Viewed", {"feature": "Ärger 🚀", "n": 3}, timestamp=at, message_id="t1")
        client.identify("u1", {"plan": "pro"})
        client.page("u1", "Docs", "Start", {"url": "https://acme.example/"})
        client.group("u1", "acme", {"seats": 40})
        client.screen("u1", "Phone", "Home")
        client.alias("anon", "u1")
        client.flush()
        client.join()
        assert failed == []
        sandbox.flush()
    track = (await read(tmp_path)).rows[0]
    assert track["messageId"] == "t1"
    assert track["event"] == "Report Viewed"
    assert orjson.loads(track["properties"]) == {"feature": "Ärger 🚀", "n": 3}
    assert abs(track["timestamp"] - at) < timedelta(seconds=5)
    assert track["originalTimestamp"] == at
    assert orjson.loads(track["context"])["library"] == {"name": "analytics-python", "version": library.version.VERSION}
    assert orjson.loads((await read(tmp_path, "identify")).rows[0]["traits"]) == {"plan": "pro"}
    page = (await read(tmp_path, "page")).rows[0]
    assert (page["category"], page["name"]) == ("Docs", "Start")
    assert (await read(tmp_path, "group")).rows[0]["groupId"] == "acme"
    assert (await read(tmp_path, "alias")).rows[0]["previousId"] == "anon"
    assert len((await read(tmp_path, "screen")).rows) == 1


async def test_calls_and_their_answers() -> None:
    sandbox = SegmentSandbox()
    big = {"type": "track", "userId": "u", "event": "e", "properties": {"x": "y" * 33_000}}
    with sandbox.running() as url:
        for kind in ("track", "identify", "page", "screen", "group", "alias"):
            assert await post(f"{url}/v1/{kind}", {"userId": "u", "event": "e"}) == (200, {"success": True})
        assert (await post(f"{url}/v1/track", big))[0] == 400
        assert (await post(f"{url}/v1/track", b"{"))[0] == 400
        assert (await post(f"{url}/v1/batch", {"batch": [big]}))[0] == 400
        assert (await post(f"{url}/v1/batch", {"batch": 7}))[0] == 400
        half = [{**big, "properties": {"x": "y" * 20_000}}] * 30
        assert (await post(f"{url}/v1/batch", {"batch": half}))[0] == 400
        assert await post(f"{url}/v1/batch", {"batch": []}) == (200, {"success": True})
    assert len(sandbox.dump("events")) == 6
    assert sandbox.dump("dropped") == []


def sized(bytes_: int) -> bytes:
    """An event of so many bytes."""
    bare = orjson.dumps({"type": "track", "userId": "u", "event": "e", "x": ""})
    return bare[:-2] + b"y" * (bytes_ - len(bare)) + bare[-2:]


@pytest.mark.parametrize(("one_more", "status"), [(0, 200), (1, 400)])
async def test_sizes_are_held_to_the_byte(one_more: int, status: int) -> None:
    full = [sized(32_000)] * 15
    last = sized(500_000 - len(b'{"batch":[]}') - sum(len(e) + 1 for e in full) + one_more)
    with SegmentSandbox().running() as url:
        assert (await post(f"{url}/v1/batch", b'{"batch":[%s]}' % b",".join([*full, last])))[0] == status
        assert (await post(f"{url}/v1/batch", b'{"batch":[%s]}' % sized(32 * 1024 + one_more)))[0] == status
        assert (await post(f"{url}/v1/track", sized(32 * 1024 + one_more)))[0] == status


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"event": "e"}, "no_user_anon_id"),
        ({"userId": "u"}, "no event name"),
        ({"userId": "u", "event": "e", "type": "tracked"}, "no known type"),
        ({"userId": "u", "event": "e", "messageId": "x" * 100}, "messageId is too long"),
    ],
)
async def test_what_segment_drops_is_answered_200_all_the_same(wrong: dict[str, Any], reason: str) -> None:
    sandbox = SegmentSandbox()
    with sandbox.running() as url:
        good = {"type": "track", "userId": "u", "event": "good"}
        assert (await post(f"{url}/v1/batch", {"batch": [{"type": "track", **wrong}, good]}))[0] == 200
    assert [d["reason"] for d in sandbox.dump("dropped")] == [reason]
    assert [e["event"] for e in sandbox.dump("track")] == ["good"]


async def test_a_batch_over_2500_events_is_dropped_and_answered_200() -> None:
    sandbox = SegmentSandbox()
    one = {"type": "track", "userId": "u", "event": "e"}
    with sandbox.running() as url:
        assert (await post(f"{url}/v1/batch", {"batch": [one] * 2501}))[0] == 200
        assert sandbox.dump("events") == []
        assert (await post(f"{url}/v1/batch", {"batch": [one] * 2500}))[0] == 200
    assert len(sandbox.dump("events")) == 2500


async def test_a_wrong_write_key_is_answered_200_too() -> None:
    sandbox = SegmentSandbox()
    one = {"userId": "u", "event": "e"}
    other = {"Authorization": "Basic " + base64.b64encode(b"wrong:").decode()}
    nobody = {"X-None": "1"}
    with sandbox.running() as url:
        assert (await post(f"{url}/v1/track", one, other))[0] == 200
        assert (await post(f"{url}/v1/track", one, nobody))[0] == 200
        assert sandbox.dump("events") == []
        assert (await post(f"{url}/v1/track", {**one, "writeKey": "wk_test_oploop"}, nobody))[0] == 200
    assert len(sandbox.dump("events")) == 1


async def test_a_message_id_counts_once_a_day() -> None:
    sandbox = SegmentSandbox()
    one = {"userId": "u", "event": "e", "messageId": "m"}
    with sandbox.running() as url:
        for hours in (0, 23, 2):
            sandbox.advance(hours * 3600)
            await post(f"{url}/v1/track", one)
    assert len(sandbox.dump("track")) == 2


async def test_times_are_corrected_as_the_spec_says() -> None:
    now = datetime(2026, 3, 1, 12, tzinfo=UTC)
    sandbox = SegmentSandbox(runtime=Runtime(now=lambda: now))
    with sandbox.running() as url:
        slow_clock = {"timestamp": "2026-03-01T10:59:50.000Z", "sentAt": "2026-03-01T11:00:00.000Z"}
        await post(f"{url}/v1/track", {"userId": "u", "event": "e", **slow_clock})
        await post(f"{url}/v1/track", {"userId": "u", "event": "e"})
    first, second = sandbox.dump("track")
    assert first["timestamp"] == "2026-03-01T11:59:50.000Z"
    assert first["originalTimestamp"] == "2026-03-01T10:59:50.000Z"
    assert first["receivedAt"] == second["receivedAt"] == second["timestamp"] == "2026-03-01T12:00:00.000Z"
    assert second["messageId"].startswith("api-")
    assert second["context"]["library"]["name"] == "unknown"
    assert second["projectId"]


async def test_logs_land_in_segments_layout_when_asked_and_when_many(tmp_path: Path) -> None:
    now = datetime(2026, 3, 1, 12, tzinfo=UTC)
    sandbox = SegmentSandbox(logs=tmp_path, runtime=Runtime(now=lambda: now), flush_every=3)
    with sandbox.running() as url:
        for _ in range(4):
            await post(f"{url}/v1/track", {"userId": "u", "event": "e"})
        assert len(list(tmp_path.rglob("*.gz"))) == 1
        async with aiohttp.ClientSession() as session, session.post(f"{url}/_sandbox/flush") as answer:
            (path,) = (await answer.json())["files"]
    source, day, name = Path(path).relative_to(tmp_path).parts
    assert source
    assert day == str(int(datetime(2026, 3, 1, tzinfo=UTC).timestamp()) * 1000)
    assert name.endswith(".gz")
    assert len(gzip.decompress(Path(path).read_bytes()).splitlines()) == 1
    assert len(sandbox.dump("events")) == 4
    sandbox.reset()
    assert list(tmp_path.rglob("*.gz")) == []


async def test_load_lands_finished_events_out_of_order_and_some_twice(tmp_path: Path) -> None:
    sandbox = SegmentSandbox(logs=tmp_path)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    events = [event(i) | {"receivedAt": (start + timedelta(minutes=i)).isoformat()} for i in range(20_000)]
    sandbox.load("events", events)
    sandbox.load("page", [{"userId": "u", "timestamp": "2026-01-01T00:00:00Z"}])
    landed = sandbox.dump("track")
    ids = [e["messageId"] for e in landed]
    assert len(landed) == 20_020
    assert len(set(ids)) == 20_000
    assert [e["receivedAt"] for e in landed] != sorted(e["receivedAt"] for e in landed)
    assert len(list(tmp_path.rglob("*.gz"))) == 15
    assert len(set((await read(tmp_path)).ids)) == 20_000
    assert len((await read(tmp_path, "page")).rows) == 1


async def test_its_default_config_is_one_the_app_takes(tmp_path: Path) -> None:
    sandbox = SegmentSandbox(logs=tmp_path)
    with sandbox.running() as url:
        segment = SegmentApp("segment", SegmentApp.Config(**SegmentSandbox.default_config(url, tmp_path)), Runtime())
        line = (await segment.check()).line
        await segment.aclose()
    assert "logs: 0 files" in line
    assert "write_key unproven" in line
    assert sandbox.dump("events") == []


def test_unknown_kinds_are_refused() -> None:
    for call in (lambda s: s.load("charges", []), lambda s: s.dump("charges")):
        with pytest.raises(LookupError):
            call(SegmentSandbox())
