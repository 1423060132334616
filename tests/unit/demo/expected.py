"""What the demo's models should say, worked out from the generated records in plain Python: not from the models."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

Records = list[dict[str, Any]]
USD = {"usd": Decimal(1), "eur": Decimal("1.08"), "gbp": Decimal("1.27"), "jpy": Decimal("0.0067")}
UNIT = {"usd": Decimal("0.01"), "eur": Decimal("0.01"), "gbp": Decimal("0.01"), "jpy": Decimal(1)}
LIVE = ("active", "trialing", "past_due")


@dataclass(frozen=True)
class Ranked:
    """A ticket as it should be ranked. `account`: the customer's id, None for strangers."""

    priority: str
    reason: str
    score: int
    account: str | None


@dataclass(frozen=True)
class Health:
    plan: str | None
    state: str | None
    last_year: Decimal
    days: int
    features: int
    coefficient: float
    health: int


def half_up(x: float, digits: int = 0) -> float:
    """Rounded as SQL does it: halves away from zero."""
    return math.floor(x * 10**digits + 0.5) / 10**digits


def day(seconds: int) -> date:
    return datetime.fromtimestamp(seconds, UTC).date()


def as_of(events: Records) -> date:
    newest = max(e["receivedAt"] for e in events if e["type"] == "track")
    return date.fromisoformat(newest[:10])


def spend(stripe: Mapping[str, Records], until: date) -> dict[str, Decimal]:
    """Dollars of the last 365 days, by customer."""
    back: dict[str, int] = defaultdict(int)
    for r in stripe["refunds"]:
        if r["status"] in ("succeeded", "pending"):
            back[r["charge"]] += r["amount"]
    total: dict[str, Decimal] = defaultdict(Decimal)
    for c in stripe["charges"]:
        taken = c.get("status", "succeeded") == "succeeded" and c.get("captured", True)
        if taken and day(c["created"]) > until - timedelta(days=365):
            total[c["customer"]] += (c["amount"] - back[c["id"]]) * UNIT[c["currency"]] * USD[c["currency"]]
    return {k: v.quantize(Decimal("0.01"), ROUND_HALF_UP) for k, v in total.items()}


def activity(events: Records, until: date) -> dict[str, tuple[int, int, float]]:
    """(active days, features, coefficient) by user."""
    seen = {e["messageId"]: e for e in events if e["type"] == "track" and e["userId"]}
    days, logins, features = defaultdict(set), defaultdict(int), defaultdict(set)
    for e in seen.values():
        on = date.fromisoformat(e["timestamp"][:10])
        if not until - timedelta(days=6) <= on <= until:
            continue
        days[e["userId"]].add(on)
        if e["event"] == "Logged In":
            logins[e["userId"]] += 1
        else:
            features[e["userId"]].add(e["event"])
    found = {}
    for user, on_days in days.items():
        d, f, n = len(on_days), len(features[user]), logins[user]
        found[user] = (d, f, half_up(0.5 * d / 7 + 0.3 * min(f, 8) / 8 + 0.2 * min(n, 14) / 14, 3))
    return found


def subscriptions(stripe: Mapping[str, Records]) -> dict[str, tuple[str, str]]:
    """(plan, state) of each customer's subscription that counts."""
    names = {p["id"]: p["name"] for p in stripe["products"]}
    product = {p["id"]: names[p["product"]] for p in stripe["prices"]}
    best: dict[str, dict[str, Any]] = {}
    for s in stripe["subscriptions"]:
        old = best.get(s["customer"])
        if old is None or (s["status"] in LIVE, s["created"]) > (old["status"] in LIVE, old["created"]):
            best[s["customer"]] = s
    return {c: (product[s["items"][0]["price"]], s["status"]) for c, s in best.items()}


def health(stripe: Mapping[str, Records], events: Records) -> dict[str, Health]:
    """Account health by customer."""
    until = as_of(events)
    paid, active, plans = spend(stripe, until), activity(events, until), subscriptions(stripe)
    found = {}
    for customer in stripe["customers"]:
        key = customer["id"]
        money = paid.get(key, Decimal("0.00"))
        d, f, coefficient = active.get(key, (0, 0, 0.0))
        plan, state = plans.get(key, (None, None))
        scale = min(1.0, math.log(1 + max(float(money), 0)) / math.log(50001))
        stays = {"active": 20, "trialing": 14, "past_due": 8}.get(state or "", 0)
        score = int(half_up(50 * scale + 30 * coefficient + stays))
        found[key] = Health(plan, state, money, d, f, coefficient, score)
    return found


def requesters(stripe: Mapping[str, Records], zendesk: Mapping[str, Records]) -> dict[int, str | None]:
    """The customer whom each user writes for."""
    customers = {c["id"] for c in stripe["customers"]}
    mails: dict[str, list[str]] = defaultdict(list)
    for c in stripe["customers"]:
        mails[c["email"].strip().lower()].append(c["id"])
    firms = {o["id"]: o["external_id"] for o in zendesk["organizations"]}
    found: dict[int, str | None] = {}
    for u in zendesk["users"]:
        same = mails.get(u["email"].strip().lower(), [])
        able = (u.get("external_id"), same[0] if len(same) == 1 else None, firms.get(u.get("organization_id")))
        found[u["id"]] = next((k for k in able if k in customers), None)
    return found


def tickets(stripe: Mapping[str, Records], zendesk: Mapping[str, Records], events: Records) -> dict[int, Ranked]:
    """How each open ticket should be ranked, by its id."""
    until, accounts, who = as_of(events), health(stripe, events), requesters(stripe, zendesk)
    found = {}
    for t in zendesk["tickets"]:
        if t["status"] in ("solved", "closed"):
            continue
        key = who[t["requester_id"]]
        opened = date.fromisoformat(t["created_at"][:10])
        waiting = 0 if t["status"] == "pending" else max(0, (until - opened).days)
        if key is None:
            found[t["id"]] = Ranked("normal", "No customer of ours is known by this address", 30, None)
            continue
        h = accounts[key]
        points = {"Enterprise": 20, "Team": 10}.get(h.plan or "", 4) if h.state in LIVE else 0
        score = int(half_up(0.7 * h.health)) + points + (10 if waiting >= 7 else 5 if waiting >= 3 else 0)
        level = "urgent" if score >= 70 else "high" if score >= 50 else "normal" if score >= 30 else "low"
        found[t["id"]] = Ranked(level, reason(h, opened), score, key)
    return found


def reason(h: Health, opened: date) -> str:
    """The line for the agent."""
    plan = "No plan"
    if h.plan is not None:
        state = str(h.state)
        plan = {"active": h.plan, "canceled": f"{h.plan} plan cancelled"}.get(
            state, f"{h.plan} ({state.replace('_', ' ')})"
        )
    step = 10 if h.last_year < 1000 else 100
    money = int((h.last_year / step).quantize(Decimal(1), ROUND_HALF_UP)) * step
    paid = "paid nothing last year" if h.last_year < 5 else f"${money:,} last year"
    used = "not active this week"
    if h.days:
        used = f"active {h.days} of 7 days, {h.features} feature{'' if h.features == 1 else 's'}"
    return f"{plan} · {paid} · {used} · open since {opened.day} {opened:%b}"
