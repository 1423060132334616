"""What Segment's logs hold: who did what in the made-up company's product."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from itertools import accumulate
from typing import Any

from oploop.demo.accounts import Account
from oploop.demo.ids import DAY

EVENTS = 100_000
DAYS = 28  #: how far back they go
LOGIN = "Logged In"
FEATURES = (
    "Board Viewed", "Card Moved", "Comment Added", "Search Used", "File Uploaded", "Report Exported",
    "Template Applied", "Automation Run", "Invite Sent", "Integration Connected", "API Key Used", "Webhook Fired",
)  # fmt: skip
PAGES = ("Home", "Pricing", "Docs", "Settings", "Billing", "Changelog")

Records = list[dict[str, Any]]


def make_events(chance: random.Random, accounts: Sequence[Account], anchor: int, count: int) -> Records:
    """`count` different events of the 28 days before `anchor` (a midnight, UTC), and a few of them twice.

    Some come late, some from nobody that is known, some from a user of a time before customers had their ids.
    """
    maker = _Maker(chance, anchor)
    for account in accounts:
        if account.role:
            maker.story(account)
    others = [a for a in accounts if not a.role]
    for account in chance.sample(others, min(len(others), count // 25)):
        maker.identify(account)
    for account in [a for a in others if a.is_firm][: count // 50]:
        maker.group(account)
    weights = list(accumulate(a.zeal**1.6 + 0.002 for a in others))
    known = {a.id: maker.known_features(a) for a in others}
    while len(maker.events) < count:
        for account in chance.choices(others, cum_weights=weights, k=200):
            maker.session(account, known[account.id])
    del maker.events[count:]
    repeats = [maker.events[i] for i in chance.sample(range(count), count // 400)]
    # By the time of receipt, as log files are written; what comes twice comes again later.
    return sorted(maker.events, key=lambda e: str(e["receivedAt"])) + repeats


@cache
def _date(day: int) -> str:
    return datetime.fromtimestamp(day * DAY, UTC).strftime("%Y-%m-%d")


def _iso(seconds: float) -> str:
    """As Segment writes times: milliseconds, UTC."""
    day, ms = divmod(int(seconds * 1_000), DAY * 1_000)
    minutes, ms = divmod(ms, 60_000)
    return f"{_date(day)}T{minutes // 60:02}:{minutes % 60:02}:{ms // 1_000:02}.{ms % 1_000:03}Z"


class _Maker:
    def __init__(self, chance: random.Random, anchor: int) -> None:
        self.chance, self.anchor = chance, anchor
        self.events: Records = []

    def known_features(self, account: Account) -> list[str]:
        """The features that an account has found, the commonest first: the more zeal, the more of them."""
        breadth = max(1, min(len(FEATURES), round(self.chance.gauss(2 + 10 * account.zeal, 1.5))))
        return sorted(self.chance.sample(FEATURES, breadth), key=FEATURES.index)

    def _add(self, kind: str, at: float, user: str | None, **more: Any) -> None:
        chance = self.chance
        delay = chance.expovariate(1 / 20) if chance.random() > 0.004 else chance.uniform(3_600, 2 * DAY)
        time, received = _iso(at), _iso(min(at + delay, self.anchor - 0.001))
        event: dict[str, Any] = {
            "type": kind,
            "messageId": f"msg-{len(self.events):06d}-{chance.getrandbits(48):012x}",
            "userId": user,
            "timestamp": time,
            "originalTimestamp": time,
            "sentAt": received,
            "receivedAt": received,
        }
        if user is None:
            event["anonymousId"] = f"anon-{chance.getrandbits(64):016x}"
        self.events.append(event | more)

    def identify(self, account: Account) -> None:
        at = self.anchor - DAYS * DAY * self.chance.random() - 60
        traits = {"email": account.email, "name": account.contact, "plan": account.plan}
        self._add("identify", at, account.id, traits=traits)

    def group(self, account: Account) -> None:
        at = self.anchor - DAYS * DAY * self.chance.random() - 60
        self._add("group", at, account.id, groupId=f"org-{account.id}", traits={"name": account.name})

    def story(self, account: Account) -> None:
        """One login on each of its days, and its features in turn, two a day at least."""
        features = FEATURES[: account.features]
        each = max(2, -(-len(features) // max(1, len(account.days))))
        turn = 0
        for day in account.days:
            at = self.anchor - day * DAY + 9.5 * 3_600
            self._add("track", at, account.id, event=LOGIN, properties={})
            for i in range(each):
                self._add("track", at + 60 * (i + 1), account.id, event=features[turn % len(features)], properties={})
                turn += 1

    def session(self, account: Account, features: Sequence[str]) -> None:
        """A login and what follows, mostly in the daytime."""
        chance = self.chance
        day = chance.randint(1, DAYS)
        at = self.anchor - day * DAY + min(86_000.0, max(60.0, chance.gauss(13.5, 3.2) * 3_600)) - 0.5
        user: str | None = account.id
        luck = chance.random()
        if luck < 0.02:
            user = None
        elif luck < 0.03:
            user = f"user-{chance.randint(1, 400)}"
        self._add("track", at, user, event=LOGIN, properties={"method": chance.choice(("password", "sso", "link"))})
        last = self.anchor - day * DAY + DAY - 1
        for _ in range(min(40, 1 + int(chance.expovariate(1 / 4.2)))):
            at = min(at + chance.expovariate(1 / 90), last)
            if chance.random() < 0.08:
                self._add("page", at, user, name=chance.choice(PAGES), properties={})
            else:
                rank = min(int(chance.expovariate(1 / 3.0)), len(features) - 1)
                self._add("track", at, user, event=features[rank], properties={})
