"""Messages at most once; Slack's no in its words; a channel's limit; notices."""

from __future__ import annotations

import asyncio

import pytest

from oploop.apps.sandbox import Fault
from oploop.apps.transport import LostAnswer, Refused
from oploop.errors import FixConfig, RetryLater
from oploop.records import Notice, Outcome, Pace
from oploop.runtime import Runtime
from tests.apps.slack.support import bench, message


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"channel": "#nowhere", "text": "x"}, "channel_not_found: there is no such channel"),
        ({"channel": "#old", "text": "x"}, "is_archived"),
        ({"channel": "#secret", "text": "x"}, "invite it there"),
        ({"channel": "#ops", "text": None}, "no_text"),
        ({"channel": "#ops", "text": "x" * 40_001}, "msg_too_long"),
        ({"channel": "#ops", "blocks": [{"no": "type"}]}, "invalid_blocks"),
    ],
)
async def test_a_no_is_the_rows(fields: dict[str, object], said: str) -> None:
    async with bench() as (box, app):
        box.load("channels", [{"id": "C0OLD00001", "name": "old", "is_archived": True}])
        box.load("channels", [{"id": "C0SECRET01", "name": "secret", "is_member": False}])
        with pytest.raises(Refused, match=said):
            await app.send(message(**fields))
        assert box.dump("messages") == []


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ('{"ok": false, "error": "service_unavailable"}', RetryLater),
        ('{"ok": false, "error": "rate_limited"}', RetryLater),
        ('{"ok": false, "error": "fatal_error"}', LostAnswer),
        ('{"ok": false, "error": "internal_error"}', LostAnswer),
        ('{"ok": false, "error": "token_revoked"}', FixConfig),
        ("<html>", LostAnswer),
        ("[]", LostAnswer),
        ('{"ok": false, "error": "something_new"}', Refused),
    ],
)
async def test_what_an_answer_means_for_a_message(answer: str, error: type[Exception]) -> None:
    async with bench() as (box, app):
        box.faults.append(Fault("POST /chat.postMessage", "status", status=200, body=answer, times=9))
        with pytest.raises(error):
            await app.send(message(channel="#ops", text="x"))
        assert len(box.log) == 1, "not tried again here"


@pytest.mark.parametrize("action", ["lose", "cut", "status"])
async def test_a_message_whose_answer_is_lost_is_not_sent_again(action: str) -> None:
    async with bench() as (box, app):
        box.faults.append(Fault("POST /chat.postMessage", action, status=500))
        with pytest.raises(LostAnswer):
            await app.send(message(channel="#ops", text="x"))
        assert len(box.log) == 1


async def test_a_missing_scope_is_named() -> None:
    async with bench(scopes=frozenset({"users:read"})) as (_, app):
        with pytest.raises(FixConfig, match=r"scope chat:write that chat\.postMessage needs"):
            await app.send(message(channel="#ops", text="x"))


async def test_a_channel_gets_a_message_a_second_and_others_do_not_wait_for_it() -> None:
    now = 0.0

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        box.advance(seconds)
        await asyncio.sleep(0)

    runtime = Runtime(monotonic=lambda: now, sleep=sleep)
    async with bench(runtime, {"messages_per_second": 1}, messages_per_second=1) as (box, app):
        for n in range(5):
            await app.send(message(n, channel="#ops", text=f"{n}"))
        assert 4 <= now < 5
        await app.send(message(9, channel="#general", text="at once"))
        assert now < 5
        assert {e.status for e in box.log} == {200}


async def test_a_message_goes_to_a_person_too_and_its_id_names_both() -> None:
    async with bench() as (box, app):
        box.load("users", [{"id": "U00000007", "email": "z@acme.example"}])
        [receipt] = await app.send(message(channel="U00000007", text="hi"))
        [stored] = box.dump("messages")
        assert (receipt.outcome, receipt.remote_id) == (Outcome.OK, f"{stored['channel']}:{stored['ts']}")
        assert stored["channel"] == "D00000007"


async def test_a_notice_is_mere_text_and_not_too_long() -> None:
    async with bench() as (box, app):
        await app.notify("#ops", Notice("a & b", ["<!channel> is no mention", *["x" * 100] * 100]))
        [stored] = box.dump("messages")
        assert stored["text"].startswith("*a &amp; b*\n• &lt;!channel&gt; is no mention\n• xxx")
        assert len(stored["text"]) < 4_000
        assert stored["text"].endswith("more")


async def test_a_plan_knows_the_limit_of_each_channel() -> None:
    async with bench(config={"messages_per_second": 3}) as (_, app):
        [operation] = app.objects["messages"].operations.values()
    assert operation.pace == Pace("channel", 3, 1.0)
