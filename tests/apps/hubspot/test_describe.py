"""What an account's properties become: fields, keys, operations."""

from __future__ import annotations

from oploop.apps.hubspot import HubSpotApp
from oploop.records import Canonical, Column, FieldType, Op, Replay
from tests.apps.hubspot.support import new_sandbox, using


async def test_properties_are_fields_with_their_rules() -> None:
    async with using(new_sandbox()) as app:
        fields = await app.describe("contacts")
        assert {n: fields[n].type for n in ("spend", "plan", "topics", "renewal", "seen_at", "vip", "firstname")} == {
            "spend": FieldType.NUMBER,
            "plan": FieldType.TEXT,
            "topics": FieldType.LIST,
            "renewal": FieldType.DATE,
            "seen_at": FieldType.TIMESTAMP,
            "vip": FieldType.BOOLEAN,
            "firstname": FieldType.TEXT,
        }
        assert fields["plan"].enum == ("free", "pro")
        assert fields["hubspot_owner_id"].enum is None  # its options stand elsewhere
        assert [n for n in ("score", "createdate", "hs_object_id", "lastmodifieddate") if not fields[n].read_only] == []
        assert fields["Account spend"].name == "spend"
        assert fields["spend"].custom
        assert not fields["email"].custom
        assert "Email" not in fields  # HubSpot's own properties go by their name
        assert fields["email"].canonical is Canonical.LOWER
        assert {n for n, f in fields.items() if f.key} == {"id", "email", "billing_id", "Billing ID"}
        assert fields["associations.company"].source == Column("associatedcompanyid")


async def test_a_unique_property_makes_an_upsert() -> None:
    async with using(new_sandbox()) as app:
        assert app.objects["contacts"].operations[Op.UPSERT].keys == ("email",)
        await app.describe("contacts")
        assert set(app.objects["contacts"].operations[Op.UPSERT].keys) == {"email", "billing_id"}
        assert app.objects["contacts"].operations[Op.UPSERT].replay is Replay.SAFE
        await app.describe("companies")
        assert Op.UPSERT not in app.objects["companies"].operations
        assert app.objects["companies"].operations[Op.CREATE].replay is Replay.LOOKUP
        cars = await app.describe("cars")
        assert app.objects["cars"].operations[Op.UPSERT].keys == ("vin",)
        assert [n for n, f in cars.items() if f.required] == ["VIN", "vin"]
        assert set(app.streams["cars"].columns) >= {"vin", "doors", "id", "archived"}
    assert HubSpotApp.objects["contacts"].operations[Op.UPSERT].keys == ("email",)  # what one account has is its own


async def test_a_label_that_two_properties_share_names_neither() -> None:
    box = new_sandbox()
    box.load(
        "properties.contacts",
        [{"name": "email_2", "label": "Email"}, {"name": "a", "label": "Same"}, {"name": "b", "label": "Same"}],
    )
    async with using(box) as app:
        fields = await app.describe("contacts")
    assert "Same" not in fields
    assert "Email" not in fields
    assert {"a", "b", "email_2"} <= set(fields)
