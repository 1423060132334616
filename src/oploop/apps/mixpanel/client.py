"""How Mixpanel's APIs behave: three hosts, a service account, limits by the hour, errors.

Sources: docs.mixpanel.com/reference: rate-limits, service-accounts, import-events (auth), raw-event-export, engage-query;
docs/privacy/eu-residency and in-residency (hosts).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import quote

from pydantic import Field, SecretStr

from oploop.apps.base import AppConfig, TimeZone
from oploop.apps.credentials import basic
from oploop.apps.declared import declared
from oploop.apps.transport import Answer, Budget, Policy, Transport
from oploop.runtime import Runtime

#: 30,000 events a second, measured over a minute, are 900 full calls a minute.
INGEST_A_MINUTE = 900
HOUR = 3600.0
EXPORT_TIMEOUT, LONG = 900.0, 300.0  #: seconds; an export may be large, a query slow

SAID = declared(__package__)


class MixpanelConfig(AppConfig):
    """The keys of a `mixpanel` block.

    `service_account` and `secret` read, import events; `token` (the project's) writes profiles. `timezone`: of a project
    that was created before 2023, whose event times are written by its clock. `lookback`: days that each read of events goes
    back for late ones. `groups`: group key -> its data group id (null: it is written, and cannot be read).
    `queries_per_hour` (exports and queries, each) and `exports_per_second`: what Mixpanel grants.
    """

    project_id: int = Field(description="a number, in the project's settings")
    service_account: str = Field(min_length=1, description="its name: acme.1a2b3c.mp-service-account")
    secret: SecretStr = Field(description="of the service account")
    token: SecretStr | None = Field(default=None, description="of the project, to write profiles")
    residency: Literal["us", "eu", "in"] = "us"
    timezone: TimeZone = "UTC"
    lookback: int = Field(default=5, ge=0, le=365)
    groups: dict[str, int | None] = Field(default_factory=dict)
    queries_per_hour: int = Field(default=60, ge=1)
    exports_per_second: int = Field(default=3, ge=1)

    def hosts(self) -> tuple[str, str, str]:
        """Where events and profiles go in, where events come out, and where profiles are asked for."""
        own = SAID.own["hosts"][self.residency]
        return (self.base_url,) * 3 if self.base_url is not None else (own["ingest"], own["export"], own["query"])


class MixpanelPolicy(Policy):
    """What Mixpanel's refusals say: `{"error", "status"}`. What to retry is as everywhere; it sends no `Retry-After`."""

    credentials = "project_id, service_account and secret"
    words = ("error",)


class Client:
    """One project's three APIs; reader and writer share them and their limits."""

    def __init__(self, config: MixpanelConfig, runtime: Runtime) -> None:
        self.config, self.runtime = config, runtime
        self.project = {"project_id": config.project_id}
        ingest, export, query = config.hosts()
        self._budget = Budget(runtime, calls=INGEST_A_MINUTE, window=60.0)
        self.ingest = Transport(
            ingest,
            runtime=runtime,
            headers=basic(config.service_account, config.secret),
            policy=MixpanelPolicy(),
            budget=self._budget,
        )
        self._export, self._query = self.ingest.beside(export), self.ingest.beside(query)

    async def export(self, params: Mapping[str, Any]) -> Answer:
        """GET /api/2.0/export: events, one JSON object a line."""
        await self._budget.beside("export", calls=self.config.queries_per_hour, window=HOUR).take()
        await self._budget.beside("export-second", calls=self.config.exports_per_second, window=1.0).take()
        asked = {**self.project, **params}
        return await self._export.request("GET", "api/2.0/export", params=asked, timeout=EXPORT_TIMEOUT)

    async def engage(self, form: Mapping[str, Any]) -> Answer:
        """POST /api/query/engage: a page of profiles. It only reads."""
        await self._budget.beside("query", calls=self.config.queries_per_hour, window=HOUR).take()
        path, asked = "api/query/engage", self.project
        return await self._query.request("POST", path, params=asked, form=form, idempotent=True, timeout=LONG)

    async def tables(self) -> Answer:
        """GET /lookup-tables: the lookup tables; also the cheapest call that proves a service account, and costs no query."""
        return await self.ingest.request("GET", "lookup-tables", params=self.project)

    async def replace(self, table: str, body: bytes) -> Answer:
        """PUT /lookup-tables/ID: other rows, as CSV, for a lookup table. 100 calls a day. See `write`."""
        path, kind = f"lookup-tables/{quote(table, safe='')}", "text/csv"
        return await self.write(path, self.project, body, method="PUT", content_type=kind, packed=True, timeout=LONG)

    async def write(
        self, path: str, params: Mapping[str, Any], body: bytes, *, method: str = "POST", **more: Any
    ) -> Answer:
        """A changing call; a 400 is an answer too, as it says record by record what was wrong. `more`: see `Transport.request`.

        Not all paths say that they take a body `packed`. All our writes may be sent twice.
        """
        how = {"content_type": "application/json", "idempotent": True, "ok": (400,), **more}
        return await self.ingest.request(method, path, params=params, body=body, **how)


def read_written(answer: Answer) -> dict[str, Any]:
    """The body of an answered write, as an object ({"status": 1} for a bare `1`); LostAnswer when it cannot be read, or says neither
    yes nor no."""
    bare = answer.document()
    return {"status": bare} if isinstance(bare, int) else answer.written(dict, "status")
