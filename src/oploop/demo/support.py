"""What Zendesk holds: ticket fields, organizations, users, tickets."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from oploop.demo.accounts import Account
from oploop.demo.ids import DAY, iso
from oploop.demo.names import PLACES, person, slug

TICKETS = 5_000
OPEN_TICKETS = 600
REASON_FIELD = 360_000_000_101  #: Zendesk's id of the ticket field "Priority reason"
REASON_TITLE = "Priority reason"
AGENTS = (("Tomás Herrera", "tomas"), ("Wanjiru Kamau", "wanjiru"), ("Signe Dahl", "signe"), ("Dev Anand", "dev"))
STRANGERS = 25  #: people who write without being anybody's customer
OPEN_STATUSES = (("new", 22), ("open", 50), ("pending", 21), ("hold", 7))

_FIRST_USER, _FIRST_ORGANIZATION, _FIRST_TICKET = 900_100, 700_100, 10_001

_WHAT = (
    "Board does not load", "Export is missing rows", "Invoice shows the wrong VAT number", "Cannot invite a colleague",
    "Automation ran twice", "Where is the API key?", "Card attachments vanish", "Login link expired", "Please cancel one seat",
    "Report total differs from ours", "Webhook fires late", "Search finds nothing", "Change the billing address",
    "Timezone is off by one hour", "Dark mode is unreadable", "How do we restore a deleted board?", "SSO loop after update",
    "Import stops at row 4,096", "Feature idea: recurring cards", "Refund for the double charge",
)  # fmt: skip
_HOW = ("", "", "", " since this morning", " (again)", " - urgent!!", " on Safari", " for our whole team", "?")

Records = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Support:
    """Records by Zendesk's kinds; `user_of`: the Zendesk user of each account that has one."""

    records: dict[str, Records]
    user_of: dict[str, int]


def make_support(
    chance: random.Random, accounts: Sequence[Account], anchor: int, tickets: int, open_tickets: int
) -> Support:
    """`anchor`: unix seconds before which all of it happened."""
    people = _People(chance, anchor)
    people.add_agents()
    for account in accounts:
        people.add(account)
    people.add_strangers()
    made = _Tickets(chance, people, anchor).make(tickets, open_tickets)
    field = {
        "id": REASON_FIELD,
        "type": "text",
        "title": REASON_TITLE,
        "description": "Why the ticket has its priority",
    }
    records = {
        "ticket_fields": [field],
        "organizations": people.organizations,
        "users": people.users,
        "tickets": made,
    }
    return Support(records, people.user_of)


class _People:
    """Users and organizations. Most users carry their account's Stripe id; some are known by their e-mail only, written in
    another case; colleagues only through their organization, which carries it."""

    def __init__(self, chance: random.Random, anchor: int) -> None:
        self.chance, self.anchor = chance, anchor
        self.users: Records = []
        self.organizations: Records = []
        self.agents: list[int] = []
        self.names: set[str] = set()
        self.user_of: dict[str, int] = {}
        self.writers: list[tuple[int, int | None, float, str | None]] = []  #: (user, organization, eagerness, role)

    def _user(self, name: str, email: str, age: int, **more: Any) -> int:
        number = _FIRST_USER + len(self.users)
        at = iso(self.anchor - age * DAY)
        record = {"id": number, "name": name, "email": email, "verified": True, "created_at": at, "updated_at": at}
        self.users.append({**record, **more})
        return number

    def add_agents(self) -> None:
        for name, local in AGENTS:
            self.agents.append(self._user(name, f"{local}@acme.example", 700, role="agent"))

    def add(self, account: Account) -> None:
        """The account's contact, if it ever wrote, and a colleague or two of larger firms."""
        chance = self.chance
        if account.role is None and chance.random() < 0.12:
            return
        organization = None
        if account.is_firm and (account.role or account.plan in ("Team", "Enterprise")):
            organization = self._organization(account)
        by_mail = account.role is None and chance.random() < 0.1
        email = account.email.title() if by_mail else account.email
        link = {} if by_mail else {"external_id": account.id}
        eagerness = chance.paretovariate(1.4) * (0.4 + account.zeal)
        user = self._user(account.contact, email, account.age, organization_id=organization, **link)
        self.user_of[account.id] = user
        self.writers.append((user, organization, eagerness, account.role))
        if organization is not None and account.role is None and chance.random() < 0.5:
            place = next(p for p in PLACES if p.country == account.country)
            who = person(chance, place)
            domain = account.email.partition("@")[2]
            mail = f"{who.local}.{len(self.users)}@{domain}"
            colleague = self._user(who.name, mail, account.age, organization_id=organization)
            self.writers.append((colleague, organization, eagerness * 0.6, None))

    def _organization(self, account: Account) -> int:
        number = _FIRST_ORGANIZATION + len(self.organizations)
        at = iso(self.anchor - account.age * DAY)
        self.organizations.append(
            {
                "id": number,
                "name": self._free_name(account.name),
                "external_id": account.id,
                "domain_names": [account.email.partition("@")[2]],
                "created_at": at,
                "updated_at": at,
            }
        )
        return number

    def _free_name(self, name: str) -> str:
        """Zendesk has one organization of a name only: the next ones are numbered."""
        found, number = name, 1
        while found in self.names:
            number += 1
            found = f"{name} {number}"
        self.names.add(found)
        return found

    def add_strangers(self) -> None:
        for i in range(STRANGERS):
            who = person(self.chance, self.chance.choice(PLACES))
            email = f"{slug(who.local)}{i}@mail.example"
            self.writers.append((self._user(who.name, email, 30 + i), None, 0.8, None))


class _Tickets:
    """Tickets: the story's open ones, other open ones, and those long done."""

    def __init__(self, chance: random.Random, people: _People, anchor: int) -> None:
        self.chance, self.people, self.anchor = chance, people, anchor
        self.made: Records = []

    def make(self, count: int, open_count: int) -> Records:
        chance = self.chance
        writers = [w for w in self.people.writers if w[3] is None]
        weights = list(accumulate(w[2] for w in writers))
        story = {w[3]: w for w in self.people.writers if w[3] is not None}
        opened: list[tuple[Any, str, float]] = [
            (story["payer"], "open", 1.2), (story["payer"], "open", 0.4), (story["leaver"], "open", 8.6),
            (story["leaver"], "open", 4.1), (story["caller"], "new", 0.7), (story["regular"], "open", 3.3),
        ]  # fmt: skip
        states, shares = [s for s, _ in OPEN_STATUSES], [n for _, n in OPEN_STATUSES]
        fill = max(0, open_count - len(opened))
        opened += [
            (writer, chance.choices(states, shares)[0], min(45.0, chance.expovariate(1 / 4.5)))
            for writer in chance.choices(writers, cum_weights=weights, k=fill)
        ]
        done = [
            (writer, "solved" if age < 28 else "closed", age)
            for writer in chance.choices(writers, cum_weights=weights, k=count - len(opened))
            for age in (2 + 600 * chance.random() ** 1.5,)
        ]
        for writer, status, age in sorted([*done, *opened], key=lambda t: -t[2]):
            self._ticket(writer, status, age)
        return self.made

    def _ticket(self, writer: tuple[int, int | None, float, str | None], status: str, age: float) -> None:
        """`age` in days. People call their own tickets urgent now and then; that is what the demo puts in order."""
        chance, number = self.chance, _FIRST_TICKET + len(self.made)
        at = self.anchor - 1_200 - int(age * DAY)
        touched = min(self.anchor - 600, at + int(age * DAY * chance.random() * (0.5 if status == "new" else 0.9)))
        subject = chance.choice(_WHAT)
        story = writer[3] is not None
        priority = (
            "normal" if story else chance.choices((None, "normal", "high", "urgent", "low"), (52, 24, 9, 9, 6))[0]
        )
        self.made.append(
            {
                "id": number,
                "subject": subject + chance.choice(_HOW),
                "description": f"Hello, {subject[0].lower()}{subject[1:]}. Can you help?",
                "status": status,
                "priority": priority,
                "requester_id": writer[0],
                "submitter_id": writer[0],
                "organization_id": writer[1],
                "assignee_id": None if status == "new" else chance.choice(self.people.agents),
                "created_at": iso(at),
                "updated_at": iso(touched),
                "via": {"channel": "email", "source": {"from": {}, "to": {}, "rel": None}},
                "custom_fields": [],
            }
        )
