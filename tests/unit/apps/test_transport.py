"""The transport: what is tried again, what is not, and who waits for whom."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import heapq
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oploop.apps.transport import (
    MADE_BEFORE,
    MAX_TRIES,
    REPEAT_UNTIL,
    Answer,
    Budget,
    ConnectError,
    CutError,
    LostAnswer,
    Policy,
    Quota,
    Refused,
    Request,
    Transport,
    Verdict,
    retry_after,
)
from oploop.errors import FixConfig, RetryLater
from oploop.runtime import Interrupted, Runtime, Stop
from tests.unit.activate.script import Clock
from tests.unit.apps.wire import Wire

CUT, UNREACHABLE = CutError("reset"), ConnectError("refused")
TRANSIENT = [408, 500, 502, 503, 504]


@pytest.mark.parametrize("act", [*TRANSIENT, 429, CUT, UNREACHABLE])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_read_is_tried_again_and_in_the_end_put_off(method: str, act: Any) -> None:
    assert (await Wire([act, act, 200]).transport().request(method, "x")).status == 200
    wire = Wire([act])
    with pytest.raises(RetryLater):
        await wire.transport().request(method, "x")
    assert wire.tries == MAX_TRIES
    assert len(wire.clock.slept) == MAX_TRIES - 1


@pytest.mark.parametrize("act", [*TRANSIENT, CUT])
async def test_a_write_that_may_have_been_done_is_not_repeated(act: Any) -> None:
    wire = Wire([act, 200])
    with pytest.raises(LostAnswer):
        await wire.transport().request("POST", "x", json={})
    assert wire.tries == 1


@pytest.mark.parametrize("act", [429, UNREACHABLE, (503, {"retry-after": "1"}, b"")])
async def test_a_write_that_was_certainly_not_done_is_repeated(act: Any) -> None:
    wire = Wire([act, act, 200])
    assert (await wire.transport().request("POST", "x")).status == 200
    with pytest.raises(RetryLater):
        await Wire([act]).transport().request("POST", "x")


@pytest.mark.parametrize("act", [*TRANSIENT, CUT])
async def test_a_write_that_may_be_repeated_is_and_in_the_end_its_outcome_is_unknown(act: Any) -> None:
    assert (await Wire([act, 200]).transport().request("PUT", "x", idempotent=True)).status == 200
    wire = Wire([act])
    with pytest.raises(LostAnswer):
        await wire.transport().request("PUT", "x", idempotent=True)
    assert wire.tries == MAX_TRIES


@pytest.mark.parametrize(("after", "tries"), [("50", 3), ("70", 2)])
async def test_a_write_that_may_have_been_done_is_not_repeated_once_the_app_may_have_forgotten_it(
    after: str, tries: int
) -> None:
    token = REPEAT_UNTIL.set(60.0)
    try:
        wire = Wire([CUT, (429, {"retry-after": after}, b""), 200])
        with contextlib.suppress(LostAnswer):
            assert (await wire.transport().request("POST", "x", idempotent=True)).status == 200
        assert (wire.tries, wire.clock.seconds < 60) == (tries, True)
        waiting = Wire([(429, {"retry-after": after}, b""), 200])
        assert (await waiting.transport().request("POST", "x", idempotent=True)).status == 200  # surely not done
    finally:
        REPEAT_UNTIL.reset(token)


@pytest.mark.parametrize(("after", "tries"), [("50", 2), ("70", 1)])
async def test_a_later_call_for_what_may_have_been_done_is_not_put_off_beyond_that_either(
    after: str, tries: int
) -> None:
    tokens = REPEAT_UNTIL.set(60.0), MADE_BEFORE.set(True)
    try:
        wire = Wire([(429, {"retry-after": after}, b""), 200])
        with contextlib.suppress(RetryLater):
            await wire.transport().request("POST", "x", idempotent=True)
        assert (wire.tries, wire.clock.seconds < 60) == (tries, True)
    finally:
        REPEAT_UNTIL.reset(tokens[0])
        MADE_BEFORE.reset(tokens[1])


@pytest.mark.parametrize("then", [429, UNREACHABLE, 401, 403, 302, (503, {"retry-after": "1"}, b"")])
@pytest.mark.parametrize("first", [CUT, 500])
async def test_what_a_first_try_may_have_done_no_later_one_makes_undone(first: Any, then: Any) -> None:
    with pytest.raises(LostAnswer):
        await Wire([first, then]).transport().request("POST", "x", idempotent=True)
    with pytest.raises(Refused):  # an answer about the request itself settles it
        await Wire([first, 422]).transport().request("POST", "x", idempotent=True)


async def test_a_refusal_is_the_apps_word_and_is_not_repeated() -> None:
    class Vendor(Policy):
        def error(self, answer: Answer) -> tuple[str, str | None]:
            return answer.json()["message"], "E1"

    wire = Wire([(422, {}, b'{"message": "no such field"}')])
    with pytest.raises(Refused, match="no such field") as e:
        await wire.transport(policy=Vendor()).request("GET", "x")
    assert (e.value.status, e.value.code, wire.tries) == (422, "E1", 1)
    assert (await wire.transport(policy=Vendor()).request("GET", "x", ok=(422,))).status == 422


@pytest.mark.parametrize("status", [401, 403])
async def test_refused_credentials_name_their_keys(status: int) -> None:
    class Vendor(Policy):
        def credential(self) -> str:
            return "apps.crm.api_token"

    with pytest.raises(FixConfig, match=r"check apps\.crm\.api_token"):
        await Wire([status]).transport(policy=Vendor()).request("POST", "x")


async def test_the_apps_own_hint_says_when() -> None:
    wire = Wire([(429, {"retry-after": "17"}, b""), (503, {"retry-after": "2.5"}, b""), 200])
    await wire.transport().request("GET", "x")
    assert wire.clock.slept == [17.0, 2.5]

    class Vendor(Policy):
        def verdict(self, answer: Answer) -> Verdict:
            return Verdict(answer.status == 418, 3.0, done=False)

    wire = Wire([418, 200])
    await wire.transport(policy=Vendor()).request("POST", "x")
    assert wire.clock.slept == [3.0]


async def test_without_a_hint_waits_grow_at_random() -> None:
    wire = Wire([500])
    with contextlib.suppress(RetryLater):
        await wire.transport().request("GET", "x")
    assert all(0.1 <= s <= min(30, 0.5 * 2**n) for n, s in enumerate(wire.clock.slept, 1))
    assert len(set(wire.clock.slept)) == len(wire.clock.slept)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Sat, 01 Mar 2025 12:01:30 GMT", "date": "Sat, 01 Mar 2025 12:00:00 GMT"}, 90.0),
        ({"retry-after": "Sat, 01 Mar 2025 12:01:30 GMT"}, None),
        ({"retry-after": "Sat, 01 Mar 2025 11:00:00 GMT", "date": "Sat, 01 Mar 2025 12:00:00 GMT"}, 0.0),
    ],
)
def test_retry_after_is_seconds_or_a_date(headers: Mapping[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


async def test_one_callers_429_holds_all_callers() -> None:
    clock = Clock()
    wire = Wire([(429, {"retry-after": "60"}, b""), 200], clock)
    transport = wire.transport(budget=Budget(clock.runtime(), calls=100))
    first = asyncio.create_task(transport.request("GET", "a"))
    for _ in range(9):
        await asyncio.sleep(0)
    assert clock.slept == [60.0]
    clock.seconds = 1.0  # the first caller sleeps; nobody else may go meanwhile
    await transport.request("GET", "b")
    await first
    assert all(at >= 60 for at, _ in wire.requests[1:])


@dataclass
class Asking(Wire):
    """A wire while which a run is asked to stop, after so many calls."""

    after: int = 1
    stop: Stop = field(default_factory=Stop)

    async def __call__(self, request: Request) -> Answer:
        try:
            return await super().__call__(request)
        finally:
            if self.tries >= self.after:
                self.stop.ask()

    def transport(self, **more: Any) -> Transport:
        return super().transport(runtime=replace(self.clock.runtime(), stop=self.stop), **more)


async def test_a_run_that_is_to_end_waits_for_no_hint_and_says_what_is_known() -> None:
    refused = Asking([(429, {"retry-after": "60"}, b"{}")])
    with pytest.raises(Interrupted):
        await refused.transport().request("POST", "x")
    cut = Asking([CutError("gone")])
    with pytest.raises(LostAnswer, match="interrupted before the answer"):  # it may have been done
        await cut.transport().request("PUT", "x", idempotent=True)
    assert (refused.tries, cut.tries) == (1, 1)


async def test_a_call_that_waits_for_the_budget_when_the_run_is_to_end_is_not_made() -> None:
    wire = Asking([200])
    budget = Budget(replace(wire.clock.runtime(), stop=wire.stop), calls=1, window=60)
    transport = wire.transport(budget=budget)
    await transport.request("POST", "x")
    with pytest.raises(Interrupted):
        await transport.request("POST", "x")
    assert wire.tries == 1


class Timeline:
    """Time that all sleepers share: it moves on to the next waking once nobody has anything left to do."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    async def sleep(self, seconds: float) -> None:
        wake: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.seconds + seconds, len(self._sleepers) + id(wake), wake))
        await wake

    async def run(self, *work: Coroutine[Any, Any, None]) -> None:
        tasks = [asyncio.create_task(w) for w in work]
        while not all(t.done() for t in tasks):
            for _ in range(5):
                await asyncio.sleep(0)
            if self._sleepers:
                self.seconds, _, wake = heapq.heappop(self._sleepers)
                wake.set_result(None)
        await asyncio.gather(*tasks)


@given(st.integers(1, 6), st.lists(st.integers(0, 9), min_size=1, max_size=25), st.sampled_from([1.0, 60.0]))
@settings(database=None, derandomize=True, max_examples=40, deadline=None)
def test_never_more_calls_than_allowed_in_any_window(calls: int, gaps: list[int], window: float) -> None:
    time = Timeline()
    budget = Budget(Runtime(monotonic=lambda: time.seconds, sleep=time.sleep), calls=calls, window=window)
    went: list[float] = []

    async def caller(gap: int) -> None:
        await time.sleep(gap * window / 5)
        await budget.take()
        went.append(time.seconds)

    asyncio.run(time.run(*(caller(g) for g in gaps)))
    assert len(went) == len(gaps)
    for start in went:
        assert sum(start <= t < start + window for t in went) <= calls
    if len(gaps) <= calls:  # nobody waits for nothing
        assert went == sorted(g * window / 5 for g in gaps)


async def test_a_budget_takes_over_the_limit_that_the_app_tells() -> None:
    clock = Clock()
    budget = Budget(clock.runtime(), calls=10, window=60, share=0.5)
    assert budget.calls == 5
    budget.learn(Quota(limit=700))
    assert budget.calls == 350
    budget.learn(Quota(limit=700, remaining=3, reset=42))
    await budget.take()
    assert clock.seconds == 0
    budget.learn(Quota(limit=700, remaining=0, reset=42))
    await budget.take()
    assert clock.seconds == 42
    budget.learn(Quota(limit=1))
    assert budget.calls == 1


async def test_all_headers_of_answers_are_learned_from() -> None:
    class Vendor(Policy):
        def quota(self, answer: Answer) -> Quota:
            return Quota(limit=int(answer.headers["x-limit"]))

    clock = Clock()
    budget = Budget(clock.runtime(), calls=10)
    await (
        Wire([(500, {"x-limit": "44"}, b""), (200, {"x-limit": "33"}, b"")], clock)
        .transport(budget=budget, policy=Vendor())
        .request("GET", "x")
    )
    assert budget.calls == 33


@pytest.mark.parametrize("body", [b"{}", b""])
async def test_an_answer_without_words_is_told_by_its_status_once(body: bytes) -> None:
    with pytest.raises(FixConfig) as e:
        await Asking([(401, {}, body)]).transport().request("GET", "x")
    assert "(HTTP 401)" in str(e.value)


async def test_a_form_and_a_packed_body_go_as_they_are_said() -> None:
    wire = Wire([200])
    transport = wire.transport()
    await transport.request("POST", "x", form={"a": "1 2", "b": "ü"})
    await transport.request("POST", "x", form=[("a[]", "1"), ("a[]", "2")])
    await transport.request("POST", "x", body=b"short", content_type="text/csv", packed=True)
    form, pairs, packed = (request for _, request in wire.requests)
    assert (form.body, pairs.body) == (b"a=1+2&b=%C3%BC", b"a%5B%5D=1&a%5B%5D=2")
    assert form.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert "Content-Encoding" not in form.headers
    assert (packed.headers["Content-Encoding"], packed.headers["Content-Type"]) == ("gzip", "text/csv")
    assert gzip.decompress(packed.body or b"") == b"short"


async def test_parameters_go_as_a_form_would_write_them() -> None:
    wire = Wire([200])
    transport = wire.transport()
    asked: list[Any] = [{"q": "a b&ü", "n": None, "one": 1}, [("one", True), ("one", "1"), ("raw", b"\xff,")], {}]
    for params in asked:
        await transport.request("GET", "x", params=params)
    assert [r.url.partition("/x")[2] for _, r in wire.requests] == [
        "?q=a+b%26%C3%BC&one=1",
        "?one=true&one=1&raw=%FF%2C",
        "",
    ]


async def test_another_host_of_an_account_is_called_with_its_credentials_and_closed_with_it() -> None:
    wire = Wire([200])
    first = Transport(
        "https://api.acme.example", runtime=wire.clock.runtime(), headers={"Authorization": "Bearer t"}, sender=wire
    )
    other = first.beside("https://data.acme.example/v2")
    answer = await other.request("GET", "export")
    assert answer.request.url == "https://data.acme.example/v2/export"
    assert answer.request.headers["Authorization"] == "Bearer t"
    await first.request("GET", "x")
    assert (first.calls, other.calls) == (2, 1)
    with pytest.raises(FixConfig, match="another host"):
        await other.request("GET", "https://api.acme.example/x")
    bare = Transport("https://api.acme.example", runtime=wire.clock.runtime())
    beside = bare.beside("https://data.acme.example")
    assert beside._own is not None
    closed: list[str] = []

    async def close() -> None:
        closed.append("beside")

    beside._own.aclose = close  # type: ignore[method-assign]
    await bare.aclose()
    assert closed == ["beside"]
