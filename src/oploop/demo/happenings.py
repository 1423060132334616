"""What happens at the made-up company between two turns of the loop: through the apps' own APIs, as people do it."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import orjson

from oploop.demo.company import Company
from oploop.demo.folder import SECRETS
from oploop.demo.sandboxes import control
from oploop.runtime import Runtime

PAYMENT = 4_800_000  #: cents
AGENT = ("Signe", "signe@acme.example")
BY_HAND = "high"  #: the priority that the agent sets


@dataclass(frozen=True, slots=True)
class Happening:
    """One of them. `told`: a line for people; `tickets`: ids of the tickets that it made or touched."""

    app: str
    told: str
    tickets: tuple[int, ...] = ()


async def happen(company: Company, urls: Mapping[str, str], runtime: Runtime) -> list[Happening]:
    """A payment, a cancellation, new tickets, an agent's change."""
    return [
        await _pay(company, urls["stripe"], runtime),
        await _cancel(company, urls["stripe"], runtime),
        await _write_in(company, urls["zendesk"], runtime),
        await _change_by_hand(company, urls["zendesk"], runtime),
    ]


async def _pay(company: Company, url: str, runtime: Runtime) -> Happening:
    payer = company.actor("payer")
    form = {"amount": PAYMENT, "currency": payer.currency, "customer": payer.id, "description": "Two years in advance"}
    async with control(url, runtime, _stripe()) as stripe:
        await stripe.request(
            "POST", "v1/charges", body=urlencode(form).encode(), content_type="application/x-www-form-urlencoded"
        )
    return Happening("Stripe", f"{payer.name} pays ${PAYMENT // 100:,}")


async def _cancel(company: Company, url: str, runtime: Runtime) -> Happening:
    leaver = company.actor("leaver")
    async with control(url, runtime, _stripe()) as stripe:
        await stripe.request("DELETE", f"v1/subscriptions/{company.subscription_of(leaver)}")
    return Happening("Stripe", f"{leaver.name} cancels its {leaver.plan} plan")


async def _write_in(company: Company, url: str, runtime: Runtime) -> Happening:
    """Three people write, each with their own address."""
    asked = {
        "regular": "Exports have stopped, our plant is waiting",
        "newcomer": "How do I invite my baker?",
        "caller": "One more question",
    }
    made: list[int] = []
    for role, subject in asked.items():
        account = company.actor(role)
        ticket = {"subject": subject, "comment": {"body": f"{subject}."}, "requester_id": company.user_of[account.id]}
        async with control(url, runtime, _zendesk(account.email)) as zendesk:
            answer = await zendesk.request("POST", "api/v2/tickets", json={"ticket": ticket})
        made.append(_ticket(answer.body)["id"])
    names = [company.actor(role).contact for role in asked]
    return Happening("Zendesk", f"{', '.join(names[:-1])} and {names[-1]} write in", tuple(made))


async def _change_by_hand(company: Company, url: str, runtime: Runtime) -> Happening:
    caller = company.actor("caller")
    number = int(company.open_tickets_of(caller)[0]["id"])
    note = {"body": "She called, this cannot wait.", "public": False}
    async with control(url, runtime, _zendesk(AGENT[1])) as zendesk:
        await zendesk.request(
            "PUT", f"api/v2/tickets/{number}", json={"ticket": {"priority": BY_HAND, "comment": note}}
        )
    return Happening("Zendesk", f"{AGENT[0]}, an agent, sets ticket {number} to {BY_HAND} by hand", (number,))


def _stripe() -> dict[str, str]:
    return {"Authorization": f"Bearer {SECRETS['ACME_STRIPE_API_KEY']}"}


def _zendesk(email: str) -> dict[str, str]:
    pair = f"{email}/token:{SECRETS['ACME_ZENDESK_API_TOKEN']}"
    return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}


def _ticket(body: bytes) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(body)["ticket"]
    return found
