"""How requests go out, by the `http` key of an app's block: a real proxy, an authority of one's own, timeouts; what cannot be."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from oploop.apps.base import App
from oploop.apps.registry import make_app
from oploop.errors import FixConfig
from oploop.project import load_project
from oploop.runtime import Runtime
from tests.unit.apps.test_tls import certificate


class Proxy:
    """A forward proxy that takes `CONNECT host:port` and `GET http://...`, and remembers what it was asked for."""

    def __init__(self, login: str | None = None) -> None:
        self.asked: list[str] = []
        self.login = login
        self.open: list[asyncio.StreamWriter] = []
        self.server: asyncio.Server | None = None

    async def die(self) -> None:
        """Cut all connections, and take no more."""
        assert self.server is not None
        self.server.close()
        for writer in self.open:
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open.append(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            method, target, _ = head.split("\r\n", 1)[0].split(" ")
            self.asked.append(f"{method} {target}")
            wanted = (
                self.login and f"proxy-authorization: basic {base64.b64encode(self.login.encode()).decode()}".lower()
            )
            if wanted and wanted not in head.lower():
                writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
                await writer.drain()
            else:
                await self._through(method, target, head, reader, writer)
        writer.close()

    async def _through(self, method: str, target: str, head: str, reader: Any, writer: Any) -> None:
        host, _, port = target.removeprefix("http://").split("/")[0].partition(":")
        there, out = await asyncio.open_connection(host, int(port))
        self.open.append(out)
        if method == "CONNECT":
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        else:
            path = "/" + target.removeprefix("http://").partition("/")[2]
            out.write(head.replace(target, path, 1).encode())
        await asyncio.gather(_pipe(reader, out), _pipe(there, writer))


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


@contextlib.asynccontextmanager
async def a_proxy(login: str | None = None) -> AsyncIterator[tuple[Proxy, str]]:
    proxy = Proxy(login)
    server = proxy.server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    try:
        yield proxy, f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in proxy.open:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in proxy.open), return_exceptions=True)


@contextlib.asynccontextmanager
async def an_api(context: ssl.SSLContext | None = None, wait: float = 0.0) -> AsyncIterator[str]:
    async def answer(request: web.Request) -> web.Response:
        await asyncio.sleep(wait)
        return web.json_response({"items": []})

    app = web.Application()
    app.router.add_get("/items", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    try:
        yield f"{'https' if context else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def crm(folder: Path, base_url: str, http: str) -> App:
    """An app of type http whose block says so of HTTP."""
    (folder / "oploop.yml").write_text(
        f"name: acme\nmodels: {{engine: none}}\napps:\n  crm:\n    type: http\n    base_url: {base_url}\n    check: /items\n    http: {http}\n"
    )

    async def at_once(seconds: float) -> None: ...

    return make_app(load_project(folder).apps["crm"], Runtime(sleep=at_once))


async def checked(app: App) -> str:
    try:
        return (await app.check()).line
    finally:
        await app.aclose()


async def test_plain_http_on_this_machine_goes_through_a_proxy_on_it(tmp_path: Path) -> None:
    async with a_proxy() as (proxy, at), an_api() as url:
        assert "answers" in await checked(crm(tmp_path, url, f"{{proxy: http://{at}}}"))
    assert proxy.asked == [f"GET {url}/items"]


async def test_https_goes_through_it_as_a_tunnel_and_a_private_authority_is_trusted(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    async with a_proxy("ann:p%40ss") as (proxy, at), an_api(context) as url:
        proxy.login = "ann:p@ss"
        assert "answers" in await checked(crm(tmp_path, url, f'{{proxy: "http://ann:p%40ss@{at}", ca: ca.pem}}'))
        with pytest.raises(Exception, match=r"(?i)certificate") as refused:
            await checked(crm(tmp_path, url, f'{{proxy: "http://ann:p%40ss@{at}"}}'))
        assert "p%40ss" not in str(refused.value)
    assert set(proxy.asked) == {f"CONNECT {url.removeprefix('https://')}"}


async def test_a_proxy_that_refuses_has_let_nothing_through(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    async with a_proxy("ann:secret") as (_, at), an_api(context) as url:
        app = crm(tmp_path, url, f'{{proxy: "http://ann:wrong@{at}", ca: ca.pem}}')
        with pytest.raises(Exception, match=r"cannot reach .*the proxy says 407") as refused:
            await app.transport.request("POST", "items", json={})  # type: ignore[union-attr]
        await app.aclose()
    assert "wrong" not in str(refused.value)


async def test_a_proxy_that_is_not_there_is_named(tmp_path: Path) -> None:
    app = crm(tmp_path, "http://127.0.0.1:1", "{proxy: http://127.0.0.1:9}")
    with pytest.raises(Exception, match=r"cannot reach .*the proxy does not answer: .*127\.0\.0\.1:9"):
        await app.check()
    await app.aclose()


async def test_an_answer_may_take_as_long_as_is_said(tmp_path: Path) -> None:
    async with an_api(wait=0.6) as url:
        assert "answers" in await checked(crm(tmp_path, url, "{timeout: 20s}"))
        with pytest.raises(Exception, match="kept breaking off"):
            await checked(crm(tmp_path, url, "{timeout: 0.05s}"))


@pytest.mark.parametrize(
    ("http", "said"),
    [
        ("{proxy: proxy.acme.example}", "oploop.yml:8: http.proxy is no address of a proxy"),
        ('{proxy: "socks5://ann:word@proxy.acme.example:1080"}', "oploop.yml:8: http.proxy is no address"),
        ("{proxy: http://proxy.acme.example:3128}", "plain http, which is for this machine alone, would leave it"),
        ("{ca: none.pem}", "none.pem is not there"),
        ("{ca: oploop.yml}", "holds no certificates"),
        ("{timeout: 0s}", "oploop.yml:8: timeout must be more than 0"),
        ("{timeout: 30}", "oploop.yml:8"),
        ("{verify: false}", "oploop.yml:8"),
        ("{proxy: '${NO_SUCH_PROXY}'}", "NO_SUCH_PROXY"),
    ],
)
def test_what_cannot_be_is_told_by_its_line(tmp_path: Path, http: str, said: str) -> None:
    with pytest.raises(FixConfig) as e:
        crm(tmp_path, "http://127.0.0.1:9", http)
    assert said in str(e.value)
    assert "word" not in str(e.value)


def test_an_app_that_is_not_called_over_http_takes_no_such_key(tmp_path: Path) -> None:
    (tmp_path / "oploop.yml").write_text(
        "name: acme\nmodels: {engine: none}\napps:\n  crm: {type: postgres, dsn: postgresql://127.0.0.1/x, http: {timeout: 5s}}\n"
    )
    with pytest.raises(FixConfig, match="postgres is not called over HTTP"):
        make_app(load_project(tmp_path).apps["crm"], Runtime())
