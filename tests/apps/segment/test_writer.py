"""The writer against the sandbox: batches by bytes, what Segment would drop, answers that go astray."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import orjson
import pytest

from oploop.apps.sandbox import Fault
from oploop.apps.segment import SegmentApp, SegmentSandbox
from oploop.apps.transport import Refused
from oploop.errors import FixConfig, RetryLater
from oploop.records import Change, Op, Outcome, Receipt, Step
from oploop.runtime import Runtime
from tests.apps.segment.support import app


@pytest.fixture
def sandbox() -> Iterator[SegmentSandbox]:
    made = SegmentSandbox()
    with made.running():
        yield made


@asynccontextmanager
async def writing(sandbox: SegmentSandbox) -> AsyncIterator[tuple[SegmentApp, list[float]]]:
    """The app on a clock that does not wait; how long it would have slept."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    runtime = Runtime(sleep=sleep, monotonic=lambda: sum(slept))
    made = app(write_key="wk_test_oploop", base_url=sandbox.url, runtime=runtime)
    try:
        yield made, slept
    finally:
        await made.aclose()


def tracks(fields: list[dict[str, Any]], *, id: str = "01STEP") -> Step:
    changes = [Change(i, Op.CREATE, {"userId": f"u{i}"}, {"event": "Ranked", **f}) for i, f in enumerate(fields)]
    return Step(id, "ranked", "track", Op.CREATE, changes)


def outcomes(receipts: list[Receipt]) -> dict[int, str]:
    return {r.number: r.outcome.value for r in receipts}


async def test_identify_sends_traits(sandbox: SegmentSandbox) -> None:
    fields = {
        "traits.plan": "pro",
        "traits.spend": Decimal("12.50"),
        "traits.seats": Decimal("40"),
        "traits.vip": True,
        "traits.tags": ["a", "b"],
        "traits.address.city": "Köln 🚀",
        "traits.left": None,
        "traits.since": dt.datetime(2025, 1, 31, 12, tzinfo=dt.UTC),
        "traits.day": dt.date(2025, 1, 31),
        "timestamp": dt.datetime(2025, 2, 1, tzinfo=dt.UTC),
    }
    step = Step("01S", "health", "identify", Op.UPSERT, [Change(7, Op.UPSERT, {"userId": "u7"}, fields)])
    async with writing(sandbox) as (segment, _):
        (receipt,) = await segment.send(step)
    assert (receipt.number, receipt.outcome) == (7, Outcome.OK)
    assert receipt.version is not None
    (event,) = sandbox.dump("identify")
    assert event["messageId"] == "01S:7"
    assert event["userId"] == "u7"
    assert event["originalTimestamp"] == "2025-02-01T00:00:00.000Z"
    assert event["context"]["library"]["name"] == "oploop"
    assert event["traits"] == {
        "plan": "pro",
        "spend": 12.5,
        "seats": 40,
        "vip": True,
        "tags": ["a", "b"],
        "address.city": "Köln 🚀",
        "left": None,
        "since": "2025-01-31T12:00:00Z",
        "day": "2025-01-31",
    }


async def test_as_few_calls_as_the_bytes_allow(sandbox: SegmentSandbox) -> None:
    async with writing(sandbox) as (segment, _):
        receipts = await segment.send(tracks([{"properties.text": "é" * 5_000}] * 200))
        assert segment.transport is not None
        assert segment.transport.calls == 5  # 200 x 10 KB under 500 KB a call
    assert outcomes(receipts) == dict.fromkeys(range(200), "ok")
    assert len(sandbox.dump("track")) == 200


@pytest.mark.parametrize(("more", "calls"), [(0, 1), (1, 2)])
async def test_a_call_is_as_large_as_the_api_takes_it_to_the_byte(
    sandbox: SegmentSandbox, more: int, calls: int
) -> None:
    texts = ["x" * 30_000] * 16
    async with writing(sandbox) as (segment, _):
        await segment.send(tracks([{"properties.t": t} for t in [*texts, ""]], id="00STEP"))
        (whole,) = [len(entry.body) for entry in sandbox.log]
        filled = "x" * (500_000 - whole + more)
        await segment.send(tracks([{"properties.t": t} for t in [*texts, filled]]))
    sizes = [len(entry.body) for entry in sandbox.log][1:]
    assert len(sizes) == calls
    assert (max(sizes) == 500_000) is (more == 0)
    assert sandbox.dump("dropped") == []


async def test_one_call_for_as_many_small_events_as_the_api_takes(sandbox: SegmentSandbox) -> None:
    most = SegmentApp.objects["track"].operations[Op.CREATE].batch
    assert most == 2500
    async with writing(sandbox) as (segment, _):
        receipts = await segment.send(tracks([{"properties.n": i} for i in range(most)]))
        assert segment.transport is not None
        assert segment.transport.calls == 1
        assert len(receipts) == most
        assert [e["properties"]["n"] for e in sandbox.dump("track")] == list(range(most))
        await segment.send(tracks([{"properties.n": i} for i in range(most + 1)], id="02STEP"))
        assert segment.transport.calls == 3
    assert len(sandbox.dump("track")) == 2 * most + 1
    assert sandbox.dump("dropped") == []


async def test_what_segment_would_drop_is_rejected_before_it_is_sent(sandbox: SegmentSandbox) -> None:
    step = Step(
        "01S",
        "ranked",
        "track",
        Op.CREATE,
        [
            Change(0, Op.CREATE, {"userId": "u"}, {"event": "e", "properties.x": "é" * 16_400}),
            Change(1, Op.CREATE, {"userId": None}, {"event": "e"}),
            Change(2, Op.CREATE, {"userId": "u"}, {"event": ""}),
            Change(3, Op.CREATE, {"userId": "u"}, {"event": "e", "properties.x": "\ud800"}),
            Change(4, Op.CREATE, {"userId": "u"}, {"event": "e", "properties.x": 2**70}),
            Change(5, Op.CREATE, {"anonymousId": "a"}, {"event": "fine"}),
        ],
    )
    async with writing(sandbox) as (segment, _):
        receipts = {r.number: r for r in await segment.send(step)}
    assert [receipts[i].outcome.value for i in range(6)] == ["rejected"] * 5 + ["ok"]
    assert "Segment takes 32,768" in str(receipts[0].error)
    assert "userId nor anonymousId" in str(receipts[1].error)
    assert "event (its name)" in str(receipts[2].error)
    assert "JSON" in str(receipts[3].error)
    assert [e["event"] for e in sandbox.dump("track")] == ["fine"]
    assert sandbox.dump("dropped") == []


async def test_a_lost_answer_is_unknown_and_sending_again_makes_no_second_event(sandbox: SegmentSandbox) -> None:
    sandbox.faults.append(Fault("batch", "lose"))
    async with writing(sandbox) as (segment, _):
        assert outcomes(await segment.send(tracks([{}, {}]))) == {0: "unknown", 1: "unknown"}
        assert outcomes(await segment.send(tracks([{}, {}]))) == {0: "ok", 1: "ok"}
        assert outcomes(await segment.send(tracks([{}, {}], id="02STEP"))) == {0: "ok", 1: "ok"}
    assert [e["messageId"] for e in sandbox.dump("track")] == ["01STEP:0", "01STEP:1", "02STEP:0", "02STEP:1"]
    assert len(sandbox.dump("dropped")) == 2  # the repeats, known by messageId


async def test_answers_that_stay_away_leave_unknown_what_was_sent_and_unsent_the_rest(sandbox: SegmentSandbox) -> None:
    sandbox.faults.append(Fault("batch", "lose", skip=1, times=99))
    async with writing(sandbox) as (segment, _):
        receipts = await segment.send(tracks([{"properties.t": "x" * 30_000}] * 40))
    said = outcomes(receipts)
    assert [said[i] for i in range(40)] == ["ok"] * 16 + ["unknown"] * 16 + ["retry"] * 8
    sandbox.faults.clear()
    async with writing(sandbox) as (segment, _):
        assert set(outcomes(await segment.send(tracks([{"properties.t": "x" * 30_000}] * 40))).values()) == {"ok"}
    ids = [e["messageId"] for e in sandbox.dump("track")]
    assert len(ids) == len(set(ids)) == 40


@pytest.mark.parametrize("action", ["empty", "truncate"])
async def test_a_broken_answer_is_a_lost_one(sandbox: SegmentSandbox, action: str) -> None:
    sandbox.faults.append(Fault("batch", action, times=99))
    async with writing(sandbox) as (segment, _):
        assert outcomes(await segment.send(tracks([{}]))) == {0: "unknown"}


async def test_too_many_calls_wait_as_long_as_segment_says(sandbox: SegmentSandbox) -> None:
    sandbox.faults += [
        Fault("batch", "status", status=429, headers={"Retry-After": "7"}),
        Fault("batch", "status", status=429, headers={"X-RateLimit-Reset": "11"}),
    ]
    async with writing(sandbox) as (segment, slept):
        assert outcomes(await segment.send(tracks([{}]))) == {0: "ok"}
    assert sum(slept) >= 18
    assert 7 in [round(s) for s in slept]
    assert 11 in [round(s) for s in slept]


async def test_an_error_of_theirs_is_a_lost_answer(sandbox: SegmentSandbox) -> None:
    sandbox.faults.append(Fault("batch", "status", status=502))
    async with writing(sandbox) as (segment, _):
        assert outcomes(await segment.send(tracks([{}]))) == {0: "unknown"}


async def test_a_refusal_is_told_in_segments_words(sandbox: SegmentSandbox) -> None:
    refusal = Fault("batch", "status", status=400, body='{"success":false,"message":"malformed JSON"}', times=9)
    sandbox.faults.append(refusal)
    async with writing(sandbox) as (segment, _):
        with pytest.raises(Refused, match="malformed JSON"):
            await segment.send(tracks([{}]))
        refusal.skip, refusal.times = 1, 9
        said = outcomes(await segment.send(tracks([{"properties.t": "x" * 30_000}] * 20)))
    assert [said[i] for i in range(20)] == ["ok"] * 16 + ["retry"] * 4


async def test_what_is_not_segment_is_said_so(sandbox: SegmentSandbox) -> None:
    sandbox.faults.append(Fault("batch", "html", times=9))
    async with writing(sandbox) as (segment, _):
        with pytest.raises(FixConfig, match="HTML"):
            await segment.send(tracks([{}]))
        with pytest.raises(FixConfig, match="HTML"):
            await segment.check()


async def test_nobody_there_is_retry_later_and_nothing_was_sent(sandbox: SegmentSandbox) -> None:
    sandbox.stop()
    async with writing(sandbox) as (segment, _):
        with pytest.raises(RetryLater, match="cannot reach"):
            await segment.send(tracks([{}]))


async def test_the_write_key_goes_out_as_the_user_of_basic_auth_and_nowhere_else(sandbox: SegmentSandbox) -> None:
    async with writing(sandbox) as (segment, _):
        await segment.send(tracks([{}]))
        assert "wk_test_oploop" not in repr(segment.config)
    (entry,) = sandbox.log
    assert entry.headers["Authorization"].startswith("Basic ")
    assert b"wk_test_oploop" not in entry.body
    assert orjson.loads(entry.body)["sentAt"].endswith("Z")


async def test_writing_needs_a_write_key(tmp_path: Any) -> None:
    with pytest.raises(FixConfig, match="write_key is not set"):
        await app(tmp_path).send(tracks([{}]))
