"""One transport per account: connection reuse, auth, the rate budget, retries by the vendor's own hints.

Reader and writer of an account share it, so they share its limits. It never follows a redirect or a paging link to
another origin, never speaks plain http off loopback, and never puts a header that holds a credential into an error.

    app code ──request──▶ Transport ──(budget, auth)──▶ Sender ──▶ the wire
                              └─ Policy: the vendor's rules (what to retry, what the headers say)
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import replace
from functools import lru_cache
from math import inf
from typing import Any, Protocol
from urllib.parse import urlencode, urljoin

import orjson

from oploop.apps.budget import Budget as Budget
from oploop.apps.budget import DayQuota as DayQuota
from oploop.apps.budget import Quota as Quota
from oploop.apps.documents import in_pairs
from oploop.apps.jsonvalues import plain
from oploop.apps.meter import METER
from oploop.apps.origin import bare as bare
from oploop.apps.origin import check_origin as check_origin
from oploop.apps.origin import is_loopback as is_loopback
from oploop.apps.policy import Answer as Answer
from oploop.apps.policy import LimitHeaders as LimitHeaders
from oploop.apps.policy import LostAnswer as LostAnswer
from oploop.apps.policy import NoAnswer as NoAnswer
from oploop.apps.policy import NotTheApi as NotTheApi
from oploop.apps.policy import Policy as Policy
from oploop.apps.policy import Refused as Refused
from oploop.apps.policy import Request as Request
from oploop.apps.policy import Verdict as Verdict
from oploop.apps.policy import retry_after as retry_after
from oploop.apps.sender import AiohttpSender as AiohttpSender
from oploop.apps.sender import ConnectError as ConnectError
from oploop.apps.sender import CutError as CutError
from oploop.apps.sender import NobodyThere as NobodyThere
from oploop.apps.sender import Sender as Sender
from oploop.apps.sender import proxy_of as proxy_of
from oploop.errors import FixConfig, OploopError, RetryLater
from oploop.errors import QuotaSpent as QuotaSpent
from oploop.runtime import Interrupted, Runtime

MAX_TRIES = 6
MAX_BACKOFF = 30.0
#: Where nothing listens and nothing has answered in this process: so many tries, and the seconds between them.
ABSENT_TRIES, ABSENT_WAIT = 3, 0.4
MAX_REDIRECTS = 5
GZIP_FROM_BYTES = 2048
TIMEOUT = 60.0
#: Seconds from which on a run does not wait for what the app says, but leaves the rest to a later one.
DEFER_FROM = 900.0

#: Until when (`Runtime.monotonic`) a call that may have been done is made again. A delivery sets it where the app forgets an
#: idempotency key, and would do the call a second time.
REPEAT_UNTIL: ContextVar[float] = ContextVar("repeat_until", default=inf)
#: Whether a delivery makes its calls again after some that may have been done.
MADE_BEFORE: ContextVar[bool] = ContextVar("made_before", default=False)

#: Headers that hold a credential; words of them so long are never repeated.
_SECRET_HEADER = re.compile("auth|key|token|secret|cookie|password", re.IGNORECASE)
SECRET_FROM = 6
#: What no header may hold.
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
#: A path below `base_url` of which nothing needs to be resolved.
_USUAL_PATH = re.compile(r"/?[\w%~-][\w.%~-]*(?:/[\w%~-][\w.%~-]*)*", re.ASCII)


@lru_cache(256)  # a list's pages are asked for with the same parameters but one
def _pair(name: str, value: str | bytes) -> str:
    return urlencode([(name, value)])


def _query(pairs: Iterable[tuple[str, Any]]) -> str:
    """Parameters as `urlencode` writes them (see `documents.in_pairs`), less those that are None."""
    return "&".join(_pair(n, v) for n, v in in_pairs((n, v) for n, v in pairs if v is not None))


class Auth(Protocol):
    """Credentials that are renewed while they are used (`oauth.OAuth`)."""

    def over(self, sender: Sender) -> Sender:
        """A sender that puts them on each request."""

    def account(self) -> str:
        """A name for the account that tells nothing of them."""

    def secrets(self) -> Iterable[str]:
        """What no message may repeat."""


class Transport:
    """One account's way to its app. All requests of reader and writer go through `request`."""

    def __init__(
        self,
        base_url: str,
        *,
        runtime: Runtime,
        headers: Mapping[str, str] | None = None,
        auth: Auth | None = None,
        policy: Policy | None = None,
        budget: Budget | None = None,
        sender: Sender | None = None,
        gzip: bool = False,
    ) -> None:
        self.base_url = base_url.rstrip("/") + "/"
        self._origin = check_origin(base_url)
        self._base = urljoin(self.base_url, "./")
        self._headers = dict(headers or {})
        self.policy = policy or Policy()
        if any(_CONTROL.search(value) for value in self._headers.values()):
            raise FixConfig(
                "a credential has a line break, or another control character, in it",
                mend=f"check {self.policy.credential()}",
            )
        self.budget = budget
        self.runtime = runtime
        self._own: AiohttpSender | None = None
        self._given = sender
        self._first: Transport | None = None
        self._beside: list[Transport] = []
        if sender is None:
            self._own = AiohttpSender(runtime.http)
            sender = self._own
        if runtime.trace is not None:
            sender = runtime.trace.over(sender, runtime)
        self._auth = auth
        self._send = sender if auth is None else auth.over(sender)
        self._gzip = gzip
        self.calls = 0  #: requests that went out, retries included
        self._date = 0  #: the newest time by the app's clock that any answer told, microseconds since 1970; 0: none yet
        self._under_way = 0

    def beside(self, base_url: str) -> Transport:
        """The way to another host of the same account: by its credentials and rules, within no limit of its own (see
        `Budget.beside`). Its calls count as this one's, with which it is closed."""
        made = Transport(
            base_url,
            runtime=self.runtime,
            headers=self._headers,
            auth=self._auth,
            policy=self.policy,
            sender=self._given,
            gzip=self._gzip,
        )
        made._first = self
        self._beside.append(made)
        return made

    def load(self) -> None:
        """See `AiohttpSender.load`."""
        if self._own is not None:
            self._own.load()

    async def aclose(self) -> None:
        for other in self._beside:
            await other.aclose()
        if self._own is not None:
            await self._own.aclose()
        if self.budget is not None:
            self.budget.close()

    def account(self) -> str:
        """A name for the account that tells nothing of its credentials: what its processes share is found by it."""
        secrets = sorted(f"{n.lower()}: {v}" for n, v in self._headers.items() if _SECRET_HEADER.search(n))
        if self._auth is not None:
            secrets.append(self._auth.account())
        return hashlib.sha256("\n".join([str(self._origin), *secrets]).encode()).hexdigest()[:32]

    def url(self, path: str, params: Sequence[tuple[str, str]] | Mapping[str, Any] | None = None) -> str:
        """An absolute URL; a paging link may be given whole but must stay on the account's origin."""
        if _USUAL_PATH.fullmatch(path):  # what urljoin would make of it, without looking at each part
            url = self._base + path.lstrip("/")
        elif re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", path):
            url = path
        else:
            url = urljoin(self._base, "./" + path.lstrip("/"))
        if not url.startswith(self._base) and check_origin(url) != self._origin:
            raise FixConfig(
                f"the app's answer points to another host ({bare(url)}); credentials are not sent there",
                mend="set base_url to the account's real address",
            )
        if params:
            pairs = params.items() if isinstance(params, Mapping) else params
            url += ("&" if "?" in url else "?") + _query(pairs)
        return url

    def as_of(self) -> Callable[[Answer], int]:
        """To be called before a request: what its answer shows is as of this at the earliest, by the app's clock in microseconds
        since 1970; 0 where it never told any.

        An answer's `Date` is that of its end, in whole seconds. What it shows may be of before that, but not of before an answer
        that had ended when it was asked for.
        """
        date, began = self._date, self.runtime.monotonic()

        def tell(answer: Answer) -> int:
            took = 1 + math.ceil(self.runtime.monotonic() - began)
            return max(date, (answer.date_micros() or 0) - took * 1_000_000, 0)

        return tell

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Sequence[tuple[str, str]] | Mapping[str, Any] | None = None,
        json: Any = None,
        form: Sequence[tuple[str, str]] | Mapping[str, Any] | None = None,
        body: bytes | None = None,
        content_type: str | None = None,
        packed: bool = False,
        headers: Mapping[str, str] | None = None,
        idempotent: bool | None = None,
        timeout: float | None = None,
        ok: Sequence[int] = (),
    ) -> Answer:
        """Send a request and return its answer (2xx, or a status in `ok`), with retries as the policy says.

        `json` or `form` is the body, or `body` as it is; what is nested in `form` and `params` is written with brackets; `packed`: the
        app takes it gzipped. `timeout`: seconds that this call may take, where the account's settings give it no longer. `idempotent`
        (default: GET and HEAD are) allows repeating a call that may have been done. Raises FixConfig on 401/403, Refused on
        other refusals, LostAnswer when a write's outcome is unknown, RetryLater when a read (or a write that certainly
        did nothing) kept failing.
        """
        if json is not None:
            body, content_type = orjson.dumps(json, default=plain), "application/json"
        elif form is not None:
            pairs = form.items() if isinstance(form, Mapping) else form
            body, content_type = urlencode(list(in_pairs(pairs))).encode(), "application/x-www-form-urlencoded"
        request = self._make(method, self.url(path, params), body, content_type, headers, timeout, packed=packed)
        reading = method in ("GET", "HEAD")
        repeatable = reading if idempotent is None else idempotent
        lost = False  # an earlier try of a write, in this call, may have been done
        for attempt in range(1, MAX_TRIES + 1):
            last = attempt == MAX_TRIES
            try:
                answer = await self._once(request, lost=lost)
            except OploopError as e:  # the run is to end, or no token is to be had: this try was not made
                raise self._broken_off(request, e, lost) from None
            except (ConnectError, CutError) as e:
                lost = lost or (isinstance(e, CutError) and not reading)
                # where nothing ever answered this is no failure that passes, but an address that is wrong or a server not started
                absent = isinstance(e, NobodyThere) and not lost and self._origin not in self.runtime.reached
                if last or (lost and not repeatable) or (absent and attempt >= ABSENT_TRIES):
                    raise self._unanswered(request, e, lost) from None
                await self._back_off(attempt, ABSENT_WAIT if absent else None, request=request, lost=lost)
                continue
            if 200 <= answer.status < 300 or answer.status in ok:
                return answer
            verdict = self.policy.verdict(answer)
            maybe_done = lost or (verdict.retry and verdict.done and not reading)
            if verdict.retry and not verdict.done and not lost and (verdict.after or 0.0) >= DEFER_FROM:
                raise QuotaSpent(
                    f"{bare(request.url)} lets nobody call for {_span(verdict.after or 0.0)}: {self._said(answer)}",
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
        timeout: float | None,
        *,
        packed: bool = False,
    ) -> Request:
        merged = {**self._headers, **(headers or {})}
        if content_type is not None:
            merged["Content-Type"] = content_type
        if body is not None and (packed or (self._gzip and len(body) >= GZIP_FROM_BYTES)):
            import gzip

            body = gzip.compress(body, 1, mtime=0)
            merged["Content-Encoding"] = "gzip"
        usual = self.runtime.http.timeout
        seconds = usual or TIMEOUT if timeout is None else max(timeout, usual or 0.0)
        return Request(method, url, merged, body, seconds)

    async def _once(self, request: Request, *, lost: bool) -> Answer:
        for _ in range(1 + MAX_REDIRECTS):
            if self.budget is not None:
                await self.budget.take()
            self._in_time(0.0, request, lost=lost)
            self.calls += 1
            if self._first is not None:
                self._first.calls += 1
            self._under_way += 1
            if (meter := METER.get()) is not None:
                meter.calls += 1
            try:
                answer = await self._send(request)
            finally:
                self._under_way -= 1
            if answer.status not in (301, 302, 307, 308) or request.method not in ("GET", "HEAD"):
                break
            request = replace(request, url=self.url(urljoin(request.url, answer.headers.get("location", ""))))
        self.runtime.reached.add(self._origin)
        self._date = max(self._date, answer.date_micros() or 0)
        if self.budget is not None:
            quota, day = self.policy.quota(answer), self.policy.day(answer)
            if quota is not None:
                self.budget.learn(quota, self._under_way)
            if day is not None:
                self.budget.learn_day(day, self._under_way)
        return answer

    async def _back_off(
        self, attempt: int, after: float | None, *, request: Request, lost: bool, shared: bool = False
    ) -> None:
        """Wait before the next try: as long as the app said, else exponentially with full jitter."""
        wait = after if after is not None else self.runtime.random.uniform(0.1, min(MAX_BACKOFF, 0.5 * 2**attempt))
        if shared and self.budget is not None:
            self.budget.refused(wait)  # one caller's 429 holds all callers of the account
        try:
            self._in_time(wait, request, lost=lost)
            await self.runtime.pause(wait)
        except (Interrupted, RetryLater) as e:
            raise self._broken_off(request, e, lost) from None

    def _in_time(self, wait: float, request: Request, *, lost: bool) -> None:
        """Raise RetryLater if a call that may have been done would be made again, so much later, too late."""
        again = lost or (MADE_BEFORE.get() and request.method not in ("GET", "HEAD"))
        if again and self.runtime.monotonic() + wait > REPEAT_UNTIL.get():
            raise RetryLater("the app may have forgotten the first by then")

    def _broken_off(self, request: Request, e: OploopError, lost: bool) -> OploopError:
        """What a call that could not be tried again was: not made, or nobody knows."""
        if lost:
            why = "the run was interrupted" if isinstance(e, Interrupted) else f"no further try: {e.message}"
            return LostAnswer(f"{request.method} {bare(request.url)}: {why} before the answer")
        return e

    def _said(self, answer: Answer) -> str:
        return self._discreet(self.policy.error(answer)[0])

    def _unanswered(self, request: Request, e: OSError, lost: bool) -> OploopError:
        why = self._discreet(str(e))
        if lost:
            return LostAnswer(f"{request.method} {bare(request.url)}: the connection broke before the answer: {why}")
        if isinstance(e, NobodyThere) and is_loopback(self._origin[1]):
            mend = "start what is to answer there (`oploop sandbox` for a stand-in), or check base_url"
            return NoAnswer(f"cannot reach {bare(request.url)}: {why}", mend)
        if isinstance(e, ConnectError):
            return NoAnswer(f"cannot reach {bare(request.url)}: {why}")
        return NoAnswer(f"{request.method} {bare(request.url)} kept breaking off: {why}")

    def _failure(self, answer: Answer, verdict: Verdict, lost: bool) -> OploopError:
        """What the last answer means. `lost`: it, or one before it, leaves open whether a write was done."""
        request = answer.request
        message, code = self.policy.error(answer)
        message = self._discreet(message)
        status = f"HTTP {answer.status}"
        said = status if message == status else f"{status}: {message}"  # an answer without words says its status
        refused = 400 <= answer.status < 500 and answer.status not in (401, 403) and not verdict.retry
        elsewhere = answer.status == 303 and request.method not in ("GET", "HEAD")  # what came of it stands there
        if elsewhere or (lost and not refused):
            return LostAnswer(f"{request.method} {bare(request.url)} failed ({said})", answer)
        if answer.status in (401, 403):
            return FixConfig(
                f"{bare(request.url)} refused the credentials ({said})",
                mend=f"check {self.policy.credential()}",
            )
        if verdict.retry and not verdict.done:
            return RetryLater(f"{bare(request.url)} keeps refusing for now: {message}", after=verdict.after)
        if verdict.retry:
            return RetryLater(f"{request.method} {bare(request.url)} keeps failing ({said})")
        if 300 <= answer.status < 400:
            return NotTheApi(answer)
        return Refused(answer, message, code=code)

    def _discreet(self, text: str) -> str:
        """A text of the other side without our credentials, should it repeat them."""
        for name, value in self._headers.items():
            if _SECRET_HEADER.search(name):
                for word in value.split():
                    text = text.replace(word, "…") if len(word) >= SECRET_FROM else text
        for word in self._auth.secrets() if self._auth is not None else ():
            text = text.replace(word, "…") if len(word) >= SECRET_FROM else text
        return text


def _span(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds >= 5400 else f"{seconds / 60:.0f} minutes"
