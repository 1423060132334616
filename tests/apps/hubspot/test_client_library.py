"""HubSpot's own Python client uses the sandbox as it would use HubSpot."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import hubspot
import pytest
from hubspot.crm import associations, contacts, lists, objects, properties

from oploop.apps.hubspot import HubSpotSandbox
from tests.apps.hubspot.support import contact, new_sandbox


@pytest.fixture
def sandbox() -> HubSpotSandbox:
    return new_sandbox()


@pytest.fixture
def client(sandbox: HubSpotSandbox) -> Iterator[Any]:
    with sandbox.running() as url:
        yield hubspot.Client.create(access_token="pat-test-oploop", host=url)


def test_a_contact_is_made_read_changed_and_archived(client: Any, sandbox: HubSpotSandbox) -> None:
    made = client.crm.contacts.basic_api.create(
        contacts.SimplePublicObjectInputForCreate(properties={"email": "Zoe@X.example", "renewal": "2026-03-01"}, associations=[])
    )  # fmt: skip
    shown = client.crm.contacts.basic_api.get_by_id(made.id, properties=["email", "renewal"])
    assert shown.properties["email"] == "zoe@x.example"
    assert shown.properties["renewal"] == "2026-03-01"
    client.crm.contacts.basic_api.update(made.id, contacts.SimplePublicObjectInput(properties={"plan": "pro"}))
    found = client.crm.contacts.basic_api.get_by_id("zoe@x.example", id_property="email", properties=["plan"])
    assert found.properties["plan"] == "pro"
    with pytest.raises(contacts.ApiException) as taken:
        client.crm.contacts.basic_api.create(
            contacts.SimplePublicObjectInputForCreate(properties={"email": "zoe@x.example"}, associations=[])
        )
    assert taken.value.status == 409
    assert made.id in taken.value.body
    client.crm.contacts.basic_api.archive(made.id)
    assert client.crm.contacts.basic_api.get_page(archived=True).results[0].archived_at is not None
    assert client.crm.contacts.get_all() == []


def test_pages_searches_and_batches(client: Any, sandbox: HubSpotSandbox) -> None:
    sandbox.load("contacts", [contact(n, plan="pro" if n % 2 else "free") for n in range(1, 251)])
    assert [c.id for c in client.crm.contacts.get_all()] == [str(n) for n in range(1, 251)]
    asked = contacts.PublicObjectSearchRequest(
        filter_groups=[{"filters": [{"propertyName": "plan", "operator": "EQ", "value": "pro"}]}],
        sorts=[{"propertyName": "hs_object_id", "direction": "DESCENDING"}],
        properties=["plan"], limit=5, after="0",
    )  # fmt: skip
    found = client.crm.contacts.search_api.do_search(asked)
    assert (found.total, [c.id for c in found.results]) == (125, ["249", "247", "245", "243", "241"])
    assert found.paging.next.after == "5"
    read = client.crm.contacts.batch_api.read(
        contacts.BatchReadInputSimplePublicObjectId(inputs=[{"id": "1"}, {"id": "2"}], properties=["plan"], properties_with_history=[])
    )  # fmt: skip
    assert {c.id: c.properties["plan"] for c in read.results} == {"1": "pro", "2": "free"}
    upserted = client.crm.contacts.batch_api.upsert(
        contacts.BatchInputSimplePublicObjectBatchInputUpsert(
            inputs=[{"id": f"c{n}@acme.example", "idProperty": "email", "properties": {"spend": "5"}} for n in (1, 999)]
        )
    )
    assert {c.id: c.new for c in upserted.results} == {"1": False, "501": True}


def test_properties_custom_objects_associations_and_lists(client: Any, sandbox: HubSpotSandbox) -> None:
    client.crm.properties.core_api.create(
        "contacts",
        properties.PropertyCreate(name="tier", label="Tier", type="string", field_type="text", group_name="g"),
    )
    assert "tier" in [p.name for p in client.crm.properties.core_api.get_all("contacts").results]
    [cars] = client.crm.schemas.core_api.get_all().results
    car = client.crm.objects.basic_api.create(
        cars.object_type_id, objects.SimplePublicObjectInputForCreate(properties={"vin": "V1"}, associations=[])
    )
    assert client.crm.objects.basic_api.get_by_id("cars", car.id, properties=["vin"]).properties["vin"] == "V1"
    sandbox.load("contacts", [contact(1)])
    sandbox.load("companies", [{"id": "9", "properties": {"name": "C"}}])
    pair = {"from": {"id": "1"}, "to": {"id": "9"}}
    client.crm.associations.v4.batch_api.create_default(
        "contacts", "companies", associations.v4.BatchInputPublicDefaultAssociationMultiPost(inputs=[pair])
    )
    read = client.crm.associations.v4.batch_api.get_page(
        "contacts", "companies", associations.v4.BatchInputPublicFetchAssociationsBatchRequest(inputs=[{"id": "1"}])
    )
    assert [str(t.to_object_id) for t in read.results[0].to] == ["9"]
    made = client.crm.lists.lists_api.create(
        lists.ListCreateRequest(object_type_id="0-1", processing_type="MANUAL", name="VIPs")
    )
    answer = client.crm.lists.memberships_api.add(made.list.list_id, ["1", "777"])
    assert (answer.records_ids_added, answer.record_ids_missing) == (["1"], ["777"])
    page = client.crm.lists.memberships_api.get_page(made.list.list_id)
    assert [m.record_id for m in page.results] == ["1"]


def test_a_wrong_token_is_refused(sandbox: HubSpotSandbox) -> None:
    with sandbox.running() as url:
        stranger = hubspot.Client.create(access_token="pat-nobodys", host=url)
        with pytest.raises(contacts.ApiException) as refused:
            stranger.crm.contacts.basic_api.get_page()
    assert refused.value.status == 401
