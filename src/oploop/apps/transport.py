"""One transport per account: connection reuse, auth, the rate budget, retries by the vendor's own hints.

Reader and writer of an account share it, so they share its limits. It never follows a redirect or a paging link to
another origin, never speaks plain http off loopback, and never puts a header that holds a credential into an error.

    app code ──request──▶ Transport ──(budget, auth)──▶ Sender ──▶ the wire
                              └─ Policy: the vendor's rules (what to retry, what the headers say)
"""

from __future__ import annotations

import hashlib
import ipaddress
import math
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urljoin, urlsplit

import orjson

from oploop.apps.budget import Budget as Budget
from oploop.apps.budget import Quota as Quota
from oploop.errors import FixConfig, OploopError, RetryLater
from oploop.errors import QuotaSpent as QuotaSpent
from oploop.runtime import Interrupted, Runtime

if TYPE_CHECKING:
    import aiohttp
    from yarl import URL

MAX_TRIES = 6
MAX_BACKOFF = 30.0
MAX_REDIRECTS = 5
GZIP_FROM_BYTES = 2048
#: Seconds from which on a run does not wait for what the app says, but leaves the rest to a later one.
DEFER_FROM = 900.0


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request; `url` is absolute."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    timeout: float = 60.0


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer. `headers` have lower-case names. `began` is the transport's clock (UTC) before the request."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    request: Request

    def json(self) -> Any:
        """The body parsed as JSON; FixConfig when it is something else (a login page, a cut-off answer, nothing)."""
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError:
            raise NotTheApi(self) from None

    def date_micros(self) -> int | None:
        """The server's clock from the `Date` header, microseconds since 1970 (whole seconds); None without one."""
        seconds = _date(self.headers.get("date"))
        return None if seconds is None else int(seconds) * 1_000_000


class NotTheApi(FixConfig):
    """What answered is not the API: HTML, truncated JSON, nothing. Usually `base_url` or a proxy is wrong."""

    def __init__(self, answer: Answer) -> None:
        kind = _what_it_is(answer)
        super().__init__(
            f"{answer.request.method} {_bare(answer.request.url)} answered {kind} (HTTP {answer.status}) instead of JSON",
            mend="check base_url, and any proxy in between",
        )
        self.answer = answer


class Refused(OploopError):
    """The app refused a call as a whole and did nothing: a 4xx that retrying unchanged will not mend."""

    def __init__(self, answer: Answer, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.answer = answer
        self.status = answer.status
        self.code = code


class LostAnswer(OploopError):
    """A call was sent (or may have been) and its answer did not arrive, or says nothing: the outcome is unknown."""


class NoAnswer(RetryLater):
    """A call that does no harm was made again and again, and nothing answered. Often `base_url` is wrong."""

    #: As for NotTheApi: where a command can go no further, nothing was changed and there is something to mend.
    exit_code = 2

    def __init__(self, message: str) -> None:
        super().__init__(message, mend="is it up, is base_url right?")


class ConnectError(OSError):
    """The connection could not be made; the request was certainly not received."""


class CutError(OSError):
    """The connection broke, or timed out, after the request was sent, wholly or in part."""


#: Headers that hold a credential; words of them so long are never repeated.
_SECRET_HEADER = re.compile("auth|key|token|secret|cookie|password", re.IGNORECASE)
SECRET_FROM = 6

#: Sends one request and returns its answer; raises ConnectError or CutError. Tests and the simulation hand in their own.
Sender = Callable[[Request], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a Policy makes of an answer. `retry`: try again (after `after` seconds, if said). `done`: for a write,
    False means that the app certainly did nothing (a 429), so that trying again is safe even without idempotency."""

    retry: bool
    after: float | None = None
    done: bool = True


class Policy:
    """A vendor's rules. The default is what most REST APIs do; an app overrides what its vendor does otherwise."""

    def verdict(self, answer: Answer) -> Verdict:
        """Whether to try again: 429 always (nothing was done), 408 and 5xx when the call may be repeated."""
        after = retry_after(answer.headers)
        if answer.status == 429:
            return Verdict(True, after, done=False)
        if answer.status == 503 and after is not None:
            return Verdict(True, after, done=False)
        if answer.status in (408, 500, 502, 503, 504):
            return Verdict(True, after)
        return Verdict(False)

    def quota(self, answer: Answer) -> Quota | None:
        """The account's limit as the headers tell it; None when they do not."""
        return None

    def error(self, answer: Answer) -> tuple[str, str | None]:
        """(message, code) of a refusal, in the vendor's words."""
        return f"HTTP {answer.status}", None

    def credential(self) -> str:
        """The config keys that a 401 or 403 puts in doubt, for the error message."""
        return "its credentials"


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The `Retry-After` header in seconds, also when it is a date (by the server's clock); None without a usable one."""
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        until, now = _date(value), _date(headers.get("date"))
        return max(0.0, until - now) if until is not None and now is not None else None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _date(value: str | None) -> float | None:
    """An HTTP date as seconds since 1970."""
    try:
        return None if value is None else parsedate_to_datetime(value).timestamp()
    except ValueError:
        return None


class Transport:
    """One account's way to its app. All requests of reader and writer go through `request`."""

    def __init__(
        self,
        base_url: str,
        *,
        runtime: Runtime,
        headers: Mapping[str, str] | None = None,
        policy: Policy | None = None,
        budget: Budget | None = None,
        sender: Sender | None = None,
        gzip: bool = False,
    ) -> None:
        self.base_url = base_url.rstrip("/") + "/"
        self._origin = check_origin(base_url)
        self._headers = dict(headers or {})
        self.policy = policy or Policy()
        self.budget = budget
        self.runtime = runtime
        self._own: AiohttpSender | None = None
        if sender is None:
            self._own = AiohttpSender()
            sender = self._own
        self._send = sender
        self._gzip = gzip
        self.calls = 0  #: requests that went out, retries included
        self._under_way = 0

    async def aclose(self) -> None:
        if self._own is not None:
            await self._own.aclose()
        if self.budget is not None:
            self.budget.close()

    def account(self) -> str:
        """A name for the account that tells nothing of its credentials: what its processes share is found by it."""
        secrets = sorted(f"{n.lower()}: {v}" for n, v in self._headers.items() if _SECRET_HEADER.search(n))
        return hashlib.sha256("\n".join([str(self._origin), *secrets]).encode()).hexdigest()[:32]

    def url(self, path: str, params: Sequence[tuple[str, str]] | Mapping[str, Any] | None = None) -> str:
        """An absolute URL; a paging link may be given whole but must stay on the account's origin."""
        url = path if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", path) else urljoin(self.base_url, "./" + path.lstrip("/"))
        if check_origin(url) != self._origin:
            raise FixConfig(
                f"the app's answer points to another host ({_bare(url)}); credentials are not sent there",
                mend="set base_url to the account's real address",
            )
        if params:
            pairs = list(params.items()) if isinstance(params, Mapping) else list(params)
            url += ("&" if "?" in url else "?") + urlencode([(k, v) for k, v in pairs if v is not None])
        return url

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Sequence[tuple[str, str]] | Mapping[str, Any] | None = None,
        json: Any = None,
        body: bytes | None = None,
        content_type: str | None = None,
        headers: Mapping[str, str] | None = None,
        idempotent: bool | None = None,
        timeout: float = 60.0,
        ok: Sequence[int] = (),
    ) -> Answer:
        """Send a request and return its answer (2xx, or a status in `ok`), with retries as the policy says.

        `idempotent` (default: GET and HEAD are) allows repeating a call that may have been done. Raises FixConfig on
        401/403, Refused on other refusals, LostAnswer when a write's outcome is unknown, RetryLater when a read (or a
        write that certainly did nothing) kept failing.
        """
        if json is not None:
            body, content_type = orjson.dumps(json), "application/json"
        request = self._make(method, self.url(path, params), body, content_type, headers, timeout)
        reading = method in ("GET", "HEAD")
        repeatable = reading if idempotent is None else idempotent
        lost = False  # an earlier try of a write may have been done
        for attempt in range(1, MAX_TRIES + 1):
            last = attempt == MAX_TRIES
            try:
                answer = await self._once(request)
            except Interrupted as e:
                raise self._broken_off(request, e, lost) from None
            except (ConnectError, CutError) as e:
                lost = lost or (isinstance(e, CutError) and not reading)
                if last or (lost and not repeatable):
                    raise self._unanswered(request, e, lost) from None
                await self._back_off(attempt, None, request=request, lost=lost)
                continue
            if 200 <= answer.status < 300 or answer.status in ok:
                return answer
            verdict = self.policy.verdict(answer)
            maybe_done = lost or (verdict.retry and verdict.done and not reading)
            if verdict.retry and not verdict.done and not lost and (verdict.after or 0.0) >= DEFER_FROM:
                raise QuotaSpent(
                    f"{_bare(request.url)} lets nobody call for {_span(verdict.after or 0.0)}: {self._said(answer)}",
                    after=verdict.after,
                )
            if verdict.retry and not last and (repeatable or not verdict.done):
                lost = maybe_done
                shared = answer.status == 429
                await self._back_off(attempt, verdict.after, shared=shared, request=request, lost=lost)
                continue
            raise self._failure(answer, verdict, maybe_done)
        raise AssertionError("unreachable: the last try returns or raises")

    def _make(
        self,
        method: str,
        url: str,
        body: bytes | None,
        content_type: str | None,
        headers: Mapping[str, str] | None,
        timeout: float,
    ) -> Request:
        merged = {**self._headers, **(headers or {})}
        if content_type is not None:
            merged["Content-Type"] = content_type
        if body is not None and self._gzip and len(body) >= GZIP_FROM_BYTES:
            import gzip

            body = gzip.compress(body, 1)
            merged["Content-Encoding"] = "gzip"
        return Request(method, url, merged, body, timeout)

    async def _once(self, request: Request) -> Answer:
        for _ in range(1 + MAX_REDIRECTS):
            if self.budget is not None:
                await self.budget.take()
            self.calls += 1
            self._under_way += 1
            try:
                answer = await self._send(request)
            finally:
                self._under_way -= 1
            if answer.status not in (301, 302, 307, 308) or request.method not in ("GET", "HEAD"):
                break
            request = replace(request, url=self.url(urljoin(request.url, answer.headers.get("location", ""))))
        quota = self.policy.quota(answer)
        if quota is not None and self.budget is not None:
            self.budget.learn(quota, self._under_way)
        return answer

    async def _back_off(
        self, attempt: int, after: float | None, *, request: Request, lost: bool, shared: bool = False
    ) -> None:
        """Wait before the next try: as long as the app said, else exponentially with full jitter."""
        wait = after if after is not None else self.runtime.random.uniform(0.1, min(MAX_BACKOFF, 0.5 * 2**attempt))
        if shared and self.budget is not None:
            self.budget.refused(wait)  # one caller's 429 holds all callers of the account
        try:
            await self.runtime.pause(wait)
        except Interrupted as e:
            raise self._broken_off(request, e, lost) from None

    def _broken_off(self, request: Request, e: Interrupted, lost: bool) -> OploopError:
        """What a call that the run's end kept from being tried again was: not made, or nobody knows."""
        if lost:
            return LostAnswer(f"{request.method} {_bare(request.url)}: the run was interrupted before the answer")
        return e

    def _said(self, answer: Answer) -> str:
        return self._discreet(self.policy.error(answer)[0])

    def _unanswered(self, request: Request, e: OSError, lost: bool) -> OploopError:
        why = self._discreet(str(e))
        if lost:
            return LostAnswer(f"{request.method} {_bare(request.url)}: the connection broke before the answer: {why}")
        if isinstance(e, ConnectError):
            return NoAnswer(f"cannot reach {_bare(request.url)}: {why}")
        return NoAnswer(f"{request.method} {_bare(request.url)} kept breaking off: {why}")

    def _failure(self, answer: Answer, verdict: Verdict, lost: bool) -> OploopError:
        """What the last answer means. `lost`: it, or one before it, leaves open whether a write was done."""
        request = answer.request
        message, code = self.policy.error(answer)
        message = self._discreet(message)
        refused = 400 <= answer.status < 500 and answer.status not in (401, 403) and not verdict.retry
        if lost and not refused:
            return LostAnswer(f"{request.method} {_bare(request.url)} failed (HTTP {answer.status}): {message}")
        if answer.status in (401, 403):
            return FixConfig(
                f"{_bare(request.url)} refused the credentials (HTTP {answer.status}: {message})",
                mend=f"check {self.policy.credential()}",
            )
        if verdict.retry and not verdict.done:
            return RetryLater(f"{_bare(request.url)} keeps refusing for now: {message}", after=verdict.after)
        if verdict.retry:
            return RetryLater(f"{request.method} {_bare(request.url)} keeps failing (HTTP {answer.status}): {message}")
        if 300 <= answer.status < 400:
            return NotTheApi(answer)
        return Refused(answer, message, code=code)

    def _discreet(self, text: str) -> str:
        """A text of the other side without our credentials, should it repeat them."""
        for name, value in self._headers.items():
            if _SECRET_HEADER.search(name):
                for word in value.split():
                    text = text.replace(word, "…") if len(word) >= SECRET_FROM else text
        return text


class AiohttpSender:
    """Requests over one keep-alive aiohttp session, made at the first use (it needs a running loop)."""

    def __init__(self, connections: int = 50) -> None:
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _open(self, url: URL) -> aiohttp.ClientSession:
        import aiohttp

        if self._session is None:
            connector = aiohttp.TCPConnector(limit=self._connections, keepalive_timeout=20)
            self._session = aiohttp.ClientSession(
                connector=connector,
                auto_decompress=True,
                proxy=proxy_of(url.scheme, url.host or ""),  # not trust_env: that adds passwords from ~/.netrc
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
                headers=dict(request.headers),
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=request.timeout, connect=10),
            ) as response:
                body = await response.read()
                headers = {k.lower(): v for k, v in response.headers.items()}
                return Answer(response.status, headers, body, request)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as e:
            raise ConnectError(_why(e)) from e
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as e:
            raise CutError(_why(e)) from e


def proxy_of(scheme: str, host: str) -> str | None:
    """The environment's proxy for a host (HTTPS_PROXY, NO_PROXY); never for this machine."""
    from urllib.request import getproxies, proxy_bypass

    return None if is_loopback(host) or proxy_bypass(host) else getproxies().get(scheme)


def check_origin(url: str) -> tuple[str, str, int]:
    """(scheme, host, port) of a URL; FixConfig when it is no http(s) URL, or plain http to another machine."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # a port or an IPv6 address that is none
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise FixConfig(f"{_bare(url)!r} is no http(s) address", mend="base_url looks like https://host[:port][/path]")
    if parts.username is not None:
        raise FixConfig(
            f"{_bare(url)!r} has a user's name or password in it", mend="give credentials by their own keys"
        )
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise FixConfig(
            f"plain http to {parts.hostname} would show the credentials to everyone between", mend="use https"
        )
    return parts.scheme, parts.hostname, port or (443 if parts.scheme == "https" else 80)


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _bare(url: str) -> str:
    """A URL without its query and without a password, which are nobody's business."""
    return re.sub(r"//[^/@]*@", "//", url.split("?", 1)[0].split("#", 1)[0])


def _why(e: Exception) -> str:
    """What an exception says, without the address: aiohttp gives it whole, with its query."""
    return str(getattr(e, "message", "") or e).strip() or type(e).__name__


def _span(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds >= 5400 else f"{seconds / 60:.0f} minutes"


def _what_it_is(answer: Answer) -> str:
    start = answer.body[:200].lstrip()
    if not start:
        return "nothing"
    if start[:1] == b"<":
        return "HTML"
    if start[:1] in b"{[":
        return "truncated JSON"
    return "something else"
