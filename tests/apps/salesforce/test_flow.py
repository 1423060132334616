"""Whole turns of the loop on Salesforce: the sync of the design, its references, its parents, its picklist."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from oploop import loop
from oploop.apps.salesforce.sandbox import CLIENT_SECRET, SalesforceSandbox
from oploop.apps.sandbox import Fault
from oploop.errors import FixConfig
from oploop.loop import Options
from oploop.project import load_project
from oploop.report import SyncReport
from oploop.runtime import Runtime
from oploop.workspace import Workspace

PROJECT = """\
name: acme
models: {engine: none}
apps:
  salesforce:
    base_url: URL
    client_id: 3MVG9sandbox.oploop
    client_secret: ${SALESFORCE_CLIENT_SECRET}
    overlap: 0
"""
SYNC = """\
model: main.account_health
to: salesforce.Account
key: {Billing_Id__c: account_id}
fields:
  Name: name
  Health_Score__c: health_score
  Health__c: {column: health, map: {low: At Risk, high: Healthy, odd: Odd}}
  ParentId: {ref: salesforce.Account, by: Billing_Id__c, column: parent_id, on_miss: hold}
  OwnerId: {ref: salesforce.User, by: Email, column: csm_email, if_empty: true}
  AccountSource: {value: Web, only: create}
  Segments__c: {add: [SMB]}
limits: {held: 100%}
"""
#: account_id, score, health, parent, csm
ROWS = [
    ("b1", 82, "high", None, "Jo@Acme.example"),
    ("B2 ", 40, "low", "b1", None),
    ("b3", 50, "high", None, "nobody@acme.example"),
    ("b4", 50, "odd", None, None),
    ("b5", 150, "high", None, None),
    ("b6", 70, "high", "nix", None),
]


@pytest.fixture
def box(tmp_path: Path) -> Iterator[SalesforceSandbox]:
    sandbox = SalesforceSandbox()
    with sandbox.running() as url:
        (tmp_path / "syncs").mkdir()
        (tmp_path / "oploop.yml").write_text(PROJECT.replace("URL", url))
        (tmp_path / "syncs/account_health.yml").write_text(SYNC)
        yield sandbox


async def turn(folder: Path, rows: list[Any], **options: Any) -> SyncReport:
    return (await report(folder, rows, **options)).syncs[0]


async def report(folder: Path, rows: list[Any], **options: Any) -> loop.RunReport:
    project = load_project(folder, {"SALESFORCE_CLIENT_SECRET": CLIENT_SECRET})
    async with Workspace(project, "prod", Runtime(), "test") as ws:
        ws.warehouse.execute(
            "CREATE OR REPLACE TABLE main.account_health (account_id VARCHAR, name VARCHAR, health_score INT, health VARCHAR, "
            "parent_id VARCHAR, csm_email VARCHAR)"
        )
        for number, health, word, parent, csm in rows:
            row = (number, f"Haus {number.strip()}", health, word, parent, csm)
            ws.warehouse.execute("INSERT INTO main.account_health VALUES (?, ?, ?, ?, ?, ?)", row)
        return await loop.run(ws, Options(yes=True, **options))


async def test_the_design_s_sync(box: SalesforceSandbox, tmp_path: Path) -> None:
    box.load("User", [{"LastName": "Jo", "Username": "jo@acme.example", "Email": "jo@acme.example"}])
    [jo] = [u["Id"] for u in box.dump("User") if u["LastName"] == "Jo"]
    box.load("Account", [{"Name": "Haus b1", "Billing_Id__c": "b1", "Segments__c": "Public", "AccountSource": "Other"}])
    box.advance(5)
    first = await turn(tmp_path, ROWS)
    assert first.plan is not None
    assert first.delivery is not None
    held = {r["Billing_Id__c"].lower(): r for r in box.dump("Account")}
    assert set(held) == {"b1", "b2"}, first
    b1, b2 = held["b1"], held["b2"]
    assert (b1["Health_Score__c"], b1["Health__c"], b1["Segments__c"]) == (82, "Healthy", "SMB;Public")
    assert b1["AccountSource"] == "Other"  # only for new ones
    assert b1["OwnerId"] != jo  # an owner was there
    assert (b2["Health__c"], b2["ParentId"], b2["AccountSource"]) == ("At Risk", b1["Id"], "Web")
    reasons = " | ".join(r for r, _ in first.plan.held_reasons)
    for part in ("OwnerId", "ParentId", 'Health__c: "Odd" is not one of Healthy, At Risk'):
        assert part in reasons
    assert first.delivery.rejected == 1  # the org's own rule is known to the org alone
    assert "Health Score is from 0 to 100" in first.delivery.errors[0]


async def test_nothing_is_sent_twice_and_what_people_change_stays(box: SalesforceSandbox, tmp_path: Path) -> None:
    rows = [r for r in ROWS if r[0] in ("b1", "B2 ")]
    rows[0] = ("b1", 82, "high", None, None)
    assert (await turn(tmp_path, rows)).status == "ok"
    box.advance(10)
    again = await turn(tmp_path, rows)  # the child of the account that was made
    assert again.plan is not None
    assert again.plan.changes == 1
    box.advance(10)
    quiet = await turn(tmp_path, rows)
    assert (quiet.status, quiet.plan.changes if quiet.plan else None) == ("nothing", 0)
    b1 = next(r for r in box.dump("Account") if r["Billing_Id__c"] == "b1")
    box.org.update("Account", b1["Id"], {"Health__c": "At Risk"})
    box.advance(10)
    kept = await turn(tmp_path, [("b1", 30, "high", None, None), rows[1]])
    assert kept.plan is not None
    assert (kept.plan.changes, kept.status) == (1, "ok")
    now = next(r for r in box.dump("Account") if r["Billing_Id__c"] == "b1")
    assert (now["Health__c"], now["Health_Score__c"]) == ("At Risk", 30)


async def test_a_lost_answer_makes_no_second_account(box: SalesforceSandbox, tmp_path: Path) -> None:
    box.faults.append(Fault("PATCH .*composite", "lose"))
    done = await turn(tmp_path, [("b1", 82, "high", None, None)])
    assert done.status == "ok"
    assert len(box.dump("Account")) == 1


async def test_the_days_limit_defers(box: SalesforceSandbox, tmp_path: Path) -> None:
    answer = '[{"errorCode": "REQUEST_LIMIT_EXCEEDED", "message": "TotalRequests Limit exceeded."}]'
    box.faults.append(Fault("PATCH .*composite", "status", status=403, body=answer, times=9))
    done = await turn(tmp_path, [("b1", 82, "high", None, None)])
    assert done.delivery is not None
    assert done.delivery.deferred
    box.faults.clear()
    assert (await turn(tmp_path, [("b1", 82, "high", None, None)])).status == "ok"
    assert len(box.dump("Account")) == 1


async def test_what_is_deferred_behind_a_canary_is_no_failure_either(box: SalesforceSandbox, tmp_path: Path) -> None:
    (tmp_path / "syncs/account_health.yml").write_text(SYNC + "canary: 1\n")
    answer = '[{"errorCode": "REQUEST_LIMIT_EXCEEDED", "message": "TotalRequests Limit exceeded."}]'
    for skip in (0, 1):  # of the canary itself, then of what follows it
        box.faults.append(Fault("PATCH .*composite", "status", status=403, body=answer, skip=skip, times=9))
        done = await turn(tmp_path, [(f"b{n}", 82, "high", None, None) for n in range(3)])
        assert (done.status, done.deferred, done.not_begun) == ("ok", 3 - skip, 0)
        assert len(box.dump("Account")) == skip
        box.faults.clear()


async def test_tokens_are_kept_for_the_next_run(box: SalesforceSandbox, tmp_path: Path) -> None:
    for _ in range(2):
        await turn(tmp_path, [("b1", 82, "high", None, None)])
    assert sum(e.path.endswith("oauth2/token") for e in box.log) == 1
    kept = b"".join(p.read_bytes() for p in (tmp_path / ".oploop").iterdir() if p.is_file())
    for session in box.sessions:
        assert session.encode() not in kept


async def test_names_that_the_org_has_not_are_named_with_the_nearest(box: SalesforceSandbox, tmp_path: Path) -> None:
    file = tmp_path / "syncs/account_health.yml"
    file.write_text(SYNC.replace("Health__c: {", "Helth__c: {"))
    with pytest.raises(FixConfig, match=r"account_health.yml:7: .*no field 'Helth__c' — did you mean 'Health__c'"):
        await turn(tmp_path, ROWS)
    file.write_text(SYNC.replace("to: salesforce.Account", "to: salesforce.Acount"))
    with pytest.raises(
        FixConfig, match=r"account_health.yml:2: salesforce has no object 'Acount' — did you mean 'Account'"
    ):
        await turn(tmp_path, ROWS)


# -- jobs ----------------------------------------------------------------------------------------------------------------

MANY = 2_100
PEOPLE = """\
model: main.calls
to: salesforce.Contact
mode: create
key: {Plan__c: subject}
fields: {LastName: note}
"""


async def people(folder: Path, count: int = MANY) -> loop.RunReport:
    (folder / "syncs/account_health.yml").unlink(missing_ok=True)
    (folder / "syncs/calls.yml").write_text(PEOPLE)
    async with Workspace(
        load_project(folder, {"SALESFORCE_CLIENT_SECRET": CLIENT_SECRET}), "prod", Runtime(), "test"
    ) as ws:
        ws.warehouse.execute(
            f"CREATE OR REPLACE TABLE main.calls AS SELECT 'Plan ' || i AS subject, 'n' || i AS note FROM range({count}) t(i)"
        )
        return await loop.run(ws, Options(yes=True, first_run=True))


def jobs(box: SalesforceSandbox) -> list[str]:
    return [e.method for e in box.log if e.path.endswith("/jobs/ingest")]


async def test_many_records_go_as_a_job_within_the_estimate(box: SalesforceSandbox, tmp_path: Path) -> None:
    done = (await people(tmp_path)).syncs[0]
    assert done.plan is not None
    assert done.delivery is not None
    assert (done.status, done.delivery.delivered, jobs(box)) == ("ok", MANY, ["POST"])
    assert done.plan.estimate.calls == 8
    assert 7 <= done.delivery.calls <= 9
    assert len(box.dump("Contact")) == MANY
    again = (await people(tmp_path, MANY + 5)).syncs[0]  # few: no job
    assert again.delivery is not None
    assert (again.delivery.delivered, again.delivery.calls, jobs(box)) == (5, 1, ["POST"])


@pytest.mark.parametrize(("count", "calls", "made"), [(2_000, 10, []), (2_001, 8, ["POST"])])
async def test_the_first_record_over_two_thousand_makes_it_a_job(
    box: SalesforceSandbox, tmp_path: Path, count: int, calls: int, made: list[str]
) -> None:
    done = (await people(tmp_path, count)).syncs[0]
    assert done.plan is not None
    assert done.delivery is not None
    assert (done.delivery.delivered, jobs(box)) == (count, made)
    assert done.plan.estimate.calls == calls
    assert len(box.dump("Contact")) == count


class Died(BaseException):
    """The process is no more."""


@pytest.mark.parametrize("began", [True, False])
async def test_a_job_is_found_again_after_a_crash(
    box: SalesforceSandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, began: bool
) -> None:
    """`began`: the process died while it waited for the job's end; else before the job was closed."""
    with monkeypatch.context() as dying:

        async def dies(*_: Any, **__: Any) -> None:
            raise Died

        if began:
            dying.setattr("oploop.apps.salesforce.writer.ended", dies)
        else:
            dying.setattr("oploop.apps.salesforce.writer.Writer._close", dies)
        with pytest.raises(BaseExceptionGroup):
            await people(tmp_path)
    assert len(box.dump("Contact")) == (MANY if began else 0)
    box.advance(10)
    after = await people(tmp_path)
    assert after.recovered
    sent = after.syncs[0]
    assert (sent.delivery.delivered if sent.delivery else 0) == (0 if began else MANY)
    assert len(box.dump("Contact")) == MANY
    async with Workspace(load_project(tmp_path), "prod", Runtime(), "test") as ws:
        told = ws.warehouse.rows(
            "SELECT status, count(*), count(DISTINCT remote_id) FROM oploop.changes GROUP BY 1 ORDER BY 1"
        )
        assert not ws.warehouse.rows("SELECT * FROM oploop.parked")
    states = {status: (n, known) for status, n, known in told}
    assert "unknown" not in states
    assert sum(known for _, known in states.values()) == MANY
