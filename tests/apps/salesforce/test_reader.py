"""Reading: types, deleted records, the overlap, jobs, sessions and query places that end."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

from oploop.apps.conformance import Raw
from oploop.apps.jsonrows import Records
from oploop.apps.paging import at_once
from oploop.apps.salesforce.catalog import Table
from oploop.apps.salesforce.reader import Page, Reader
from oploop.apps.salesforce.sandbox import SalesforceSandbox
from oploop.apps.salesforce.sandbox_org import INTEGRATION
from oploop.apps.sandbox import Fault
from oploop.errors import FixConfig, FixData, QuotaSpent, RetryLater
from oploop.records import Canonical, Deletes, FieldType, Op, ReadOptions
from oploop.runtime import Runtime
from tests.apps.salesforce.conftest import Make

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
FULL = {
    "Name": 'Haus "Süd", Ost\nWest',
    "Health_Score__c": 41,
    "Segments__c": "SMB;Public",
    "MRR__c": 99.5,
    "Renewal_Date__c": "2026-03-01",
    "Last_Seen__c": "2026-01-02T03:04:05+00:00",
    "Is_Customer__c": True,
}


def paths(box: SalesforceSandbox, part: str) -> list[str]:
    return [e.method + " " + e.path for e in box.log if part in e.path]


@pytest.mark.parametrize("by_job", [False, True])
async def test_values_have_their_types(make: Make, box: SalesforceSandbox, by_job: bool) -> None:
    box.load("Account", [FULL, {"Name": "bare"}])
    app = make(bulk_read_from=1 if by_job else 100).app
    raw = Raw(app.streams["Account"])
    await raw.read(app)
    assert bool(paths(box, "jobs/query")) is by_job
    by_name = {r["Name"]: r for r in raw.live().values()}
    full, bare = by_name[FULL["Name"]], by_name["bare"]
    assert (full["Health_Score__c"], full["MRR__c"], full["Is_Customer__c"]) == (41.0, 99.5, True)
    assert full["Segments__c"] == '["SMB","Public"]'
    assert full["Renewal_Date__c"] == date(2026, 3, 1)
    assert full["Last_Seen__c"] == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert (bare["Health_Score__c"], bare["Segments__c"], bare["Is_Customer__c"]) == (None, None, False)
    assert full["_version"] == round(full["SystemModstamp"].timestamp() * 1e6)
    assert "BillingAddress" not in full
    assert "attributes" not in full["_raw"]


async def test_a_large_read_goes_by_job_in_pages_and_then_on_from_there(
    make: Make, box: SalesforceSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oploop.apps.salesforce.reader.RESULT_ROWS", 100)
    box.load("Account", [{"Name": f"a{i}"} for i in range(250)])
    box.advance(5)
    app = make(bulk_read_from=200, overlap=0).app
    raw = Raw(app.streams["Account"])
    await raw.read(app)
    assert len(raw.live()) == 250
    assert [b.table.num_rows for b in raw.batches] == [100, 100, 50, 0]
    assert [b.cursor is None for b in raw.batches] == [True, True, True, False]
    assert paths(box, "jobs/query")[-1].startswith("DELETE")
    assert box.jobs.jobs == {}
    box.advance(5)
    key = next(iter(raw.live()))
    box.org.update("Account", key, {"Description": "neu"})
    box.org.delete("Account", list(raw.live())[1])
    await raw.read(app)
    assert sum(b.table.num_rows for b in raw.batches) == 2
    assert raw.live()[key]["Description"] == "neu"
    assert len(raw.live()) == 249


GOOD = "Id,Name,Health_Score__c,Is_Customer__c,SystemModstamp,IsDeleted\n001A,a,{},{},2026-01-01T00:00:00.000Z,false\n"


async def test_a_value_of_a_jobs_page_that_is_not_of_its_type_is_none_and_whole_in_the_record(
    make: Make, box: SalesforceSandbox
) -> None:
    box.load("Account", [{"Name": "a"}, {"Name": "b"}])
    box.faults.append(Fault("GET .*/results$", "status", status=200, body=GOOD.format("many", "true")))
    raw = Raw(make(bulk_read_from=1).app.streams["Account"])
    await raw.read(make(bulk_read_from=1).app)
    [row] = raw.live().values()
    assert (row["Name"], row["Health_Score__c"], row["Is_Customer__c"], row["IsDeleted"]) == ("a", None, True, False)
    assert '"Health_Score__c":"many"' in row["_raw"]
    assert '"Is_Customer__c":true' in row["_raw"]


@pytest.mark.parametrize(
    ("body", "headers", "said"),
    [
        (GOOD.format("1,2", "true"), {}, "CSV parse error: Expected 6 columns, got 7"),
        (GOOD.format(1, "true") + '001B,"b', {}, "CSV parse error"),
        ("<!doctype html>\n<title>Sign in</title>\n", {}, "its columns are <!doctype html>"),
        (GOOD.format(1, "true"), {"Sforce-NumberOfRecords": "2"}, "it tells of 2 records and has 1"),
        (GOOD.partition("\n")[0] + "\n", {"Sforce-NumberOfRecords": "7"}, "it tells of 7 records and has 0"),
        ("x" * 300_000 + "\n1\n", {}, "its first line"),
        ('"' + "x" * 200_000 + '"\n1\n', {}, "its first line: field larger than field limit"),
    ],
    ids=["a field too many", "cut off", "HTML", "a record missing", "all missing", "no names", "one long name"],
)
async def test_a_jobs_page_that_is_no_csv_of_records_is_told_and_no_place_is_kept(
    make: Make, box: SalesforceSandbox, body: str, headers: dict[str, str], said: str
) -> None:
    box.load("Account", [{"Name": "a"}, {"Name": "b"}])
    box.faults.append(Fault("GET .*/results$", "status", status=200, body=body, headers=headers))
    raw = Raw(make().app.streams["Account"])
    with pytest.raises(
        RetryLater, match=f"a page of Salesforce's results of Account cannot be read: {said}.*bulk_read_from"
    ):
        await raw.read(make(bulk_read_from=1).app)
    assert raw.cursor is None


async def test_a_job_that_fails_says_why(make: Make, box: SalesforceSandbox) -> None:
    box.load("Account", [{"Name": "a"}, {"Name": "b"}])
    failed = '{"id": "750", "state": "Failed", "errorMessage": "QUERY_TIMEOUT"}'
    box.faults.append(Fault("GET .*jobs/query/[^/]+$", "status", status=200, body=failed))
    app = make(bulk_read_from=1).app
    with pytest.raises(FixData, match="ended as Failed: QUERY_TIMEOUT"):
        await Raw(app.streams["Account"]).read(app)


async def test_the_overlap_finds_what_was_written_late(make: Make, box: SalesforceSandbox) -> None:
    box.load("Account", [{"Name": "a"}])
    app = make(overlap=600).app
    raw = Raw(app.streams["Account"])
    await raw.read(app)
    early = datetime.now(UTC).replace(microsecond=0).timestamp() - 300
    box.load("Account", [{"Name": "late", "SystemModstamp": datetime.fromtimestamp(early, UTC).isoformat()}])
    await raw.read(app)
    assert {r["Name"] for r in raw.live().values()} == {"a", "late"}


async def test_since_and_exclude(make: Make, box: SalesforceSandbox) -> None:
    box.load("Account", [{"Name": "old", "SystemModstamp": "2020-01-01T00:00:00+00:00"}, {"Name": "new"}])
    app = make().app
    options = ReadOptions(since=datetime(2024, 1, 1, tzinfo=UTC), exclude=frozenset({"Description"}))
    rows = [r async for b in app.read("Account", None, options) for r in b.table.to_pylist()]
    assert [r["Name"] for r in rows] == ["new"]
    assert "Description" not in rows[0]
    assert "Description" not in rows[0]["_raw"]
    with pytest.raises(FixConfig, match="'SystemModstamp' cannot be left out"):
        _ = [b async for b in app.read("Account", None, ReadOptions(exclude=frozenset({"SystemModstamp"})))]


async def test_a_query_whose_place_is_lost_goes_on_from_the_last_page(make: Make, box: SalesforceSandbox) -> None:
    box.load("Account", [{"Name": f"a{i}"} for i in range(250)])
    app = make(overlap=0).app
    names: set[str] = set()
    pages = 0
    async for batch in app.read("Account", None, ReadOptions()):
        names |= set(batch.table["Name"].to_pylist())
        pages += 1
        if pages == 1:
            box.forget_cursors()
    assert len(names) == 250


async def test_a_session_that_ends_in_mid_run_is_renewed(make: Make, box: SalesforceSandbox) -> None:
    box.load("Account", [{"Name": f"a{i}"} for i in range(1_050)])
    app = make().app
    rows, ended = 0, False
    async for batch in app.read("Account", None, ReadOptions()):
        rows += batch.table.num_rows
        if not ended:  # once: one that ends while it is being renewed is refused
            box.sessions.clear()
            ended = True
    assert batch.complete
    assert rows == 1_050
    assert len(paths(box, "oauth2/token")) in (2, 3)  # two calls may meet it at once


async def test_the_days_limit_puts_the_rest_off(make: Make, box: SalesforceSandbox) -> None:
    box.load("Account", [{"Name": f"a{i}"} for i in range(250)])
    app = make().app
    assert app.streams["Account"].name == "Account"
    box.daily = box.used + 1
    with pytest.raises(QuotaSpent, match="REQUEST_LIMIT_EXCEEDED"):
        await Raw(app.streams["Account"]).read(app)
    assert app.transport is not None
    assert app.transport.budget is not None
    day = app.transport.budget.day_left()
    assert day is not None
    assert (day.limit, day.remaining) == (box.daily, 0)


def test_objects_are_as_the_org_describes_them(make: Make) -> None:
    app = make().app
    account, user = app.objects["Account"], app.objects["User"]
    fields = account.fields
    assert fields["Health__c"].enum == ("Healthy", "At Risk")
    assert fields["Industry"].enum is None
    assert "usually one of Banking" in fields["Industry"].description
    assert fields["Segments__c"].type is FieldType.LIST
    assert fields["ParentId"].canonical is Canonical.ID_15_18
    assert (fields["Name"].required, fields["Name"].max_length, fields["Id"].read_only) == (True, 255, True)
    assert set(account.operations) == {Op.CREATE, Op.UPDATE, Op.UPSERT, Op.REMOVE}
    assert account.operations[Op.UPSERT].keys == ("Billing_Id__c", "Legacy_Key__c")
    assert Op.REMOVE not in user.operations
    assert (app.streams["Account"].deletes, app.streams["User"].deletes) == (Deletes.MARKED, Deletes.NEVER)
    assert "Organization" in app.streams
    assert "Organization" not in list(app.objects)
    assert "Nix__c" not in app.streams
    with pytest.raises(FixConfig, match="no object 'Acount' — did you mean 'Account'"):
        _ = app.streams["Acount"]


async def test_records_by_id_are_as_they_are_now(make: Make, box: SalesforceSandbox) -> None:
    box.load("Account", [{"Name": "a"}, {"Name": "b"}])
    ids = [r["Id"] for r in box.dump("Account")]
    box.org.delete("Account", ids[1])
    rows = (await make().app.fetch("Account", ids)).table.to_pylist()
    assert {r["Id"]: r["_deleted"] for r in rows} == {ids[0]: False, ids[1]: True}


@pytest.mark.parametrize("wrong", [False, True])
async def test_a_signed_assertion_opens_the_org(make: Make, box: SalesforceSandbox, wrong: bool) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    box.public_key = (
        key.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )
    who = "nobody@acme.example" if wrong else INTEGRATION
    block = {"client_secret": None, "private_key": key.private_bytes(*form).decode(), "username": who}
    check = make(**block).app.check()
    if wrong:
        with pytest.raises(FixConfig, match=r"invalid_grant.* — check client_id, private_key and username"):
            await check
    else:
        assert (await check).line == f"Sandbox Org, Developer Edition at {box.url}"


class Memory(dict[str, str]):
    """A vault that forgets when the process ends."""

    def put(self, name: str, value: str) -> None:
        self[name] = value

    def claim(self, name: str, command: str) -> bool:
        return True

    def release(self, name: str) -> None:
        pass


async def test_refresh_tokens_that_are_replaced_are_kept(make: Make, box: SalesforceSandbox) -> None:
    box.rotates = True
    runtime: Any = replace(Runtime(), vault=Memory())
    for _ in range(3):
        await make(runtime, refresh_token=box.refresh if not runtime.vault else "5Aep861sandbox").app.check()
        box.sessions.clear()
    assert len(paths(box, "oauth2/token")) == 3
    assert box.refresh != "5Aep861sandbox"


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ({"client_secret": None}, "needs client_secret, or refresh_token, or username and private_key"),
        ({"private_key": "x"}, "private_key and username go together"),
        ({"base_url": "https://login.salesforce.com"}, "must be the org's own address"),
        ({"domain": "acme.my.salesforce.com"}, "write only the first part"),
        ({"api_version": "new"}, "looks like 62.0"),
    ],
)
def test_blocks_that_cannot_do_are_named(make: Make, block: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make(**block)


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()
)
STAMPS = st.sampled_from([None, "2026-03-01T12:00:00.000+0000", "2026-03-01T12:00:00.001Z"])
RECORDS = st.dictionaries(
    st.sampled_from(["Name", "Size", "Day", "New", "Parts"]), SCALARS | st.lists(SCALARS, max_size=2)
)


@given(st.lists(st.tuples(RECORDS, STAMPS, st.booleans(), st.booleans()), min_size=1, max_size=4), st.booleans())
def test_records_as_texts_become_the_rows_of_parsed_ones(found: list[Any], exclude: bool) -> None:
    kinds = {
        "Id": "id",
        "Name": "string",
        "Size": "double",
        "Day": "date",
        "Parts": "multipicklist",
        "IsDeleted": "boolean",
        "SystemModstamp": "datetime",
    }
    table = Table({"name": "Thing", "fields": [{"name": n, "type": k} for n, k in kinds.items()]})
    texts = []
    for n, (record, stamp, gone, first) in enumerate(found):
        attributes = {"attributes": {"type": "Thing", "url": f"/x/{n}"}}
        own = {"Id": f"{n}", **record, "IsDeleted": gone, "SystemModstamp": stamp}
        texts.append(json.dumps({**attributes, **own} if first else {**own, **attributes}, separators=(",", ":")))
    records = Records([t.encode("utf-8", "replace") for t in texts])
    reader, hidden = Reader(None), frozenset({"Size"} if exclude else ())  # type: ignore[arg-type]
    quick, newest = at_once(reader._in_turns)(table, Page(records, len(found), NOON), hidden)
    slow = reader._rows(table, list(records), NOON, hidden)
    assert quick.drop_columns("_raw").equals(slow.drop_columns("_raw"))
    assert list(map(json.loads, quick["_raw"].to_pylist())) == list(map(json.loads, slow["_raw"].to_pylist()))
    assert newest == max(stamp or "" for _, stamp, *_ in found)
