"""A request, its answer, and what a vendor's rules make of it: what to retry, what the headers say, what an error means."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import orjson

from oploop.apps.budget import DayQuota, Quota
from oploop.apps.documents import at
from oploop.apps.jsonvalues import parsed
from oploop.apps.origin import bare
from oploop.errors import FixConfig, OploopError, RetryLater

T = TypeVar("T")
#: A reset from which on it is a time, in seconds since 1970, and no span.
SINCE_1970 = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request; `url` is absolute."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    timeout: float = 60.0
    hidden: tuple[str, ...] = ()  #: parts of the address that nobody else may see


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
            return parsed(self.body)
        except ValueError:
            raise NotTheApi(self) from None

    def document(self) -> Any:
        """The body parsed as JSON, for the words of a refusal; None where it is none."""
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError:
            return None

    def said(self) -> dict[str, Any]:
        """The body as an object, likewise; empty where it is none."""
        body = self.document()
        return body if isinstance(body, dict) else {}

    def written(self, kind: type[T], member: str | None = None) -> T:
        """The body of an accepted write, parsed as JSON; LostAnswer when it cannot be read, is no `kind` (a dict, a list), or has no
        `member` (a dotted path), by which the vendor's answers attest what was done: nobody knows what was."""
        try:
            body = self.json()
        except NotTheApi as e:
            raise LostAnswer(f"{self._accepted()} cannot be read: {e.message}") from e
        if not isinstance(body, kind):
            raise LostAnswer(f"{self._accepted()} is of another kind: {str(body)[:80]}")
        if member is not None and at(body, member) is None:
            raise LostAnswer(
                f"{self._accepted()} holds no {member}, which would say that it was done: {str(body)[:80]}"
            )
        return body

    def _accepted(self) -> str:
        return f"the write was accepted (HTTP {self.status}), but its answer"

    def date_micros(self) -> int | None:
        """The server's clock from the `Date` header, microseconds since 1970 (whole seconds); None without one."""
        seconds = _date(self.headers.get("date"))
        return None if seconds is None else int(seconds) * 1_000_000


class NotTheApi(FixConfig):
    """What answered is not the API: HTML, truncated JSON, nothing. Usually `base_url` or a proxy is wrong."""

    def __init__(self, answer: Answer) -> None:
        kind = _what_it_is(answer)
        super().__init__(
            f"{answer.request.method} {bare(answer.request.url)} answered {kind} (HTTP {answer.status}) instead of JSON",
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
    """A call was sent (or may have been) and its answer did not arrive, or says nothing: the outcome is unknown. `answer`: the last
    one, where it only says that the call failed."""

    def __init__(self, message: str, answer: Answer | None = None) -> None:
        super().__init__(message)
        self.answer = answer


class NoAnswer(RetryLater):
    """A call that does no harm was made again and again, and nothing answered. Often `base_url` is wrong."""

    #: As for NotTheApi: where a command can go no further, nothing was changed and there is something to mend.
    exit_code = 2

    def __init__(self, message: str, mend: str = "is it up, is base_url right?") -> None:
        super().__init__(message, mend=mend)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a Policy makes of an answer. `retry`: try again (after `after` seconds, if said). `done`: for a write,
    False means that the app certainly did nothing (a 429), so that trying again is safe even without idempotency."""

    retry: bool
    after: float | None = None
    done: bool = True


class LimitHeaders(NamedTuple):
    """The headers of answers that tell the account's limit: calls in a window, how many are left of them, and the seconds until
    it ends, or its end as a time in seconds since 1970."""

    limit: str | None = None
    remaining: str | None = None
    reset: str | None = None


class Policy:
    """A vendor's rules. The default is what most REST APIs do; an app says, or overrides, what its vendor does otherwise."""

    #: The config keys that a 401 or 403 puts in doubt, for the error message.
    credentials: str = "its credentials"
    #: Where a refusal's words stand in its answer, as dotted paths; of several the first that holds any. And its code.
    words: Sequence[str] = ()
    code: str | None = None
    #: Whether the words are to be told with the status.
    with_status: bool = False
    #: The headers that tell the limit; of several the first that an answer has.
    limits: Sequence[LimitHeaders] = ()
    #: Statuses, beside 429, of refusals for now, by which nothing was done: the seconds to wait, where the answer names none.
    not_now: Mapping[int, float | None] = {}
    #: Statuses of failures, by which a call may have been done.
    failures: frozenset[int] = frozenset({408, 500, 502, 503, 504})

    def verdict(self, answer: Answer) -> Verdict:
        """Whether to try again: 429 always (nothing was done), 408 and 5xx when the call may be repeated."""
        after = retry_after(answer.headers)
        if answer.status == 429:
            return Verdict(True, after, done=False)
        if answer.status in self.not_now:
            return Verdict(True, after if after is not None else self.not_now[answer.status], done=False)
        if answer.status == 503 and after is not None:
            return Verdict(True, after, done=False)
        if answer.status in self.failures:
            return Verdict(True, after)
        return Verdict(False)

    def quota(self, answer: Answer) -> Quota | None:
        """The account's limit as the headers tell it; None when they do not."""
        for headers in self.limits:
            limit, remaining, reset = (
                number(answer.headers.get(name.lower())) if name is not None else None for name in headers
            )
            if limit is None and remaining is None:
                continue
            if reset is not None and reset >= SINCE_1970:
                reset = max(0.0, reset - ((answer.date_micros() or 0) / 1_000_000 or reset))
            return Quota(_whole(limit), _whole(remaining), reset)
        return None

    def day(self, answer: Answer) -> DayQuota | None:
        """The account's calls of the day as the headers tell them; None when this answer does not."""
        return None

    def tells_day(self) -> bool:
        """Whether the app's answers tell the day's quota at all, so that `budget: {keep_daily: ...}` can be kept."""
        return type(self).day is not Policy.day

    def error(self, answer: Answer) -> tuple[str, str | None]:
        """(message, code) of a refusal, in the vendor's words."""
        body = answer.document()
        said = next((told for path in self.words if (told := at(body, path))), None)
        if isinstance(said, Mapping):
            said = said.get("message", said)
        code = at(body, self.code) if self.code is not None else None
        status = f"HTTP {answer.status}"
        text = f"{status}: {said}" if said and self.with_status else str(said or status)
        return text, None if code is None else str(code)

    def credential(self) -> str:
        """`credentials`, as this account has them."""
        return self.credentials


def number(text: str | None) -> float | None:
    """A header's number; its first, of a list ("100, 100;w=60"); None where it has none."""
    try:
        return None if text is None else float(text.partition(",")[0].partition(";")[0])
    except ValueError:
        return None


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


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


@lru_cache(64)  # a server says one second's again and again
def _date(value: str | None) -> float | None:
    """An HTTP date as seconds since 1970."""
    try:
        return None if value is None else parsedate_to_datetime(value).timestamp()
    except ValueError:
        return None


def _what_it_is(answer: Answer) -> str:
    start = answer.body[:200].lstrip()
    if not start:
        return "nothing"
    if start[:1] == b"<":
        return "HTML"
    if start[:1] in b"{[":
        return "truncated JSON"
    return "something else"
