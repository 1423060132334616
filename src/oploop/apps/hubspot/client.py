"""How HubSpot's API behaves: credentials, limits, errors, the account's types and properties.

Sources: developers.hubspot.com, API reference: usage guidelines (limits, headers, `policyName`), error handling (423, 477,
524), CRM search (4 to 5 calls a second, no limit headers), schemas, properties, account information.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

from pydantic import Field as ConfigField
from pydantic import SecretStr, model_validator

from oploop.apps.base import AppConfig
from oploop.apps.credentials import bearer
from oploop.apps.jsonrows import Records, records_in
from oploop.apps.lists import Page, listed
from oploop.apps.oauth import OAuth, RefreshToken
from oploop.apps.policy import number
from oploop.apps.transport import Answer, Budget, DayQuota, LimitHeaders, Policy, Quota, Sender, Transport, Verdict
from oploop.errors import FixConfig, FixData, did_you_mean
from oploop.runtime import Runtime

ADDRESS = "https://api.hubapi.com"
STANDARD = ("contacts", "companies", "deals", "tickets")
TYPE_ID = re.compile(r"\d+-\d+")
WINDOW = 10.0  #: seconds in which the account's calls are counted
SEARCHES = 4  #: a second, for all searches of a token
#: Seconds to wait where a refusal names the limit and not the time. A day's end is reckoned in the account's own zone.
WAITS: Mapping[str, float] = {"SECONDLY": 1.0, "TEN_SECONDLY_ROLLING": WINDOW}
UNKNOWN_DAY = 3600.0  #: seconds until the day's limit is asked again, while the account's zone is not known
LOCKED = 2.0  #: seconds for which a record stays locked (423)
MIGRATING = 60.0


class HubSpotConfig(AppConfig):
    """The keys of a `hubspot` block: the token of a private app, or what an OAuth app renews its tokens with.

    `rate_limit`: calls in ten seconds until the account's own headers say otherwise.
    """

    access_token: SecretStr | None = ConfigField(default=None, description="of a private app: pat-...")
    client_id: str | None = None
    client_secret: SecretStr | None = None
    refresh_token: SecretStr | None = None
    rate_limit: int = ConfigField(default=100, ge=1)

    @model_validator(mode="after")
    def _complete(self) -> HubSpotConfig:
        renewing = (self.client_id, self.client_secret, self.refresh_token)
        if self.access_token is not None and any(renewing):
            raise ValueError("has access_token and refresh_token: give the one that is meant")
        if self.access_token is None and not all(renewing):
            raise ValueError("needs access_token (of a private app), or client_id, client_secret and refresh_token")
        return self

    def grant(self) -> RefreshToken | None:
        """How an OAuth app's tokens are renewed; None for a private app."""
        if self.client_id is None or self.refresh_token is None:
            return None
        url = f"{(self.base_url or ADDRESS).rstrip('/')}/oauth/v1/token"
        return RefreshToken(url, self.client_id, self.client_secret, refresh_token=self.refresh_token)


class HubSpotPolicy(Policy):
    """What HubSpot's statuses, headers and error bodies mean. `zone`: the account's, in which its day ends."""

    limits = (LimitHeaders("x-hubspot-ratelimit-max", "x-hubspot-ratelimit-remaining"),)
    not_now = {423: LOCKED, 477: MIGRATING}
    failures = Policy.failures | {521, 522, 523, 524}

    def __init__(self, runtime: Runtime, credential: str = "access_token") -> None:
        self._runtime, self.credentials = runtime, f"{credential}, and the scopes that its app was given"
        self.zone: ZoneInfo | None = None

    def verdict(self, answer: Answer) -> Verdict:
        told = super().verdict(answer)
        return replace(told, after=self._wait(answer)) if answer.status == 429 and told.after is None else told

    def _wait(self, answer: Answer) -> float | None:
        policy = str(answer.said().get("policyName") or "").upper()
        return self.until_midnight() if "DAILY" in policy else WAITS.get(policy)

    def until_midnight(self) -> float:
        """Seconds until the account's next day."""
        if self.zone is None:
            return UNKNOWN_DAY
        now = self._runtime.now().astimezone(self.zone)
        midnight = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
        return (midnight.astimezone(UTC) - now.astimezone(UTC)).total_seconds() + 1.0

    def quota(self, answer: Answer) -> Quota | None:
        """Of the last ten seconds; searches have none."""
        told = super().quota(answer)
        return None if told is None or told.limit is None else Quota(told.limit, told.remaining, reset=1.0)

    def day(self, answer: Answer) -> DayQuota | None:
        """From `X-HubSpot-RateLimit-Daily` and `-Daily-Remaining`, which private apps are told; until the account's midnight."""
        limit, left = (number(answer.headers.get(f"x-hubspot-ratelimit-daily{n}")) for n in ("", "-remaining"))
        if not limit or left is None:
            return None
        return DayQuota(int(limit), int(left), self.until_midnight() if self.zone is not None else None)

    def error(self, answer: Answer) -> tuple[str, str | None]:
        return error_text(answer.said(), f"HTTP {answer.status}")


def error_text(body: Mapping[str, Any], otherwise: str) -> tuple[str, str | None]:
    """(message, category) of an error: {category, message, errors: [{message}]}. All its parts may be missing."""
    said = str(body.get("message") or otherwise)
    details = [str(e["message"]) for e in body.get("errors") or () if isinstance(e, Mapping) and e.get("message")]
    more = "; ".join(d for d in dict.fromkeys(details) if d not in said)
    category = body.get("category")
    return (f"{said} ({more})" if more else said), None if category is None else str(category)


class Client:
    """One account's API over one transport; reader and writer share it, and what is known of the account's types."""

    def __init__(self, config: HubSpotConfig, runtime: Runtime, sender: Sender | None = None) -> None:
        self.runtime = runtime
        grant, token = config.grant(), config.access_token
        self.policy = HubSpotPolicy(runtime, "access_token" if grant is None else grant.credential)
        self.transport = Transport(
            config.base_url or ADDRESS,
            runtime=runtime,
            headers={
                "Accept": "application/json",
                **(bearer(token) if token is not None else {}),
            },
            auth=OAuth(grant, runtime) if grant is not None else None,
            policy=self.policy,
            budget=Budget(runtime, calls=config.rate_limit, window=WINDOW),
            sender=sender,
        )
        self._schemas: Sequence[Mapping[str, Any]] | None = None
        self._properties: dict[str, Sequence[Mapping[str, Any]]] = {}
        self._asking = asyncio.Lock()

    async def get(self, path: str, params: Sequence[tuple[str, str]] | Mapping[str, Any] | None = None) -> Answer:
        return await self.transport.request("GET", path, params=params)

    def listed(self, path: str, asked: Mapping[str, Any]) -> AsyncGenerator[Page]:
        """The pages of the list at `path`."""
        return listed(partial(self.get, path), self.runtime, "results", asked, "after", "paging.next.after")

    async def ask(self, path: str, body: Any) -> Answer:
        """A POST that changes nothing."""
        return await self.transport.request("POST", path, json=body, idempotent=True)

    async def search(self, path: str, body: Any) -> Answer:
        """A search, within the limit that all searches share."""
        assert self.transport.budget is not None
        await self.transport.budget.beside("search", calls=SEARCHES, window=1.0).take()
        return await self.ask(path, body)

    async def write(self, method: str, path: str, body: Any, *, safe: bool) -> Answer:
        """A changing call. `safe`: made twice it does no harm."""
        return await self.transport.request(method, path, json=body, idempotent=safe)

    # -- what the account has ------------------------------------------------------------------------------------------

    async def schemas(self) -> Sequence[Mapping[str, Any]]:
        """The account's custom objects; asked for once."""
        async with self._asking:
            if self._schemas is None:
                self._schemas = results_of(await self.get("crm-object-schemas/v3/schemas"))
            return self._schemas

    async def schema(self, name: str) -> Mapping[str, Any] | None:
        """A custom object's schema by its name, full name or type id; None for a standard object."""
        if name in STANDARD:
            return None
        schemas = await self.schemas()
        for schema in schemas:
            if name in (schema.get("name"), schema.get("fullyQualifiedName"), schema.get("objectTypeId")):
                return schema
        known = [*STANDARD, *(str(s["name"]) for s in schemas if s.get("name"))]
        raise FixConfig(f"HubSpot has no object {name!r} in this account", mend=did_you_mean(name, known))

    async def type_of(self, name: str) -> str:
        """The name of a type in addresses."""
        schema = await self.schema(name)
        return name if schema is None else str(schema["objectTypeId"])

    async def properties(self, name: str) -> Sequence[Mapping[str, Any]]:
        """The definitions of an object's properties that are in use; asked for once."""
        kind = await self.type_of(name)
        async with self._asking:
            if kind not in self._properties:
                found = results_of(await self.get(f"crm/v3/properties/{kind}"))
                self._properties[kind] = [p for p in found if not p.get("archived") and p.get("name")]
            return self._properties[kind]

    def clock(self, answer: Answer) -> datetime:
        """The app's time of an answer, else ours."""
        at = answer.date_micros()
        return self.runtime.now() if at is None else datetime.fromtimestamp(at / 1e6, UTC)


def results_of(answer: Answer, key: str = "results") -> list[dict[str, Any]]:
    """An answer's list of records; FixData when there is none."""
    return list(page_of(answer, key)[0])


def page_of(answer: Answer, key: str = "results") -> tuple[Records, str | None]:
    """An answer's records as they stand in it, and where the next page begins."""
    told, records = records_in(answer, key, "paging")
    if records is None:
        raise FixData(f"HubSpot's answer has no list of {key}", mend="is base_url HubSpot's address?")
    return records, next_after(told)


def next_after(body: Mapping[str, Any]) -> str | None:
    """Where the next page begins; None after the last."""
    after = ((body.get("paging") or {}).get("next") or {}).get("after")
    return None if after is None else str(after)
