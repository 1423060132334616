"""Who the made-up company's customers are: the accounts from which all apps' records are made."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from oploop.demo.ids import stripe_id
from oploop.demo.names import PLACES, firm, person, slug

CUSTOMERS = 2_000
PLANS = ("Starter", "Team", "Enterprise")


@dataclass(slots=True)
class Account:
    """One customer. `age`: days before the anchor at which it came; `wealth`: how much it buys (1: the median);
    `zeal`: how much it uses the product; `state`: of its subscription, None without one; `seats`: what the plan is paid for."""

    id: str
    name: str
    contact: str
    email: str
    country: str
    currency: str
    age: int
    wealth: float
    zeal: float
    plan: str | None
    state: str | None
    seats: int
    is_firm: bool
    role: str | None = None  #: its part in the demo's story
    extra: int = 0  #: story: minor units paid beside the plan
    days: Sequence[int] = field(default_factory=tuple)  #: story: days before the anchor on which it was active
    features: int = 0  #: story: features that it used on those days


@dataclass(frozen=True, slots=True)
class Part:
    """An account of the story: whoever plays it is the same each time, and so is what follows. `extra`: minor units paid
    beside the plan; `days`, `features`: as in Account."""

    role: str
    name: str
    contact: str
    email: str
    country: str
    currency: str
    age: int
    plan: str | None
    state: str | None
    extra: int
    days: tuple[int, ...]
    features: int


#: payer: a modest customer who makes a large payment. leaver: an Enterprise customer who cancels. caller: whose ticket an
#: agent moves by hand. regular, newcomer: who write in between the two turns.
STORY: tuple[Part, ...] = (
    Part("payer", "Whitfield Outfitters", "Naomi Whitfield", "naomi@whitfield-outfitters.example", "US", "usd", 80,
         "Team", "active", 0, (2, 5), 2),
    Part("leaver", "D'Souza Fine Joinery", "Zadie D'Souza", "zadie@dsouza-joinery.example", "GB", "gbp", 430,
         "Enterprise", "active", 0, (4,), 2),
    Part("caller", "Lakshmi Venkatesan", "Lakshmi Venkatesan", "lakshmi.venkatesan@post.example", "IN", "usd", 300,
         None, None, 1_900, (6,), 1),
    Part("regular", "田中精密工業", "田中 陽菜", "hina@tanaka-seimitsu.example", "JP", "jpy", 800,
         "Enterprise", "active", 250_000, (1, 2, 3, 4, 5, 7), 9),
    Part("newcomer", "Bäckerei Müller am Markt", "Jürgen Müller", "juergen@baeckerei-am-markt.example", "DE", "eur", 12,
         "Starter", "trialing", 0, (1, 2), 3),
)  # fmt: skip


def make_accounts(chance: random.Random, count: int) -> list[Account]:
    """The story's accounts first, then as many others as make up `count`."""
    accounts = [
        Account(
            stripe_id(chance, "cus"), p.name, p.contact, p.email, p.country, p.currency, p.age, 1.0, 0.0, p.plan, p.state,
            1, p.name != p.contact, p.role, p.extra, p.days, p.features,
        )
        for p in STORY
    ]  # fmt: skip
    taken = {a.email for a in accounts}
    weights = [p.weight for p in PLACES]
    while len(accounts) < count:
        accounts.append(_account(chance, weights, taken))
    return accounts


def _account(chance: random.Random, weights: Sequence[int], taken: set[str]) -> Account:
    place = chance.choices(PLACES, weights)[0]
    who = person(chance, place)
    wealth = chance.lognormvariate(0.0, 1.55)
    is_firm = chance.random() < min(0.95, 0.35 + 0.2 * wealth)
    name = firm(chance, place, who) if is_firm else who.name
    domain = f"{slug(name) or who.local.rpartition('.')[2]}.example" if is_firm else "post.example"
    email = _unique(f"{who.local}@{domain}", taken)
    plan, state = _subscription(chance, wealth)
    zeal = chance.betavariate(1.1, 2.2) * (1.0 if state in ("active", "trialing", "past_due") else 0.12)
    seats = min(60, int(chance.paretovariate(1.25))) if plan == "Enterprise" else chance.randint(1, 4)
    return Account(
        stripe_id(chance, "cus"), name, who.name, email, place.country, place.currency, chance.randint(4, 900), wealth,
        zeal, plan, state, seats, is_firm,
    )  # fmt: skip


def _unique(email: str, taken: set[str]) -> str:
    local, _, domain = email.partition("@")
    number = 1
    while email in taken:
        number += 1
        email = f"{local}{number}@{domain}"
    taken.add(email)
    return email


def _subscription(chance: random.Random, wealth: float) -> tuple[str | None, str | None]:
    """(plan, state): the larger, the better the plan, more often than not."""
    if chance.random() < 0.2:
        return None, None
    size = wealth * chance.lognormvariate(0.0, 0.5)
    plan = "Enterprise" if size > 9 else "Team" if size > 1.9 else "Starter"
    state = chance.choices(("active", "trialing", "past_due", "canceled"), (80, 5, 5, 10))[0]
    return plan, state
