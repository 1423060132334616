"""How Stripe's API behaves: its errors and hints, writes under keys, lists in pages, the server's clock.

Sources: docs.stripe.com/api/errors, /api/idempotent_requests, /api/pagination, /rate-limits.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias
from urllib.parse import quote

import orjson
from pydantic import SecretStr

from oploop.apps.base import micros
from oploop.apps.credentials import bearer
from oploop.apps.jsonrows import Records, records_in
from oploop.apps.lists import each
from oploop.apps.stripe.streams import API_VERSION
from oploop.apps.transport import Answer, NotTheApi, Policy, Refused, Transport, Verdict
from oploop.errors import RetryLater

PAGE = 100  #: the most that a list gives at once
GETS_AT_ONCE = 16
MICRO = 1_000_000

_KEY = re.compile(r"\b(sk|rk|pk)_(live|test)_[\w*]+")


class StripePolicy(Policy):
    """Stripe's own hint, `Stripe-Should-Retry`, wins over the status; there is no Retry-After."""

    credentials = "api_key (secret, or restricted with read rights to what is read and write rights to Customers)"

    def verdict(self, answer: Answer) -> Verdict:
        """429 and 409 (a conflict, a lock) did nothing and are tried again; so are 5xx, but for saved ones: an answer
        that was saved under an idempotency key is the same however often it is asked for."""
        hint = answer.headers.get("stripe-should-retry")
        nothing_done = answer.status in (409, 429)
        if hint in ("true", "false"):
            return Verdict(hint == "true", done=not nothing_done)
        if answer.status >= 500:
            return Verdict("idempotent-replayed" not in answer.headers)
        return Verdict(nothing_done or answer.status == 408, done=not nothing_done)

    def error(self, answer: Answer) -> tuple[str, str | None]:
        """Stripe's message and code, the parameter named; keys in it are blotted out."""
        try:
            error = orjson.loads(answer.body)["error"]
            message = _KEY.sub(r"\1_\2_…", str(error.get("message") or error["type"]))
            code, param = error.get("code"), error.get("param")
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
            return f"HTTP {answer.status}", None
        reason = answer.headers.get("stripe-rate-limited-reason")
        extra = [x for x in (code, param and f"parameter {param}", reason) if x]
        return f"{message} ({', '.join(extra)})" if extra else message, code


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list. `as_of`: seconds since 1970 by the server's clock, at or before the moment that it shows."""

    records: Records
    has_more: bool
    as_of: int
    began: datetime


#: A record by its id (None: there is none, or no longer), and as of when it is known so, microseconds since 1970 by the server's clock:
#: never earlier than a write that was acknowledged before, nor later than the moment of looking (see `Transport.as_of`).
Known: TypeAlias = tuple[dict[str, Any] | None, int]


class StripeClient:
    """The calls that reading and writing are made of, over the account's one transport."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.runtime = transport.runtime

    async def get(self, path: str, params: Mapping[str, Any] | None = None, *, ok: Iterable[int] = ()) -> Answer:
        """A read. Raises RetryLater where Stripe says neither yes nor no."""
        try:
            return await self.transport.request("GET", path, params=params, ok=tuple(ok))
        except Refused as e:
            if e.status >= 500 or e.status in (409, 429):  # refused, with a hint not to try again now
                raise RetryLater(str(e)) from None
            raise

    async def page(self, path: str, params: Mapping[str, Any]) -> Page:
        """One page of a list, newest first (docs.stripe.com/api/pagination)."""
        began, as_of = self.runtime.now(), self.transport.as_of()
        answer = await self.get(path, {"limit": PAGE, **params})
        told, records = records_in(answer, "data", "has_more")
        if records is None:
            raise NotTheApi(answer)
        return Page(records, bool(told.get("has_more")), (as_of(answer) or micros(began)) // MICRO, began)

    async def one(self, path: str) -> Known:
        """One record by its address; see `Known`."""
        as_of = self.transport.as_of()
        answer = await self.get(path, ok=(404,))
        body = answer.json()
        if not isinstance(body, dict) or (answer.status == 404 and "error" not in body):
            raise NotTheApi(answer)
        gone = answer.status == 404 or body.get("deleted") is True
        return None if gone else body, as_of(answer)

    async def many(self, path: str, ids: Iterable[str]) -> dict[str, Known]:
        """Several records of the list at `path` by id, several calls at once."""
        return await each(ids, GETS_AT_ONCE, lambda record_id: self.one(f"{path}/{quote(record_id, safe='')}"))

    async def delete(self, path: str) -> Answer:
        """Delete what stands at `path`. Done twice it does no harm: the second time it is Refused as missing."""
        return await self.transport.request("DELETE", path, idempotent=True)

    async def post(self, path: str, params: Mapping[str, Any], *, key: str) -> Answer:
        """A write under an idempotency key, repeated under it while its outcome is unknown.

        Raises Refused (status < 500: nothing was done; else: it failed, and may have been done), RetryLater when
        certainly nothing was done, LostAnswer when that is unknown after all tries.
        """
        headers = {"Idempotency-Key": key}
        return await self.transport.request("POST", path, form=params, headers=headers, idempotent=True)


def auth_headers(api_key: SecretStr) -> dict[str, str]:
    """The headers of every request."""
    return {**bearer(api_key), "Stripe-Version": API_VERSION, "Accept": "application/json"}
