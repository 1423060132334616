"""The transport: what is tried again, what is not, who waits for whom, and where credentials go."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from yarl import URL

from oploop.apps.transport import (
    MADE_BEFORE,
    MAX_TRIES,
    REPEAT_UNTIL,
    AiohttpSender,
    Answer,
    Budget,
    ConnectError,
    CutError,
    LostAnswer,
    NotTheApi,
    Policy,
    Quota,
    Refused,
    Request,
    Transport,
    Verdict,
    check_origin,
    is_loopback,
    proxy_of,
    retry_after,
)
from oploop.errors import FixConfig, OploopError, RetryLater
from oploop.runtime import Interrupted, Runtime, Stop
from tests.unit.activate.script import Clock

BASE = "http://127.0.0.1:9/api"
SECRET = "sk_live_51H8xYzAbCdEf"


@dataclass
class Wire:
    """A sender that follows a script of statuses, answers and exceptions (the last one for ever), on a simulated clock."""

    script: list[Any]
    clock: Clock = field(default_factory=Clock)
    requests: list[tuple[float, Request]] = field(default_factory=list)

    async def __call__(self, request: Request) -> Answer:
        act = self.script[min(len(self.requests), len(self.script) - 1)]
        self.requests.append((self.clock.seconds, request))
        await asyncio.sleep(0)
        if isinstance(act, Exception):
            raise act
        status, headers, body = act if isinstance(act, tuple) else (act, {}, b"{}")
        return Answer(status, headers, body, request)

    def transport(self, **more: Any) -> Transport:
        headers = {"Authorization": f"Bearer {SECRET}", "X-Api-Key": SECRET + "2", "X-Plain": "plain words"}
        return Transport(BASE, **({"runtime": self.clock.runtime(), "sender": self, "headers": headers} | more))

    @property
    def tries(self) -> int:
        return len(self.requests)


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


# -- where requests go ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "url"),
    [
        ("x", "http://127.0.0.1:9/api/x"),
        ("/x", "http://127.0.0.1:9/api/x"),
        ("search?q=http://other/", "http://127.0.0.1:9/api/search?q=http://other/"),
        ("values:batch", "http://127.0.0.1:9/api/values:batch"),
        ("//evil.example/x", "http://127.0.0.1:9/api/evil.example/x"),
        ("http://127.0.0.1:9/api/next?page=2", "http://127.0.0.1:9/api/next?page=2"),
        ("HTTP://127.0.0.1:9/next", "HTTP://127.0.0.1:9/next"),
    ],
)
def test_paths_are_below_the_base_address(path: str, url: str) -> None:
    assert Wire([200]).transport().url(path) == url


def test_parameters_are_quoted_and_none_is_left_out() -> None:
    url = Wire([200]).transport().url("x?a=1", {"b": "é & ü", "c": None, "d": 2})
    assert url == "http://127.0.0.1:9/api/x?a=1&b=%C3%A9+%26+%C3%BC&d=2"
    assert Wire([200]).transport().url("x", [("e[]", "1"), ("e[]", "2")]).endswith("x?e%5B%5D=1&e%5B%5D=2")


ELSEWHERE = [
    "http://127.0.0.1:10/api/x",
    "https://127.0.0.1:9/api/x",
    "http://127.0.0.2:9/x",
    "http://localhost:9/x",
    "http://evil.example/x",
    "https://evil.example/x",
    "http://127.0.0.1:9@evil.example/x",
    "http://127.0.0.1:9\\@evil.example/x",
    "http://evil.example\\@127.0.0.1:9/x",
    "ftp://127.0.0.1:9/x",
    "file:///etc/passwd",
]


@pytest.mark.parametrize("url", ELSEWHERE)
async def test_credentials_do_not_leave_the_origin(url: str) -> None:
    wire = Wire([200])
    with pytest.raises(FixConfig):
        await wire.transport().request("GET", url)
    assert wire.tries == 0
    for status in (301, 302, 307, 308):
        wire = Wire([(status, {"location": url}, b"")])
        with pytest.raises(FixConfig):
            await wire.transport().request("GET", "x")
        assert wire.tries == 1


@pytest.mark.parametrize("location", ["//evil.example/x", "https:///x", ""])
async def test_odd_redirects_stay_or_are_refused(location: str) -> None:
    wire = Wire([(302, {"location": location}, b"")])
    with pytest.raises(FixConfig):
        await wire.transport().request("GET", "x")
    assert {check_origin(r.url) for _, r in wire.requests} == {("http", "127.0.0.1", 9)}


async def test_redirects_within_the_origin_are_followed_and_counted() -> None:
    clock = Clock()
    wire = Wire([(302, {"location": "/other"}, b""), (307, {"location": "y"}, b""), 200], clock)
    transport = wire.transport(budget=Budget(clock.runtime(), calls=1, window=60))
    await transport.request("GET", "x")
    assert [r.url for _, r in wire.requests] == [
        "http://127.0.0.1:9/api/x",
        "http://127.0.0.1:9/other",
        "http://127.0.0.1:9/y",
    ]
    assert transport.calls == 3
    assert [int(t) for t, _ in wire.requests] == [0, 60, 120]
    loop = Wire([(302, {"location": "x"}, b"")])
    with pytest.raises(NotTheApi):
        await loop.transport().request("GET", "x")
    assert loop.tries == 6


async def test_a_redirected_write_is_no_write() -> None:
    wire = Wire([(302, {"location": "/other"}, b"")])
    with pytest.raises(NotTheApi):
        await wire.transport().request("POST", "x", json={})
    assert wire.tries == 1


@pytest.mark.parametrize(
    "url",
    [
        "http://acme.example",
        "http://10.0.0.7",
        "http://localhost.evil.example",
        "http://0.0.0.0",
        "ws://x",
        "acme.example",
        "",
        "https://",
    ],
)
def test_plain_http_is_for_this_machine_only(url: str) -> None:
    with pytest.raises(FixConfig):
        Transport(url, runtime=Runtime())


@pytest.mark.parametrize(
    "url", ["http://localhost:1", "http://127.0.0.1", "http://127.8.9.1", "http://[::1]:5", "https://acme.example/x"]
)
def test_https_and_loopback_are_taken(url: str) -> None:
    assert check_origin(url)[0] in url


@given(st.text(st.sampled_from("ah.:/@\\?#%[]1 \t\n"), max_size=14))
@settings(database=None, derandomize=True, max_examples=300)
def test_what_is_checked_is_what_is_asked(rest: str) -> None:
    transport = Wire([200]).transport()
    for path in ("http://127.0.0.1:9" + rest, "http://" + rest + "127.0.0.1:9/x", rest):
        try:
            url = URL(transport.url(path), encoded=True)
        except (FixConfig, ValueError):
            continue
        assert (url.scheme, url.host, url.port, url.user) == ("http", "127.0.0.1", 9, None)


# -- what errors say -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "act", [401, 403, 404, 422, 429, 500, 302, CutError(f"bad token {SECRET}"), ConnectError(f"no {SECRET}2")]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_no_error_repeats_a_credential_or_a_query(act: Any, method: str) -> None:
    class Vendor(Policy):
        def error(self, answer: Answer) -> tuple[str, str | None]:
            return f"Invalid key: {SECRET}, {SECRET}2 given", None

    with pytest.raises(OploopError) as e:
        await Wire([act]).transport(policy=Vendor()).request(method, "x", params={"api_key": "hunter2hunter2"})
    said = str(e.value)
    assert SECRET not in said
    assert "hunter2" not in said
    assert "\n" not in said
    assert e.value.__suppress_context__ or e.value.__context__ is None


@pytest.mark.parametrize(
    "url",
    [
        "https://user:hunter2@acme.example/x",
        "https://hunter2@acme.example",
        "ftp://user:hunter2@acme.example/?k=hunter2",
    ],
)
def test_a_password_in_an_address_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(FixConfig) as e:
        Transport(url, runtime=Runtime())
    assert "hunter2" not in str(e.value)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"<!doctype html>", "HTML"),
        (b'{"a": [1, 2', "truncated JSON"),
        (b"", "nothing"),
        (b"  \n", "nothing"),
        (b"OK", "something else"),
        (b'\xff\xfe{"a": 1}', "something else"),
    ],
)
async def test_what_is_not_the_api_is_named(body: bytes, kind: str) -> None:
    answer = await Wire([(200, {}, body)]).transport().request("GET", "x", params={"q": "hunter2"})
    with pytest.raises(NotTheApi, match=f"answered {kind} ") as e:
        answer.json()
    assert "hunter2" not in str(e.value)
    assert e.value.exit_code == 2


def test_the_date_of_an_answer_is_a_version() -> None:
    request = Request("GET", BASE)
    assert Answer(200, {"date": "Sat, 01 Mar 2025 12:00:00 GMT"}, b"", request).date_micros() == 1740830400_000_000
    assert Answer(200, {}, b"", request).date_micros() is None
    assert Answer(200, {"date": "yesterday"}, b"", request).date_micros() is None


# -- a real connection ---------------------------------------------------------------------------------------------


@pytest.fixture
async def server() -> AsyncIterator[Callable[..., Any]]:
    closing: list[Any] = []

    async def serve(talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]) -> str:
        made = await asyncio.start_server(talk, "127.0.0.1", 0)
        closing.append(made)
        return f"http://127.0.0.1:{made.sockets[0].getsockname()[1]}"

    yield serve
    for made in closing:
        made.close()
        await made.wait_closed()


async def answer_with(data: bytes, server: Callable[..., Any], **request: Any) -> Answer:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(data)
        await writer.drain()
        writer.close()

    sender = AiohttpSender()
    try:
        return await sender(Request("GET", await server(talk) + "/x?key=hunter2", **request))
    finally:
        await sender.aclose()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
        b"SMTP ready\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnope",
    ],
)
async def test_a_broken_answer_is_a_cut_and_tells_no_query(server: Callable[..., Any], data: bytes) -> None:
    with pytest.raises(CutError) as e:
        await answer_with(data, server)
    assert "hunter2" not in str(e.value)
    assert str(e.value)


async def test_an_answer_that_does_not_come_is_a_cut(server: Callable[..., Any]) -> None:
    with pytest.raises(CutError):
        await answer_with(b"HTTP/1.1 200 OK\r\n", server, timeout=0.05)


async def test_nobody_there_is_no_connection() -> None:
    sender = AiohttpSender()
    with pytest.raises(ConnectError):
        await sender(Request("GET", "http://127.0.0.1:1/x"))
    await sender.aclose()
    await sender.aclose()


async def test_answers_are_unzipped_and_cookies_forgotten(server: Callable[..., Any]) -> None:
    seen: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            seen.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nX-Odd: 1\r\nContent-Length: 2\r\n\r\n{}")
            await writer.drain()
        writer.close()

    url = await server(talk)
    sender = AiohttpSender()
    for _ in range(2):
        answer = await sender(Request("GET", url + "/a%2Fb?c=%20d"))
    await sender.aclose()
    assert (answer.status, answer.headers["x-odd"], answer.json()) == (200, "1", {})
    assert all(s.startswith(b"GET /a%2Fb?c=%20d HTTP/1.1") for s in seen)
    assert not any(b"ookie" in s for s in seen)


async def test_neither_a_proxy_nor_netrc_comes_between_us_and_this_machine(
    server: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login other password hunter2\n")
    netrc.chmod(0o600)
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("NETRC", str(netrc))
    answer = await answer_with(
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", server, headers={"Authorization": "Bearer x"}
    )
    assert answer.status == 200
    assert proxy_of("https", "acme.example") == "http://127.0.0.1:1"
    monkeypatch.setenv("no_proxy", "acme.example")
    assert proxy_of("https", "acme.example") is None


def test_large_bodies_are_zipped_where_the_app_takes_that() -> None:
    transport = Wire([200]).transport(gzip=True)
    small = transport._make("POST", BASE, b"x" * 100, "application/json", None, 1)
    large = transport._make("POST", BASE, b"x" * 5000, "application/json", {"A": "b"}, 1)
    assert (small.body, small.headers.get("Content-Encoding")) == (b"x" * 100, None)
    import gzip

    assert gzip.decompress(large.body or b"") == b"x" * 5000
    assert (large.headers["Content-Encoding"], large.headers["A"]) == ("gzip", "b")
    assert is_loopback("::1")


def test_a_credential_with_a_line_break_is_named() -> None:
    class Named(Policy):
        def credential(self) -> str:
            return "token"

    with pytest.raises(FixConfig, match=r"a credential has a line break.* — check token") as e:
        Transport(
            "https://api.example", runtime=Runtime(), policy=Named(), headers={"Authorization": "Bearer s3cr\net"}
        )
    assert "s3cr" not in str(e.value)
