"""Whole turns of the loop on Mixpanel: profiles kept equal, events appended, a lookup table replaced."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from oploop import loop
from oploop.apps.mixpanel.sandbox import MixpanelSandbox
from oploop.apps.sandbox import Fault
from oploop.loop import Options
from oploop.project import load_project
from oploop.records import Outcome
from oploop.runtime import Runtime
from oploop.workspace import Workspace

PROJECT = """\
name: acme
models: {engine: none}
apps:
  mixpanel:
    base_url: URL
    project_id: 3187769
    service_account: oploop.sandbox.mp-service-account
    secret: ${MIXPANEL_SECRET}
    token: ${MIXPANEL_TOKEN}
    groups: {company: -1405123841946871899}
"""
PROFILES = """\
model: main.people
to: mixpanel.profiles
mode: mirror
key: {$distinct_id: user_id}
fields:
  $email: email
  properties.Plan: plan
  properties.Seats: seats
  properties.Source: {value: product, only: create}
on_null: clear
limits: {removes: 5, rows: 100}
"""
EVENTS = """\
model: main.orders
to: mixpanel.events
mode: append
key: [order_id]
fields:
  event: {value: Order Paid}
  time: paid_at
  distinct_id: user_id
  properties.Amount: amount
"""


@pytest.fixture
def box(tmp_path: Path) -> Iterator[MixpanelSandbox]:
    sandbox = MixpanelSandbox(per_hour=1000)
    with sandbox.running() as url:
        (tmp_path / "syncs").mkdir()
        (tmp_path / "oploop.yml").write_text(PROJECT.replace("URL", url))
        yield sandbox


async def turn(folder: Path, **models: str) -> loop.RunReport:
    secrets = {"MIXPANEL_SECRET": "sandbox-secret", "MIXPANEL_TOKEN": "sandbox-token"}
    async with Workspace(load_project(folder, secrets), "prod", Runtime(), "test") as ws:
        for name, select in models.items():
            ws.warehouse.execute(f"CREATE OR REPLACE TABLE main.{name} AS {select}")
        return await loop.run(ws, Options(yes=True, first_run=True, backfill=True))


def people(plan: str, seats: str = "i", where: str = "TRUE") -> str:
    return (
        f"SELECT 'u' || i AS user_id, 'u' || i || '@acme.example' AS email, {plan} AS plan, {seats} AS seats "
        f"FROM range(5) t(i) WHERE {where}"
    )


async def test_profiles_are_made_kept_equal_and_taken_away(box: MixpanelSandbox, tmp_path: Path) -> None:
    (tmp_path / "syncs/people.yml").write_text(PROFILES)
    box.load("profiles", [{"$distinct_id": "u0", "$properties": {"Plan": "free", "Seats": 0, "Source": "mail"}}])
    first = (await turn(tmp_path, people=people("'free'"))).syncs[0]
    assert first.delivery is not None
    assert (first.status, first.delivery.delivered, first.delivery.calls) == ("ok", 5, 2)
    held = {p["$distinct_id"]: p["$properties"] for p in box.dump("profiles")}
    assert held["u0"] == {"Plan": "free", "Seats": 0, "Source": "mail", "$email": "u0@acme.example"}
    assert held["u3"] == {"Plan": "free", "Seats": 3, "Source": "product", "$email": "u3@acme.example"}
    box.advance(120)
    second = (await turn(tmp_path)).syncs[0]
    assert second.plan is not None
    assert (second.status, second.plan.changes) == ("nothing", 0), second.plan.diff.counts
    box.store.put("", "u1", {**held["u1"], "Plan": "theirs"})
    box.advance(120)
    third = await turn(tmp_path, people=people("CASE WHEN i > 1 THEN 'pro' ELSE 'free' END", "NULL::INT", "i < 4"))
    assert third.syncs[0].status == "ok", third.syncs[0]
    held = {p["$distinct_id"]: p["$properties"] for p in box.dump("profiles")}
    assert held["u2"] == {"Plan": "pro", "Source": "product", "$email": "u2@acme.example"}
    assert held["u1"]["Plan"] == "theirs"
    assert set(held) == {"u0", "u1", "u2", "u3"}


async def test_events_are_appended_once_though_answers_are_lost(box: MixpanelSandbox, tmp_path: Path) -> None:
    (tmp_path / "syncs/orders.yml").write_text(EVENTS)
    orders = "SELECT i AS order_id, 'u' || i AS user_id, 9.5 * i AS amount, now() - INTERVAL 1 HOUR AS paid_at FROM range({}) t(i)"
    box.faults.append(Fault("POST /import", "lose", times=2))
    first = (await turn(tmp_path, orders=orders.format(3))).syncs[0]
    assert first.delivery is not None
    assert (first.delivery.delivered, first.delivery.unknown) == (3, 0)
    assert len(box.dump("raw")) == 9
    assert [e["properties"]["Amount"] for e in box.dump("events")] == [0, 9.5, 19]
    second = (await turn(tmp_path, orders=orders.format(4))).syncs[0]
    assert second.delivery is not None
    assert second.delivery.delivered == 1
    assert len(box.dump("events")) == 4


TABLES = """\
model: main.tables
to: mixpanel.lookup_tables
mode: update
key: {name: title}
fields: [rows]
"""


async def test_a_lookup_table_is_replaced_as_a_whole_when_its_rows_are_others(
    box: MixpanelSandbox, tmp_path: Path
) -> None:
    (tmp_path / "syncs/tables.yml").write_text(TABLES)
    box.load("lookup_tables", [{"id": "55b4fb2b-e8de-466c-930f-8b36640b9b5e", "name": "Products"}])
    tables = (
        "SELECT 'Products' AS title, list({{'id': 's' || i, 'name': 'it''s, \"' || i || '\" 🌻', 'price': i / 4, "
        "'since': DATE '2026-01-01', 'active': i = 1, 'tags': ['a', 'b'], 'note': NULL}} ORDER BY i) AS rows FROM range({}) t(i)"
    )
    first = (await turn(tmp_path, tables=tables.format(2))).syncs[0]
    assert first.delivery is not None, first.error
    assert (first.status, first.delivery.delivered) == ("ok", 1)
    [table] = box.dump("lookup_tables")
    assert table["rows"] == [
        ["id", "active", "name", "note", "price", "since", "tags"],
        ["s0", "false", 'it\'s, "0" 🌻', "", "0.0", "2026-01-01", '["a","b"]'],
        ["s1", "true", 'it\'s, "1" 🌻', "", "0.25", "2026-01-01", '["a","b"]'],
    ]
    assert first.read_back is not None
    assert first.read_back.counts == {"sent": 1}, "nobody can read the rows, so nothing confirms them"
    report = await turn(tmp_path)
    second = report.syncs[0]
    assert (second.status, len([e for e in box.log if e.method == "PUT"])) == ("nothing", 1)
    assert [v.counts for v in report.verified] == [{"sent": 1}]
    third = (await turn(tmp_path, tables=tables.format(3))).syncs[0]
    assert third.status == "ok"
    assert [row[0] for row in box.dump("lookup_tables")[0]["rows"]] == ["id", "s0", "s1", "s2"]
    twice = tables.format(3).replace("'s' || i,", "'s' || i // 2,")
    fourth = (await turn(tmp_path, tables=twice)).syncs[0]
    assert fourth.delivery is not None
    assert fourth.delivery.outcomes[Outcome.REJECTED] == 1
    assert len(box.dump("lookup_tables")[0]["rows"]) == 4, "as a whole or not at all"
