"""A made-up company, Acme Boards, as its three apps would show it: the same each time, relative to a given instant.

All of it happened before the UTC midnight that `now` follows, so that the demo's numbers do not depend on the hour at
which it is run, and each time lies in the same distance from that midnight.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from oploop.demo.accounts import CUSTOMERS, Account, make_accounts
from oploop.demo.activity import EVENTS, make_events
from oploop.demo.billing import CHARGES, make_billing
from oploop.demo.support import OPEN_TICKETS, TICKETS, make_support

SEED = 2_024
#: Records a call of POST /_sandbox/load, which stays below 1 MB.
LOAD_ROWS, LOAD_EVENTS = 1_000, 2_500


@dataclass(frozen=True, slots=True)
class Company:
    """All records by app and kind, in the shapes that the sandboxes load. `user_of`: Zendesk user by Stripe customer."""

    anchor: datetime
    accounts: list[Account]
    records: dict[str, dict[str, list[dict[str, Any]]]]
    user_of: dict[str, int]

    def actor(self, role: str) -> Account:
        """The account that plays a part of the story."""
        return next(a for a in self.accounts if a.role == role)

    def subscription_of(self, account: Account) -> str:
        """The id of an account's subscription."""
        subscriptions = self.records["stripe"]["subscriptions"]
        return next(str(s["id"]) for s in subscriptions if s["customer"] == account.id)

    def open_tickets_of(self, account: Account) -> list[dict[str, Any]]:
        """The tickets of an account's contact that are not solved or closed, oldest first."""
        user = self.user_of[account.id]
        tickets = self.records["zendesk"]["tickets"]
        return [t for t in tickets if t["requester_id"] == user and t["status"] not in ("solved", "closed")]

    def loads(self, app: str) -> Iterator[dict[str, list[dict[str, Any]]]]:
        """Bodies for POST /_sandbox/load of one app, in the order in which records need each other."""
        for kind, records in self.records[app].items():
            rows = LOAD_EVENTS if kind == "events" else LOAD_ROWS
            for at in range(0, len(records), rows):
                yield {kind: records[at : at + rows]}

    def count(self, app: str, kind: str) -> int:
        return len(self.records[app][kind])


def make_company(now: datetime, *, scale: float = 1.0, seed: int = SEED) -> Company:
    """The company as of `now` (aware). `scale` shrinks it, for tests; the story's accounts are always in it."""
    anchor = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    seconds = int(anchor.timestamp())
    chance = random.Random(seed)

    def scaled(count: int) -> int:
        return max(40, round(count * scale))

    accounts = make_accounts(chance, scaled(CUSTOMERS))
    billing = make_billing(chance, accounts, seconds, scaled(CHARGES))
    support = make_support(chance, accounts, seconds, scaled(TICKETS), scaled(OPEN_TICKETS))
    events = make_events(chance, accounts, seconds, scaled(EVENTS))
    records = {"stripe": billing, "zendesk": support.records, "segment": {"events": events}}
    return Company(anchor, accounts, records, support.user_of)
