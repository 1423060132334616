"""How Zendesk's API behaves: credentials, limits, errors, export pages, background jobs.

Sources: developer.zendesk.com, API reference: introduction (rate limits, job limit, security), job statuses, incremental
exports; OAuth tokens for grant types.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any

from pydantic import Field as ConfigField
from pydantic import SecretStr, field_validator, model_validator

from oploop.apps.base import AppConfig, micros
from oploop.apps.credentials import basic, bearer
from oploop.apps.jobs import ended
from oploop.apps.jsonrows import Records, records_in
from oploop.apps.lists import Page, listed
from oploop.apps.oauth import ClientCredentials, Grant, OAuth, RefreshToken
from oploop.apps.transport import (
    Answer,
    Budget,
    LimitHeaders,
    LostAnswer,
    Policy,
    Quota,
    Sender,
    Transport,
    Verdict,
)
from oploop.errors import FixConfig, FixData, RetryLater
from oploop.runtime import Runtime

LIST_PAGE = 100  #: records a page of a list
EXPORTS_A_MINUTE = 10  #: what every plan has; the answers' own header tells when an account has more
MAX_JOBS = 30  #: jobs that an account may have queued or running
FIRST_POLL, LAST_POLL = 0.2, 5.0  #: seconds between two questions after a job
JOB_PATIENCE = 3600.0  #: seconds after which a job that does not end counts as lost
SETTLING = 60.0  #: seconds that a later run waits for a job whose end nobody heard
JOB_ENDED = frozenset({"completed", "failed", "killed"})
SCOPE = "read write"  #: what a client asks for itself
SUBDOMAIN = re.compile(r"[a-z0-9][a-z0-9-]*", re.IGNORECASE)


class ZendeskConfig(AppConfig):
    """The keys of a `zendesk` block. `api_token` goes with `email`; `oauth_token`, one that does not expire, stands alone; an
    OAuth client has its tokens by `client_id` and `client_secret`, for itself or, with `refresh_token`, for who consented.

    `rate_limit`: calls a minute until the account's own headers say otherwise.
    """

    subdomain: str | None = ConfigField(default=None, description="acme, for https://acme.zendesk.com")
    email: str | None = ConfigField(default=None, description="of the agent whose API token it is")
    api_token: SecretStr | None = ConfigField(default=None, description="made in the Admin Center, under APIs")
    oauth_token: SecretStr | None = None
    client_id: str | None = None
    client_secret: SecretStr | None = None
    refresh_token: SecretStr | None = None
    rate_limit: int = ConfigField(default=400, ge=1)

    @field_validator("subdomain")
    @classmethod
    def _bare_subdomain(cls, value: str | None) -> str | None:
        if value is not None and not SUBDOMAIN.fullmatch(value):
            raise ValueError("write only the first part of the address: acme, for https://acme.zendesk.com")
        return value

    @model_validator(mode="after")
    def _complete(self) -> ZendeskConfig:
        if self.subdomain is None and self.base_url is None:
            raise ValueError("needs subdomain (acme, for https://acme.zendesk.com) or base_url")
        client = (self.client_id, self.client_secret, self.refresh_token)
        if any(client) and (self.oauth_token or self.api_token):
            raise ValueError("has client_id and another token: give the one that is meant")
        if any(client) and not all(client[:2]):
            raise ValueError("needs client_id and client_secret both")
        if not any(client) and self.oauth_token is None and (self.api_token is None or self.email is None):
            raise ValueError("needs email and api_token, or client_id and client_secret, or oauth_token")
        return self

    def address(self) -> str:
        """Where the account answers."""
        return self.base_url or f"https://{self.subdomain}.zendesk.com"

    def grant(self) -> Grant | None:
        """How an OAuth client's tokens are had; each use of a refresh token ends it and gives another. None without one."""
        if self.client_id is None:
            return None
        url = f"{self.address().rstrip('/')}/oauth/tokens"
        if self.refresh_token is None:
            return ClientCredentials(url, self.client_id, self.client_secret, SCOPE, as_json=True)
        return RefreshToken(url, self.client_id, self.client_secret, refresh_token=self.refresh_token, as_json=True)

    def headers(self) -> dict[str, str]:
        """What says who we are; nothing where a grant's token does."""
        if self.client_id is not None:
            return {}
        if self.oauth_token is not None:
            return bearer(self.oauth_token)
        return basic(f"{self.email}/token", self.api_token)


#: The code of a refusal to update a ticket that is no longer as it was read.
OUTDATED = "UpdateConflict"


class ZendeskPolicy(Policy):
    """What Zendesk's statuses, headers and error bodies mean."""

    not_now = {409: None}
    limits = (
        LimitHeaders("ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"),
        LimitHeaders("x-rate-limit", "x-rate-limit-remaining", "ratelimit-reset"),
    )

    def __init__(self, credentials: str = "email and api_token") -> None:
        self.credentials = credentials

    def verdict(self, answer: Answer) -> Verdict:
        """409 is a lock or a concurrent change: nothing was done; but a safe update of a ticket that was changed since would
        be refused again. The rest is as elsewhere."""
        if answer.status == 409 and self.error(answer)[1] == OUTDATED:
            return Verdict(False)
        return super().verdict(answer)

    def error(self, answer: Answer) -> tuple[str, str | None]:
        """Zendesk's words: `error`, `description` and the `details` of each field."""
        return error_text(answer.said(), f"HTTP {answer.status}")


def error_text(body: Any, otherwise: str) -> tuple[str, str | None]:
    """(message, code) of an error body: {"error": code | {title, message}, "description", "details"}."""
    if not isinstance(body, Mapping):
        return otherwise, None
    error = body.get("error")
    if isinstance(error, Mapping):
        code, said = error.get("title"), error.get("message")
    else:
        code, said = error, body.get("description") or body.get("message")
    parts = [str(p) for p in (code, said) if p]
    details = "; ".join(detail_texts(body.get("details")))
    text = ": ".join(parts) or otherwise
    return (f"{text} ({details})" if details else text), None if code is None else str(code)


def detail_texts(details: Any) -> list[str]:
    """The sentences in `details`: a text, or {field: [{"description", "error"}]}; each once."""
    if not details:
        return []
    if isinstance(details, str):
        return [details]
    found: list[str] = []
    if isinstance(details, Mapping) and isinstance(details.get("description"), str):
        found = [details["description"]]
    elif isinstance(details, Mapping):
        for field, value in details.items():
            found += [t if field in ("base", "") or ":" in t else f"{field}: {t}" for t in detail_texts(value)]
    elif isinstance(details, Iterable):
        found = [t for item in details for t in detail_texts(item)]
    return list(dict.fromkeys(found))


class BulkClosed(Exception):
    """The account has no use of a bulk call: imports of users are closed until Zendesk opens them on request."""


class Client:
    """One account's API over one transport; reader and writer share it."""

    def __init__(self, config: ZendeskConfig, runtime: Runtime, sender: Sender | None = None) -> None:
        self.runtime = runtime
        grant, ours = config.grant(), "oauth_token" if config.oauth_token is not None else "email and api_token"
        self.transport = Transport(
            config.address(),
            runtime=runtime,
            headers={**config.headers(), "Accept": "application/json"},
            auth=OAuth(grant, runtime) if grant is not None else None,
            policy=ZendeskPolicy(ours if grant is None else grant.credential),
            budget=Budget(runtime, calls=config.rate_limit, window=60.0),
            sender=sender,
        )
        self._jobs = asyncio.Semaphore(MAX_JOBS)

    async def get(self, path: str, params: Mapping[str, Any] | None = None, *, ok: Iterable[int] = ()) -> Answer:
        """GET /api/v2/`path`."""
        return await self.transport.request("GET", f"api/v2/{path}", params=params, ok=tuple(ok))

    def listed(self, path: str, name: str, asked: Mapping[str, Any] | None = None) -> AsyncGenerator[Page]:
        """The pages of the list at `path`, which the answers call `name`."""
        asked = {"page[size]": LIST_PAGE, **(asked or {})}
        return listed(
            partial(self.get, path), self.runtime, name, asked, "page[after]", "meta.after_cursor", "meta.has_more"
        )

    async def shown(self, path: str, name: str, asked: Mapping[str, Any] | None = None) -> Page:
        """A list that comes in one answer."""
        began, as_of = self.runtime.now(), self.transport.as_of()
        answer = await self.get(path, asked)
        return Page(records_of(answer, name)[1], began, as_of(answer) or micros(began))

    async def export(self, bucket: str, path: str, params: Mapping[str, Any]) -> Answer:
        """One page of an incremental export, within the limit that the exports of this `bucket` share.

        A burst up to the whole minute's allowance goes out at once, so a small read never waits.
        """
        assert self.transport.budget is not None
        budget = self.transport.budget.beside(bucket, calls=EXPORTS_A_MINUTE, window=60.0)
        await budget.take()
        answer = await self.get(f"incremental/{path}", params)
        quota = export_quota(answer.headers)
        if quota is not None:
            budget.learn(quota)
        return answer

    async def write(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        ok: Iterable[int] = (),
    ) -> Answer:
        """A changing call. It is never repeated here once it may have been received: the caller decides (LostAnswer)."""
        return await self.transport.request(
            method, f"api/v2/{path}", params=params, json=json, idempotent=False, ok=tuple(ok)
        )

    async def job(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        may_be_closed: bool = False,
        note: Callable[[str, int | None], Awaitable[None]] | None = None,
    ) -> tuple[Mapping[str, Any], int | None]:
        """Submit a job and wait for its end: (job_status, the app's clock when it was accepted, microseconds). `note` keeps its id
        and that time.

        Raises Refused, FixConfig or RetryLater when it was not accepted, LostAnswer when that or its end cannot be known,
        and with `may_be_closed` BulkClosed when the account has not been given this bulk call (403).
        """
        async with self._jobs:
            answer = await self.write(method, path, params=params, json=json, ok=(403,) if may_be_closed else ())
            if answer.status == 403:
                raise BulkClosed(path)
            status: dict[str, Any] = answer.written(dict, "job_status.id")["job_status"]
            if note is not None and status.get("status") not in JOB_ENDED:
                await note(str(status["id"]), answer.date_micros())
            return await self._wait_for(status), answer.date_micros()

    async def job_of_before(self, job_id: str) -> Mapping[str, Any] | None:
        """The end of a job that was submitted by an earlier call; None when Zendesk does not know it any more.

        Raises LostAnswer when it has not ended after a minute, or cannot be asked after.
        """
        answer = await self.get(f"job_statuses/{job_id}", ok=(404,))
        if answer.status == 404:
            return None
        status = answer.json().get("job_status")
        return await self._wait_for(status, SETTLING) if isinstance(status, dict) else None

    async def _wait_for(self, status: Mapping[str, Any], patience: float = JOB_PATIENCE) -> Mapping[str, Any]:
        """A job's status when it has ended."""
        job_id = status["id"]

        async def ask() -> Mapping[str, Any]:
            try:
                answer = await self.get(f"job_statuses/{job_id}", ok=(404,))
                found = answer.json().get("job_status")
            except (RetryLater, FixConfig) as e:  # the job goes on without us: what became of it is not known
                raise LostAnswer(f"job {job_id} was accepted, but cannot be asked after: {e.message}") from e
            if answer.status == 404 or not isinstance(found, Mapping):
                raise LostAnswer(f"job {job_id} was accepted, but Zendesk does not know it any more")
            return found

        found = await ended(
            ask,
            lambda told: told.get("status") in JOB_ENDED,
            self.runtime,
            waits=(FIRST_POLL, LAST_POLL),
            patience=patience,
            told=status,
        )
        if found is None:
            raise LostAnswer(f"job {job_id} has not ended after {patience / 60:.0f} minutes")
        return found


def export_quota(headers: Mapping[str, str]) -> Quota | None:
    """The exports' own limit, as in `zendesk-ratelimit-incremental-exports: total=10; remaining=9; resets=38`."""
    for name, value in headers.items():
        if name.startswith("zendesk-ratelimit-incremental-exports"):
            told = dict(re.findall(r"(\w+)=(\d+)", value))
            total, remaining, resets = (int(told[k]) if k in told else None for k in ("total", "remaining", "resets"))
            return Quota(total, remaining, resets)
    return None


def records_of(answer: Answer, name: str) -> tuple[dict[str, Any], Records]:
    """(what else an export's answer says of its pages, its list of records); FixData when the list is missing."""
    told, records = records_in(answer, name, "end_of_stream", "after_cursor", "end_time")
    if records is None:
        raise FixData(f"Zendesk's answer has no list of {name}", mend="is base_url a Zendesk account?")
    return told, records
