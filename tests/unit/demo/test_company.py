from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from oploop.apps.segment.sandbox import SegmentSandbox
from oploop.apps.stripe.sandbox import StripeSandbox
from oploop.apps.zendesk.sandbox import ZendeskSandbox
from oploop.demo.company import Company, make_company
from tests.unit.demo import expected

NOW = datetime(2025, 3, 11, 15, 4, 5, tzinfo=UTC)
OPEN = ("new", "open", "pending", "hold")


@pytest.fixture(scope="module")
def company() -> Company:
    return make_company(NOW)


def test_it_has_the_size_that_is_promised(company: Company) -> None:
    tickets = company.records["zendesk"]["tickets"]
    events = company.records["segment"]["events"]
    assert company.count("stripe", "customers") == 2_000
    assert company.count("stripe", "charges") == 20_000
    assert company.count("stripe", "refunds") > 1_000
    assert len(tickets) == 5_000
    assert sum(t["status"] in OPEN for t in tickets) == 600
    assert len({e["messageId"] for e in events}) == 100_000
    assert len(events) > 100_000  # some come twice
    assert {s["items"][0]["price"].split("_")[1] for s in company.records["stripe"]["subscriptions"]} == {
        "starter", "team", "enterprise",
    }  # fmt: skip


def test_it_is_the_same_each_time_but_for_the_days(company: Company) -> None:
    again = make_company(NOW + timedelta(hours=8, minutes=50))
    assert again.records == company.records
    later = make_company(NOW + timedelta(days=3))
    ours, theirs = company.records["stripe"]["charges"], later.records["stripe"]["charges"]
    assert [c | {"created": 0} for c in ours] == [c | {"created": 0} for c in theirs]
    assert {b["created"] - a["created"] for a, b in zip(ours, theirs, strict=True)} == {3 * 86_400}
    ranked = expected.tickets(
        company.records["stripe"], company.records["zendesk"], company.records["segment"]["events"]
    )
    moved = expected.tickets(later.records["stripe"], later.records["zendesk"], later.records["segment"]["events"])
    assert {k: v.score for k, v in ranked.items()} == {k: v.score for k, v in moved.items()}


def test_all_of_it_happened_before_the_last_midnight(company: Company) -> None:
    midnight = int(NOW.replace(hour=0, minute=0, second=0).timestamp())
    stripe, zendesk = company.records["stripe"], company.records["zendesk"]
    assert all(r["created"] < midnight for kind in ("charges", "refunds", "subscriptions") for r in stripe[kind])
    assert all(t["created_at"] <= t["updated_at"] < "2025-03-11T00:00:00Z" for t in zendesk["tickets"])
    times = [e[k] for e in company.records["segment"]["events"] for k in ("timestamp", "receivedAt")]
    assert max(times) < "2025-03-11T00:00:00.000Z"
    assert max(times) > "2025-03-10T23:00:00.000Z"


def test_money_is_skewed_and_refunds_are_no_more_than_what_was_paid(company: Company) -> None:
    stripe = company.records["stripe"]
    total = sorted(expected.spend(stripe, NOW.date()).values(), reverse=True)
    assert sum(total[:200]) > sum(total) * 6 // 10
    charges = {c["id"]: c for c in stripe["charges"]}
    back: Counter[str] = Counter()
    for r in stripe["refunds"]:
        assert r["created"] > charges[r["charge"]]["created"]
        back[r["charge"]] += r["amount"] if r["status"] == "succeeded" else 0
    assert all(back[k] == c.get("amount_refunded", 0) <= c["amount"] for k, c in charges.items())
    assert {c["currency"] for c in charges.values()} == {"usd", "eur", "gbp", "jpy"}


def test_names_are_of_many_places_and_addresses_are_unique(company: Company) -> None:
    names = " ".join(a.name for a in company.accounts)
    assert all(sign in names for sign in ("'", "ü", "ß", "é", "田", "ł", "İ"))
    addresses = [a.email for a in company.accounts]
    assert len(set(addresses)) == len(addresses)
    assert all(a.isascii() for a in addresses)
    assert len({u["email"].lower() for u in company.records["zendesk"]["users"]}) == company.count("zendesk", "users")
    assert len({o["name"].lower() for o in company.records["zendesk"]["organizations"]}) == company.count(
        "zendesk", "organizations"
    )


def test_requesters_are_known_by_id_by_address_by_firm_or_not_at_all(company: Company) -> None:
    stripe, zendesk = company.records["stripe"], company.records["zendesk"]
    who = expected.requesters(stripe, zendesk)
    users = {u["id"]: u for u in zendesk["users"]}
    ways = Counter(
        "nobody" if who[n] is None else "id" if "external_id" in u else "firm" if u["email"].islower() else "address"
        for n, u in users.items()
    )
    assert all(ways[w] >= 20 for w in ("nobody", "id", "firm", "address"))
    assert all(t["requester_id"] in users for t in zendesk["tickets"])


def test_some_events_are_of_nobody_that_is_known(company: Company) -> None:
    customers = {a.id for a in company.accounts}
    users = Counter(
        "none" if e["userId"] is None else "customer" if e["userId"] in customers else "unknown"
        for e in company.records["segment"]["events"]
    )
    assert users["customer"] > 90_000
    assert users["none"] > 1_000
    assert users["unknown"] > 500
    assert all(e.get("anonymousId") for e in company.records["segment"]["events"] if e["userId"] is None)


def test_the_story_moves_priorities(company: Company) -> None:
    before = {n: r.priority for n, r in ranked(company).items()}
    payer, leaver, caller = (company.open_tickets_of(company.actor(r)) for r in ("payer", "leaver", "caller"))
    assert [before[t["id"]] for t in payer] == ["normal", "normal"]
    assert [before[t["id"]] for t in leaver] == ["urgent", "urgent"]
    assert [before[t["id"]] for t in caller] == ["low"]
    levels = Counter(before.values())
    assert all(levels[p] >= 30 for p in ("low", "normal", "high", "urgent"))
    assert levels["urgent"] < levels["high"] < 300


def ranked(company: Company) -> dict[int, expected.Ranked]:
    records = company.records
    return expected.tickets(records["stripe"], records["zendesk"], records["segment"]["events"])


def test_the_sandboxes_take_it() -> None:
    small = make_company(NOW, scale=0.05)
    for app, sandbox in (("stripe", StripeSandbox()), ("zendesk", ZendeskSandbox()), ("segment", SegmentSandbox())):
        for body in small.loads(app):
            for kind, records in body.items():
                sandbox.load(kind, records)
        for kind in small.records[app]:
            had = {r["id"] for r in small.records[app][kind] if "id" in r}
            assert had <= {r.get("id") for r in sandbox.dump(kind)} | ({None} if app == "segment" else set())
