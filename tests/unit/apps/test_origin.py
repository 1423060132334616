"""Where requests go, and where credentials do not; what errors say."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from yarl import URL

from oploop.apps.transport import (
    Answer,
    Budget,
    ConnectError,
    CutError,
    NotTheApi,
    Policy,
    Request,
    Transport,
    check_origin,
)
from oploop.errors import FixConfig, OploopError
from oploop.runtime import Runtime
from tests.unit.activate.script import Clock
from tests.unit.apps.wire import BASE, SECRET, Wire


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
