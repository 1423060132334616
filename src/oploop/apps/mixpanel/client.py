"""How Mixpanel's APIs behave: three hosts, a service account, limits by the hour, errors.

Sources: docs.mixpanel.com/reference: rate-limits, service-accounts, import-events (auth), raw-event-export, engage-query;
docs/privacy/eu-residency and in-residency (hosts).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import quote
from zoneinfo import ZoneInfo

from pydantic import Field, SecretStr, field_validator

from oploop.apps.base import AppConfig
from oploop.apps.credentials import basic
from oploop.apps.transport import Answer, Budget, LostAnswer, Policy, Transport
from oploop.runtime import Runtime

#: 30,000 events a second, measured over a minute, are 900 full calls a minute.
INGEST_A_MINUTE = 900
HOUR = 3600.0
EXPORT_TIMEOUT = 900.0  #: seconds; an export may be large
_HOSTS = {"us": "", "eu": "-eu", "in": "-in"}
_QUERY_HOSTS = {"us": "", "eu": "eu.", "in": "in."}


class MixpanelConfig(AppConfig):
    """The keys of a `mixpanel` block.

    `service_account` and `secret` read, import events; `token` (the project's) writes profiles. `timezone`: of a project
    that was created before 2023, whose event times are written by its clock. `lookback`: days that each read of events goes
    back for late ones. `groups`: group key -> its data group id (null: it is written, and cannot be read).
    `queries_per_hour` (exports and queries, each) and `exports_per_second`: what Mixpanel grants.
    """

    project_id: int
    service_account: str = Field(min_length=1)
    secret: SecretStr
    token: SecretStr | None = None
    residency: Literal["us", "eu", "in"] = "us"
    timezone: str = "UTC"
    lookback: int = Field(default=5, ge=0, le=365)
    groups: dict[str, int | None] = Field(default_factory=dict)
    queries_per_hour: int = Field(default=60, ge=1)
    exports_per_second: int = Field(default=3, ge=1)

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (KeyError, ValueError, OSError):
            raise ValueError("is no time zone: write it as in Mixpanel's project settings, Europe/Berlin") from None
        return value

    def hosts(self) -> tuple[str, str, str]:
        """Where events and profiles go in, where events come out, and where profiles are asked for."""
        if self.base_url is not None:
            return self.base_url, self.base_url, self.base_url
        suffix, prefix = _HOSTS[self.residency], _QUERY_HOSTS[self.residency]
        return (
            f"https://api{suffix}.mixpanel.com",
            f"https://data{suffix}.mixpanel.com",
            f"https://{prefix}mixpanel.com",
        )


class MixpanelPolicy(Policy):
    """What Mixpanel's refusals say: `{"error", "status"}`. What to retry is as everywhere; it sends no `Retry-After`."""

    credentials = "project_id, service_account and secret"
    words = ("error",)


class Client:
    """One project's three APIs; reader and writer share them and their limits."""

    def __init__(self, config: MixpanelConfig, runtime: Runtime) -> None:
        self.config, self.runtime = config, runtime
        headers = basic(config.service_account, config.secret)
        ingest, export, query = config.hosts()
        policy = MixpanelPolicy()
        budget = Budget(runtime, calls=INGEST_A_MINUTE, window=60.0)
        self.ingest = Transport(ingest, runtime=runtime, headers=headers, policy=policy, budget=budget)
        self._export = Transport(export, runtime=runtime, headers=headers, policy=policy)
        self._query = Transport(query, runtime=runtime, headers=headers, policy=policy)

    async def aclose(self) -> None:
        for transport in (self._export, self._query):
            await transport.aclose()

    def _budget(self, name: str, calls: int, window: float) -> Budget:
        """A limit of the account beside that of writing."""
        assert self.ingest.budget is not None
        return self.ingest.budget.beside(name, calls=calls, window=window)

    async def export(self, params: Mapping[str, Any]) -> Answer:
        """GET /api/2.0/export: events, one JSON object a line."""
        await self._budget("export", self.config.queries_per_hour, HOUR).take()
        await self._budget("export-second", self.config.exports_per_second, 1.0).take()
        asked = {"project_id": self.config.project_id, **params}
        return await self._export.request("GET", "api/2.0/export", params=asked, timeout=EXPORT_TIMEOUT)

    async def engage(self, form: Mapping[str, Any]) -> Answer:
        """POST /api/query/engage: a page of profiles."""
        await self._budget("query", self.config.queries_per_hour, HOUR).take()
        return await self._query.request(
            "POST",
            "api/query/engage",
            params={"project_id": self.config.project_id},
            form=form,
            idempotent=True,  # it only reads
            timeout=300.0,
        )

    async def tables(self) -> Answer:
        """GET /lookup-tables: the lookup tables; also the cheapest call that proves a service account, and costs no query."""
        return await self.ingest.request("GET", "lookup-tables", params={"project_id": self.config.project_id})

    async def replace(self, table: str, body: bytes) -> Answer:
        """PUT /lookup-tables/ID: other rows for a lookup table; a 400 is an answer too. 100 calls a day."""
        return await self.ingest.request(
            "PUT",
            f"lookup-tables/{quote(table, safe='')}",
            params={"project_id": self.config.project_id},
            body=body,
            content_type="text/csv",
            packed=True,
            idempotent=True,
            timeout=300.0,
            ok=(400,),
        )

    async def write(self, path: str, params: Mapping[str, Any], body: bytes, *, packed: bool = False) -> Answer:
        """A changing call; a 400 is an answer too, as it says record by record what was wrong.

        `packed`: send it gzipped (only `/import` says that it takes that). All our writes may be sent twice.
        """
        return await self.ingest.request(
            "POST",
            path,
            params=params,
            body=body,
            content_type="application/json",
            packed=packed,
            idempotent=True,
            ok=(400,),
        )


def read_written(answer: Answer) -> dict[str, Any]:
    """The body of an answered write, as an object ({"status": 1} for a bare `1`); LostAnswer when it cannot be read."""
    body = answer.written()
    if isinstance(body, int):
        return {"status": body}
    if not isinstance(body, dict):
        raise LostAnswer("Mixpanel's answer is no object")
    return body
