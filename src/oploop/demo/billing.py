"""What Stripe holds: products, prices, customers, charges with refunds, subscriptions."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from oploop.demo.accounts import PLANS, Account
from oploop.demo.ids import DAY, stripe_id

CHARGES = 20_000
REFUND_RATE = 0.07
#: Price a month, in minor units of US dollars.
PRICES = {"Starter": 1_900, "Team": 14_900, "Enterprise": 189_000}
#: How many minor units of a currency an American cent is, roughly: for believable amounts only.
PER_CENT = {"usd": 1.0, "eur": 0.92, "gbp": 0.79, "jpy": 1.5}

Records = list[dict[str, Any]]


def make_billing(chance: random.Random, accounts: Sequence[Account], anchor: int, charges: int) -> dict[str, Records]:
    """Records by Stripe's kinds. `anchor`: unix seconds before which all of it happened."""
    products, prices = _catalogue(anchor)
    paid = _charges(chance, accounts, anchor, charges)
    return {
        "products": products,
        "prices": list(prices.values()),
        "customers": [_customer(a, anchor) for a in accounts],
        "charges": paid,
        "refunds": _refunds(chance, paid, anchor),
        "subscriptions": _subscriptions(chance, accounts, prices, anchor),
    }


def _catalogue(anchor: int) -> tuple[Records, dict[tuple[str, str], dict[str, Any]]]:
    born = anchor - 1_000 * DAY
    products = [{"id": f"prod_{p.lower()}", "name": p, "created": born} for p in PLANS]
    prices = {
        (plan, currency): {
            "id": f"price_{plan.lower()}_{currency}",
            "product": f"prod_{plan.lower()}",
            "currency": currency,
            "unit_amount": round(PRICES[plan] * rate),
            "recurring": {"interval": "month", "interval_count": 1, "usage_type": "licensed"},
            "created": born,
        }
        for plan in PLANS
        for currency, rate in PER_CENT.items()
    }
    return products, prices


def _customer(account: Account, anchor: int) -> dict[str, Any]:
    return {
        "id": account.id,
        "name": account.name,
        "email": account.email,
        "description": None if account.name == account.contact else account.contact,
        "currency": account.currency,
        "address": {"country": account.country},
        "created": anchor - account.age * DAY,
    }


def _charges(chance: random.Random, accounts: Sequence[Account], anchor: int, count: int) -> Records:
    """Each plan's monthly price, and purchases beside it: who buys much, buys often and dear. So few customers make most."""
    found: Records = []
    others = [a for a in accounts if not a.role]
    for account in accounts:
        if account.role:
            found += [_charge(chance, account, *paid) for paid in _monthly(chance, account, anchor)]
            if account.extra:
                found.append(_charge(chance, account, account.extra, anchor - 45 * DAY))
    room = count - len(found)
    monthly = [(a, paid) for a in others for paid in _monthly(chance, a, anchor)]
    for account, paid in chance.sample(monthly, min(len(monthly), int(room * 0.8))):
        found.append(_outcome(chance, _charge(chance, account, *paid)))
    weights = list(accumulate(min(a.wealth, 30.0) ** 0.7 for a in others))
    for account in chance.choices(others, cum_weights=weights, k=count - len(found)):
        dollars = 14.0 * account.wealth**0.8 * chance.lognormvariate(0.0, 0.8)
        amount = max(50, round(dollars * 100 * PER_CENT[account.currency]))
        age = chance.random() ** 1.3 * min(account.age, 730) * DAY
        found.append(_outcome(chance, _charge(chance, account, amount, anchor - 1_200 - int(age))))
    return found


def _monthly(chance: random.Random, account: Account, anchor: int) -> list[tuple[int, int]]:
    """(amount, when) of what an account's plan has cost since it began, two years at the most."""
    if account.plan is None or account.state == "trialing":
        return []
    amount = round(PRICES[account.plan] * PER_CENT[account.currency]) * account.seats
    began, ended = _term(account, anchor)
    first = max(began, anchor - 730 * DAY)
    return [(amount, at) for at in range(first + chance.randint(0, 3_600), ended - 1_200, 30 * DAY)]


def _term(account: Account, anchor: int) -> tuple[int, int]:
    """(when an account's subscription began, until when it ran)."""
    began = anchor - max(2, int(account.age * 0.8)) * DAY
    return began, began + max(3_600, int((anchor - began) * 0.9)) if account.state == "canceled" else anchor


def _charge(chance: random.Random, account: Account, amount: int, at: int) -> dict[str, Any]:
    return {
        "id": stripe_id(chance, "ch", 24),
        "customer": account.id,
        "amount": amount,
        "currency": account.currency,
        "created": at,
    }


def _outcome(chance: random.Random, charge: dict[str, Any]) -> dict[str, Any]:
    """Some cards are declined, some payments are only reserved, some are on their way."""
    luck = chance.random()
    if luck < 0.04:
        charge |= {"status": "failed", "captured": False, "failure_code": "card_declined"}
        charge["failure_message"] = "Your card was declined."
    elif luck < 0.05:
        charge["captured"] = False
    elif luck < 0.055:
        charge["status"] = "pending"
    return charge


def _refunds(chance: random.Random, charges: Records, anchor: int) -> Records:
    """Most refunds are whole, some in parts, a few fail and give nothing back."""
    refunds: Records = []
    for charge in charges:
        settled = charge.get("status", "succeeded") == "succeeded" and charge.get("captured", True)
        if not settled or charge["created"] > anchor - 2 * DAY or chance.random() > REFUND_RATE:
            continue
        amount, left = charge["amount"], charge["amount"]
        for share in chance.choices(((1.0,), (0.5,), (0.2, 0.3)), (70, 20, 10))[0]:
            part = max(1, int(amount * share))
            failed = chance.random() < 0.03
            left -= 0 if failed else part
            refunds.append(_refund(chance, charge, part, failed=failed, before=anchor))
        charge["amount_refunded"] = amount - left
    return refunds


def _refund(chance: random.Random, charge: dict[str, Any], amount: int, *, failed: bool, before: int) -> dict[str, Any]:
    at = min(before - 1_200, charge["created"] + chance.randint(3_600, 20 * DAY))
    return {
        "id": stripe_id(chance, "re", 24),
        "charge": charge["id"],
        "amount": amount,
        "currency": charge["currency"],
        "created": at,
        "reason": chance.choice(("requested_by_customer", "duplicate", None)),
        "status": "failed" if failed else "succeeded",
    }


def _subscriptions(
    chance: random.Random, accounts: Sequence[Account], prices: dict[tuple[str, str], dict[str, Any]], anchor: int
) -> Records:
    found: Records = []
    for account in accounts:
        if account.plan is None or account.state is None:
            continue
        price = prices[account.plan, account.currency]
        began, ended = _term(account, anchor)
        found.append(_subscription(chance, account, price, account.state, began, ended))
        if account.plan != "Starter" and account.role is None and chance.random() < 0.15:  # came from a smaller plan
            before = prices["Starter", account.currency]
            earlier = anchor - account.age * DAY
            found.append(_subscription(chance, account, before, "canceled", earlier, began))
    return found


def _subscription(
    chance: random.Random, account: Account, price: dict[str, Any], state: str, began: int, until: int
) -> dict[str, Any]:
    month = 30 * DAY
    record: dict[str, Any] = {
        "id": stripe_id(chance, "sub"),
        "customer": account.id,
        "status": state,
        "currency": account.currency,
        "created": began,
        "start_date": began,
        "billing_cycle_anchor": began,
        "current_period_start": until - (until - began) % month,
        "items": [{"price": price["id"], "quantity": account.seats}],
    }
    if state == "canceled":
        record |= {"canceled_at": until, "ended_at": until}
    elif state == "trialing":
        record |= {"trial_start": began, "trial_end": until + 9 * DAY}
    return record
