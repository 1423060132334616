"""The transport over a real connection: what is cut, unzipped, forgotten, and who is between."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from oploop.apps.oauth import ClientCredentials, OAuth
from oploop.apps.transport import (
    AiohttpSender,
    Answer,
    ConnectError,
    CutError,
    NoAnswer,
    Policy,
    Request,
    Transport,
    is_loopback,
    proxy_of,
)
from oploop.errors import FixConfig
from oploop.runtime import Runtime
from tests.unit.apps.wire import BASE, Wire


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


@pytest.mark.parametrize("answered", [False, True])
async def test_nobody_there_is_told_soon_unless_somebody_was(answered: bool) -> None:
    """An address that is wrong and a sandbox that is not started are not waited for; a server that has gone away is."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}")
        await writer.drain()
        writer.close()

    runtime = Runtime(sleep=sleep)
    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    if answered:
        one = Transport(url, runtime=runtime)
        await one.request("GET", "x")
        await one.aclose()
    server.close()
    await server.wait_closed()
    transport = Transport(url, runtime=runtime)  # another turn of the same process
    with pytest.raises(NoAnswer) as e:
        await transport.request("GET", "x")
    await transport.aclose()
    assert e.value.mend is not None
    assert "oploop sandbox" in e.value.mend
    assert (transport.calls, sum(slept) < 1.0) == ((6, False) if answered else (3, True))


async def test_a_token_endpoint_at_which_nothing_listens_is_told_soon_too() -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    runtime = Runtime(sleep=sleep)
    auth = OAuth(ClientCredentials("http://127.0.0.1:9/token", "id", SecretStr("s3cret-s3cret")), runtime)
    transport = Transport("http://127.0.0.1:9", runtime=runtime, auth=auth)
    with pytest.raises(NoAnswer, match="token endpoint"):
        await transport.request("GET", "x")
    await transport.aclose()
    assert sum(slept) < 1.0


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1:9/x?key=hunter2", "Connection refused (127.0.0.1:9)"),
        ("https://127.0.0.1:9/x?key=hunter2", "Connection refused (127.0.0.1:9)"),
        ("http://nobody.invalid/x", "(nobody.invalid:80)"),
    ],
)
async def test_of_a_connection_that_is_not_made_it_says_why_and_where_to(url: str, said: str) -> None:
    sender = AiohttpSender()
    with pytest.raises(ConnectError) as e:
        await sender(Request("GET", url))
    await sender.aclose()
    assert str(e.value).endswith(said)
    assert not {"ssl", "hunter2"} & set(str(e.value).replace(":", " ").split())


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


def test_the_library_is_loaded_beside_what_else_is_done() -> None:
    code = (
        "import sys, threading\n"
        "from oploop.apps.sender import AiohttpSender\n"
        "before = 'aiohttp' in sys.modules\n"
        "AiohttpSender().load()\n"
        "[t.join() for t in threading.enumerate() if t.name == 'aiohttp']\n"
        "print(before, 'aiohttp' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
