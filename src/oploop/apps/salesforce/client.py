"""How Salesforce's API behaves: credentials, limits, errors.

Sources: REST API Developer Guide (authorization, status codes and error responses, limits), Bulk API 2.0 guide; Connected Apps
(OAuth 2.0 client credentials, refresh token, JWT bearer).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import Field as ConfigField
from pydantic import SecretStr, field_validator, model_validator

from oploop.apps.base import AppConfig
from oploop.apps.oauth import ClientCredentials, Grant, JwtBearer, OAuth, RefreshToken
from oploop.apps.transport import Answer, Budget, DayQuota, Policy, Transport, Verdict
from oploop.runtime import Runtime

DOMAIN = re.compile(r"[a-z0-9][a-z0-9-]*(\.sandbox)?", re.IGNORECASE)
LOGIN_HOSTS = ("login.salesforce.com", "test.salesforce.com")
#: Seconds to leave an org alone that says its day's calls are used up: the limit counts the last 24 hours.
LIMITED = 3600.0
#: Kinds of failure that say nothing against the record, so that a later try may succeed.
PASSING = frozenset(
    {
        "UNABLE_TO_LOCK_ROW",
        "SERVER_UNAVAILABLE",
        "QUERY_TIMEOUT",
        "REQUEST_RUNNING_TOO_LONG",
        "CANNOT_EXECUTE_FLOW_TRIGGER_LOCK",
        "TXN_SECURITY_METERING_ERROR",
        "CONCURRENT_REQUESTS_LIMIT_EXCEEDED",
    }
)
USAGE = re.compile(r"(?:^|[\s,;])api-usage=(\d+)/(\d+)")


class SalesforceConfig(AppConfig):
    """The keys of a `salesforce` block. `domain`: of My Domain, `acme` for https://acme.my.salesforce.com (of a sandbox,
    `acme--dev.sandbox`). Credentials of a connected app: `client_id` with `client_secret` (client credentials), with
    `refresh_token`, or with `username` and `private_key` (JWT bearer)."""

    domain: str | None = ConfigField(default=None, description="acme, for https://acme.my.salesforce.com")
    client_id: str = ConfigField(description="of a connected app: its consumer key")
    client_secret: SecretStr | None = ConfigField(default=None, description="its consumer secret")
    refresh_token: SecretStr | None = None
    username: str | None = None
    private_key: SecretStr | None = None
    api_version: str = "62.0"
    #: seconds by which a read goes back before the newest SystemModstamp seen: long transactions show late
    overlap: float = ConfigField(default=600.0, ge=0)
    #: a read of more rows than so many goes by Bulk API
    bulk_read_from: int = ConfigField(default=20_000, ge=1)

    @field_validator("domain")
    @classmethod
    def _bare_domain(cls, value: str | None) -> str | None:
        if value is not None and not DOMAIN.fullmatch(value):
            raise ValueError(
                "write only the first part of My Domain's address: acme, for https://acme.my.salesforce.com"
            )
        return value

    @field_validator("api_version", mode="before")
    @classmethod
    def _version(cls, value: Any) -> str:
        text = str(value).removeprefix("v")
        if not re.fullmatch(r"\d\d\.0", text):
            raise ValueError("looks like 62.0")
        return text

    @model_validator(mode="after")
    def _complete(self) -> SalesforceConfig:
        if self.domain is None and self.base_url is None:
            raise ValueError("needs domain (acme, for https://acme.my.salesforce.com) or base_url")
        if self.base_url is not None and any(h in self.base_url for h in LOGIN_HOSTS):
            raise ValueError("base_url must be the org's own address, https://acme.my.salesforce.com: use domain")
        if (self.private_key is None) != (self.username is None):
            raise ValueError("private_key and username go together")
        if self.private_key is None and self.refresh_token is None and self.client_secret is None:
            raise ValueError("needs client_secret, or refresh_token, or username and private_key")
        return self

    def address(self) -> str:
        """Where the org answers."""
        return (self.base_url or f"https://{self.domain}.my.salesforce.com").rstrip("/")

    def grant(self) -> Grant:
        """How a token is asked for."""
        url = f"{self.address()}/services/oauth2/token"
        if self.private_key is not None:
            sandbox = self.domain is not None and self.domain.lower().endswith(".sandbox")
            audience = f"https://{LOGIN_HOSTS[1 if sandbox else 0]}"
            return JwtBearer(
                url, self.client_id, private_key=self.private_key, claims={"sub": self.username, "aud": audience}
            )
        if self.refresh_token is not None:
            return RefreshToken(url, self.client_id, self.client_secret, refresh_token=self.refresh_token)
        return ClientCredentials(url, self.client_id, self.client_secret)


class SalesforcePolicy(Policy):
    """What Salesforce's statuses, headers and error bodies mean."""

    def __init__(self, credentials: str) -> None:
        self.credentials = credentials

    def verdict(self, answer: Answer) -> Verdict:
        """A 403 that speaks of the day's limit was not done, nor will be soon; locks and the like were not done either."""
        code = self.error(answer)[1]
        if answer.status == 403 and code == "REQUEST_LIMIT_EXCEEDED":
            return Verdict(True, LIMITED, done=False)
        if answer.status >= 400 and code in PASSING:
            return Verdict(True, None, done=False)
        return super().verdict(answer)

    def day(self, answer: Answer) -> DayQuota | None:
        """From `Sforce-Limit-Info: api-usage=18/15000`: calls of the last 24 hours."""
        told = USAGE.search(answer.headers.get("sforce-limit-info", ""))
        if told is None:
            return None
        used, limit = int(told[1]), int(told[2])
        return DayQuota(limit, max(0, limit - used))

    def error(self, answer: Answer) -> tuple[str, str | None]:
        """The words of [{"message", "errorCode", "fields"}]."""
        body = answer.document()
        listed = [e for e in body if isinstance(e, Mapping)] if isinstance(body, list) else []
        if not listed:
            return f"HTTP {answer.status}", None
        return "; ".join(map(error_text, listed)), str(listed[0].get("errorCode") or "") or None


def error_text(error: Mapping[str, Any]) -> str:
    """An error in one line: its code, message and fields."""
    code = str(error.get("errorCode") or error.get("statusCode") or "")
    said = str(error.get("message") or "")
    fields = ", ".join(str(f) for f in error.get("fields") or () if str(f) not in said)
    text = f"{code}: {said}" if code and not said.startswith(code) else said or code or "refused without a reason"
    return f"{text} ({fields})" if fields else text


class Client:
    """One org's API over one transport; reader and writer share it."""

    def __init__(self, config: SalesforceConfig, runtime: Runtime) -> None:
        self.config, self.runtime = config, runtime
        self.transport = self.make_transport()

    def make_transport(self, *, counted: bool = True) -> Transport:
        """A transport of the account. Salesforce limits calls by the day, not by the second: the rate is only to be polite."""
        grant = self.config.grant()
        return Transport(
            self.config.address(),
            runtime=self.runtime,
            headers={"Accept": "application/json"},
            auth=OAuth(grant, self.runtime),
            policy=SalesforcePolicy(grant.credential),
            budget=Budget(self.runtime, calls=50) if counted else None,
            gzip=True,
        )

    def path(self, rest: str) -> str:
        return f"services/data/v{self.config.api_version}/{rest}"

    async def get(self, rest: str, params: Mapping[str, Any] | None = None) -> Answer:
        """GET of the API's version; `rest` may be a whole path, as answers give it (`nextRecordsUrl`)."""
        path = rest if rest.startswith("/services/") else self.path(rest)
        return await self.transport.request("GET", path, params=params)

    async def call(
        self, method: str, rest: str, json: Any = None, *, params: Any = None, harmless: bool = False, **more: Any
    ) -> Answer:
        """A call that is repeated by the transport, once it may have been received, only if that is harmless."""
        return await self.transport.request(
            method, self.path(rest), json=json, params=params, idempotent=harmless, timeout=150.0, **more
        )


def before(answer: Answer, seconds: float) -> int | None:
    """The org's clock, in microseconds, just before a call that lasted so long: its records' SystemModstamp is no earlier."""
    at = answer.date_micros()
    return None if at is None else (at - round(seconds * 1e6)) // 1_000_000 * 1_000_000
