"""simple-salesforce takes the stand-in for an org."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import orjson
import pytest
import requests
from requests.adapters import HTTPAdapter
from simple_salesforce import Salesforce
from simple_salesforce.exceptions import (
    SalesforceExpiredSession,
    SalesforceMalformedRequest,
    SalesforceMoreThanOneRecord,
    SalesforceResourceNotFound,
)

from oploop.apps.salesforce.sandbox import CLIENT_ID, CLIENT_SECRET, SalesforceSandbox


class Plain(HTTPAdapter):
    """The library knows only https, and the stand-in speaks http."""

    def send(self, request: Any, *args: Any, **more: Any) -> Any:
        request.url = request.url.replace("https://", "http://", 1)
        return super().send(request, *args, **more)


@pytest.fixture
def org(box: SalesforceSandbox) -> Iterator[Salesforce]:
    form = {"grant_type": "client_credentials", "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET}
    with urlopen(f"{box.url}/services/oauth2/token", urlencode(form).encode()) as answer:  # loopback
        told = orjson.loads(answer.read())
    session = requests.Session()
    session.mount("https://", Plain())
    yield Salesforce(
        instance_url=told["instance_url"], session_id=told["access_token"], version="62.0", session=session
    )
    session.close()


def test_records_one_by_one(org: Salesforce) -> None:
    made = org.Account.create({"Name": "Bäckerei", "Billing_Id__c": "b-1"})
    assert made["success"]
    assert org.Account.get(made["id"])["Name"] == "Bäckerei"
    assert org.Account.get(made["id"][:15])["Id"] == made["id"]
    assert org.Account.get_by_custom_id("Billing_Id__c", "B-1")["Id"] == made["id"]
    assert org.Account.update(made["id"], {"Health__c": "At Risk"}) == 204
    assert org.Account.upsert("Billing_Id__c/b-1", {"Health_Score__c": 40}) in (200, 204)
    assert org.Account.upsert("Billing_Id__c/b-2", {"Name": "Neu"}) == 201
    with pytest.raises(SalesforceMalformedRequest, match="INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST"):
        org.Account.update(made["id"], {"Health__c": "Unknown"})
    assert org.Account.delete(made["id"]) == 204
    with pytest.raises(SalesforceResourceNotFound):
        org.Account.get(made["id"])


def test_several_records_of_one_external_id_are_three_hundred(org: Salesforce) -> None:
    for name in ("A", "B"):
        org.Account.create({"Name": name, "Legacy_Key__c": "x"})
    with pytest.raises(SalesforceMoreThanOneRecord):
        org.Account.upsert("Legacy_Key__c/x", {"Name": "C"})


def test_queries_and_their_pages(org: Salesforce, box: SalesforceSandbox) -> None:
    box.load("Account", [{"Name": f"it's {i}", "Health_Score__c": i} for i in range(250)])
    found = org.query_all(
        "SELECT Id, Name FROM Account WHERE Health_Score__c >= 20 AND (Name LIKE 'it_s%' OR Name = null)"
    )
    assert found["totalSize"] == len(found["records"]) == 230
    some = org.query("SELECT Name FROM Account WHERE Name IN ('IT\\'S 7', 'it\\'s 8') ORDER BY Name DESC LIMIT 1")
    assert [r["Name"] for r in some["records"]] == ["it's 8"]
    assert org.query("SELECT COUNT() FROM Account")["totalSize"] == 250
    assert len(list(org.query_all_iter("SELECT Id FROM Account"))) == 250
    org.Account.delete(found["records"][0]["Id"])
    assert org.query("SELECT COUNT() FROM Account")["totalSize"] == 249
    assert org.query("SELECT COUNT() FROM Account", include_deleted=True)["totalSize"] == 250
    for wrong in ("SELECT Nix FROM Account", "SELECT Id FROM Nix", "SELECT Id FROM Account WHERE"):
        with pytest.raises(SalesforceMalformedRequest):
            org.query(wrong)


def test_what_the_org_says_of_itself(org: Salesforce) -> None:
    described = org.Account.describe()
    [health] = [f for f in described["fields"] if f["name"] == "Health__c"]
    assert health["restrictedPicklist"]
    assert [v["value"] for v in health["picklistValues"]] == ["Healthy", "At Risk"]
    assert "Lead" in [o["name"] for o in org.describe()["sobjects"]]
    assert org.limits()["DailyApiRequests"]["Max"] == 100_000
    assert org.api_usage["api-usage"].total == 100_000


def test_jobs(org: Salesforce, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simple_salesforce.bulk2.sleep", lambda _: None)
    rows = [{"Billing_Id__c": f"b-{i}", "Name": f"Haus {i}"} for i in range(20)] + [{"Billing_Id__c": "", "Name": "x"}]
    [told] = org.bulk2.Account.upsert(records=rows, external_id_field="Billing_Id__c")
    assert (told["numberRecordsProcessed"], told["numberRecordsFailed"]) == (21, 1)
    assert "MISSING_ARGUMENT" in org.bulk2.Account.get_failed_records(told["job_id"])
    pages = list(org.bulk2.Account.query("SELECT Id, Name FROM Account", max_records=8))
    assert [len(p.strip().splitlines()) - 1 for p in pages] == [8, 8, 4]


def test_a_session_that_ended(org: Salesforce, box: SalesforceSandbox) -> None:
    box.sessions.clear()
    with pytest.raises(SalesforceExpiredSession):
        org.query("SELECT Id FROM Account")
