"""The wire: one request, one answer, over kept connections. The only place that touches the HTTP library."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Awaitable, Callable
from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING

from oploop.apps.origin import is_loopback
from oploop.apps.policy import Answer, Request
from oploop.runtime import HttpWay

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

    import aiohttp
    from yarl import URL


#: Bytes of an answer that are taken in before anybody has asked for them; aiohttp's 64 KB stop and go on for each piece.
READ_BUFFER = 2**20


class ConnectError(OSError):
    """The connection could not be made; the request was certainly not received."""


class NobodyThere(ConnectError):
    """Nothing listens at the address: what is there would have to be started, or the address is wrong."""


class CutError(OSError):
    """The connection broke, or timed out, after the request was sent, wholly or in part."""


#: Sends one request and returns its answer; raises ConnectError or CutError. Tests and the simulation hand in their own.
Sender = Callable[[Request], Awaitable[Answer]]


class AiohttpSender:
    """Requests over one keep-alive aiohttp session, made at the first use (it needs a running loop)."""

    def __init__(self, way: HttpWay | None = None, connections: int = 50) -> None:
        self._way = way or HttpWay()
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None

    def load(self) -> None:
        """Begin to load the HTTP library, which takes a tenth of a second, in a thread of its own: for who has something else to do
        before the first call. A call that comes sooner waits for it."""
        if "aiohttp" not in sys.modules:
            threading.Thread(target=import_module, args=("aiohttp",), name="aiohttp").start()

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _open(self, url: URL) -> aiohttp.ClientSession:
        import aiohttp

        if self._session is None:
            trusted = True if self._way.ca is None else trusting(self._way.ca)
            connector = aiohttp.TCPConnector(limit=self._connections, keepalive_timeout=20, ssl=trusted)
            self._session = aiohttp.ClientSession(
                connector=connector,
                auto_decompress=True,
                read_bufsize=READ_BUFFER,
                # not trust_env: that adds passwords from ~/.netrc
                proxy=self._way.proxy or proxy_of(url.scheme, url.host or ""),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
            # aiohttp would itself send a PUT or DELETE a second time when a kept connection breaks: a call that no
            # budget, journal or receipt knows of. There is no public switch; a test holds this one.
            self._session._retry_connection = False
        return self._session

    async def __call__(self, request: Request) -> Answer:
        import aiohttp
        from yarl import URL

        url = URL(request.url, encoded=True)
        session = self._open(url)
        try:
            async with session.request(
                request.method,
                url,
                data=request.body,
                headers=request.headers,
                allow_redirects=False,
                timeout=_within(request.timeout),
            ) as response:
                body = await response.read()
                headers = {k.lower(): v for k, v in response.headers.items()}
                return Answer(response.status, headers, body, request)
        except aiohttp.ClientHttpProxyError as e:  # it let nothing through
            raise ConnectError(f"the proxy says {e.status} {e.message}") from e
        except aiohttp.ClientProxyConnectionError as e:
            raise _unmade(e)(f"the proxy does not answer: {_why(e)}") from e
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as e:
            raise _unmade(e)(_why(e)) from e
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as e:
            raise CutError(_why(e)) from e


@lru_cache(16)  # of an account's calls mostly all have the same
def _within(seconds: float) -> aiohttp.ClientTimeout:
    import aiohttp

    return aiohttp.ClientTimeout(total=seconds, sock_connect=10)


def trusting(ca: Path) -> ssl.SSLContext:
    """Whom to trust: the public authorities, and those of a file. OSError, or SSLError, where it holds none."""
    import ssl

    context = ssl.create_default_context()
    context.load_verify_locations(ca)
    return context


def proxy_of(scheme: str, host: str) -> str | None:
    """The environment's proxy for a host (HTTPS_PROXY, NO_PROXY); never for this machine."""
    from urllib.request import getproxies, proxy_bypass

    return None if is_loopback(host) or proxy_bypass(host) else getproxies().get(scheme)


def _unmade(e: Exception) -> type[ConnectError]:
    """Of which kind a connection is that could not be made."""
    return NobodyThere if isinstance(getattr(e, "os_error", None), ConnectionRefusedError) else ConnectError


def _why(e: Exception) -> str:
    """What an exception says, without the address: aiohttp gives it whole, with its query; of a connection that was not made,
    why, and where to, without aiohttp's own setting of TLS."""
    import aiohttp

    if isinstance(e, aiohttp.ClientConnectorError):
        return f"{_cause(getattr(e, 'certificate_error', None) or e.os_error)} ({e.host}:{e.port})"
    return str(getattr(e, "message", "") or e).strip() or type(e).__name__


def _cause(e: Exception) -> str:
    """The system's word for an error of a socket, else what it says."""
    number = getattr(e, "errno", None)
    if isinstance(e, ConnectionError) and number:
        return os.strerror(number)
    return getattr(e, "strerror", None) or str(e) or type(e).__name__
