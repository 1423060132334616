"""Stripe: customers, charges, refunds, subscriptions, invoices, products, prices in; customers out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, ClassVar

from pydantic import Field, SecretStr, field_validator

from oploop.apps.arrow import table_from_records
from oploop.apps.base import Account, App, AppConfig
from oploop.apps.stripe.client import StripeClient, StripePolicy, auth_headers
from oploop.apps.stripe.objects import send_change
from oploop.apps.stripe.reader import Reader
from oploop.apps.stripe.streams import OBJECTS, RESOURCES, STREAMS
from oploop.apps.transport import Budget, NotTheApi, Transport
from oploop.records import Batch, Cursor, ReadOptions, Receipt, Step
from oploop.runtime import Runtime


class StripeConfig(AppConfig):
    """`rate_limit`: calls a second. 25 is the limit of a test account, and of one endpoint of a live one; a live account
    may make 100 in all (docs.stripe.com/rate-limits), which the company's own payments need too.
    """

    api_key: SecretStr = Field(description="a secret or restricted key: sk_..., rk_...")
    base_url: str = "https://api.stripe.com"
    rate_limit: int = Field(25, ge=1)

    @field_validator("api_key")
    @classmethod
    def _secret(cls, value: SecretStr) -> SecretStr:
        key = value.get_secret_value()
        if key.startswith("pk_"):
            raise ValueError(
                "is a publishable key (pk_…), which can read nothing; use a secret or restricted one (sk_…, rk_…)"
            )
        if not key or key != key.strip() or not key.isascii():
            raise ValueError("is empty, or has blanks or foreign characters in it; copy it again")
        return value


class StripeApp(App):
    """Stripe, both directions."""

    type: ClassVar[str] = "stripe"
    title: ClassVar[str] = "Stripe"
    limits: ClassVar[str] = "25 calls a second (`rate_limit`)"
    Config = StripeConfig
    streams = STREAMS
    objects = OBJECTS

    def __init__(self, name: str, config: StripeConfig, runtime: Runtime) -> None:
        super().__init__(name, config, runtime)
        self.transport: Transport = Transport(
            config.base_url,
            runtime=runtime,
            headers=auth_headers(config.api_key),
            policy=StripePolicy(),
            budget=Budget(runtime, calls=config.rate_limit),
        )
        self.client = StripeClient(self.transport)

    async def check(self) -> Account:
        """Whose account the key opens. A restricted key that may not ask that is tried on customers instead."""
        answer = await self.client.get("/v1/account", ok=(403,))
        if answer.status == 403:
            page = await self.client.page("/v1/customers", {"limit": 1})
            mode = "live mode" if page.records and page.records[0].get("livemode") else "mode unknown"
            return Account(f"an account whose name the restricted key may not see, {mode}")
        body = answer.json()
        if not isinstance(body, dict) or body.get("object") != "account":
            raise NotTheApi(answer)
        return Account(f"{_name_of(body)} ({body['id']}), {self._mode()}", body["id"])

    def _mode(self) -> str:
        return "test mode" if "_test_" in self.config.api_key.get_secret_value() else "live mode"

    def read(self, stream: str, cursor: Cursor | None, options: ReadOptions) -> AsyncIterator[Batch]:
        """See `reader`: a list first, then events."""
        return Reader(self.client, RESOURCES[stream], options).read(cursor)

    async def fetch(self, object_name: str, remote_ids: Sequence[str]) -> Batch:
        """One call a record, several at once. Deleted and unknown ones are rows with `_deleted`.

        `_version` is one more than the second's beginning: later than a write acknowledged in that second, and no later
        than an event of it, so that it supersedes the one and never hides the other.
        """
        resource = RESOURCES[self.objects[object_name].stream or object_name]
        began = self.runtime.now()
        known = await self.client.many(resource.path, remote_ids)
        table = table_from_records(
            resource.stream,
            [record or {"id": i, "object": resource.object} for i, (record, _) in known.items()],
            versions=[as_of + 1 for _, as_of in known.values()],
            extracted_at=began,
            deleted=[record is None for record, _ in known.values()],
        )
        return Batch(resource.stream.name, table)

    async def send(self, step: Step) -> list[Receipt]:
        """One call a change. What a step could not do for one record is in that record's receipt."""
        self.objects[step.object]  # LookupError for what Stripe does not take
        sends = (send_change(self.client, step.id, step.op, change) for change in step.changes)
        return list(await asyncio.gather(*sends))


def _name_of(account: dict[str, Any]) -> str:
    profile = account.get("business_profile") or {}
    dashboard = (account.get("settings") or {}).get("dashboard") or {}
    return profile.get("name") or dashboard.get("display_name") or account.get("email") or "an account without a name"


__all__ = ["StripeApp", "StripeConfig"]
