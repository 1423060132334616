"""What the account itself says: its fields, who we are, what is wrong with the credentials."""

from __future__ import annotations

import asyncio

import pytest
from pydantic import ValidationError

from oploop.apps.sandbox import Fault
from oploop.apps.zendesk import ZendeskApp, ZendeskSandbox
from oploop.apps.zendesk.client import ZendeskConfig
from oploop.errors import FixConfig, RetryLater
from oploop.records import Column, FieldType, JsonEntry, JsonPath
from tests.apps.zendesk.conftest import SPEND_ID, TEXT_ID, VirtualClock, make_app


async def test_custom_ticket_fields_stand_under_title_and_id(app: ZendeskApp) -> None:
    fields = await app.describe("tickets")
    reason = fields["Priority reason"]
    assert reason == fields[str(TEXT_ID)]
    assert (reason.name, reason.title, reason.type) == (f"custom_fields.{TEXT_ID}", "Priority reason", FieldType.TEXT)
    assert reason.source == JsonEntry("custom_fields", equals=TEXT_ID)
    assert fields["Account tier"].enum == ("tier_gold", "tier_free")
    assert fields[str(SPEND_ID)].type is FieldType.INTEGER
    assert fields["priority"].source == Column("priority")
    assert fields["status"].enum == ("new", "open", "pending", "hold", "solved", "closed")
    assert fields["id"].key
    assert fields["id"].read_only
    assert "Status" not in fields, "system fields are known by their name"


async def test_a_title_used_twice_or_taken_stands_for_nothing(app: ZendeskApp, sandbox: ZendeskSandbox) -> None:
    sandbox.load("ticket_fields", [{"id": 71, "title": "Account spend"}, {"id": 72, "title": "subject"}])
    fields = await app.describe("tickets")
    assert "Account spend" not in fields
    assert (fields[str(SPEND_ID)].title, fields["71"].title) == ("Account spend", "Account spend")
    assert fields["subject"].name == "subject"
    sandbox.load("ticket_fields", [{"id": 71, "title": "Account spend", "active": False}])
    assert (await app.describe("tickets"))["Account spend"].name == f"custom_fields.{SPEND_ID}"


async def test_types_of_custom_fields(app: ZendeskApp, sandbox: ZendeskSandbox) -> None:
    kinds = {
        "text": FieldType.TEXT, "textarea": FieldType.TEXT, "regexp": FieldType.TEXT, "integer": FieldType.INTEGER,
        "decimal": FieldType.NUMBER, "checkbox": FieldType.BOOLEAN, "date": FieldType.DATE, "multiselect": FieldType.LIST,
    }  # fmt: skip
    sandbox.load("ticket_fields", [{"type": kind, "title": f"A {kind}"} for kind in kinds])
    fields = await app.describe("tickets")
    assert {kind: fields[f"A {kind}"].type for kind in kinds} == kinds


async def test_an_accounts_narrower_priorities_are_taken_over(app: ZendeskApp, sandbox: ZendeskSandbox) -> None:
    (number,) = [d["id"] for d in sandbox.dump("ticket_fields") if d["type"] == "priority"]
    options = [{"name": "Normal", "value": "normal"}, {"name": "High", "value": "high"}]
    sandbox.load(
        "ticket_fields",
        [{"id": number, "type": "priority", "title": "Priority", "removable": False, "system_field_options": options}],
    )
    assert (await app.describe("tickets"))["priority"].enum == ("normal", "high")


async def test_user_and_organization_fields_stand_under_title_and_key(app: ZendeskApp, sandbox: ZendeskSandbox) -> None:
    users = await app.describe("users")
    assert users["Plan"] == users["plan"]
    assert (users["plan"].name, users["plan"].source) == ("user_fields.plan", JsonPath("user_fields", ("plan",)))
    sandbox.load("user_fields", [{"title": "Note 2", "key": "notes"}])
    users = await app.describe("users")
    assert users["notes"].name == "notes"
    assert users["user_fields.notes"] == users["Note 2"]
    sandbox.load("organization_fields", [{"title": f"F{n}", "key": f"f{n}"} for n in range(150)])
    assert (await app.describe("organizations"))["F149"].name == "organization_fields.f149"


async def test_check_tells_who_answers(app: ZendeskApp, sandbox: ZendeskSandbox) -> None:
    account = await app.check()
    assert account.line == f"ops <ops@acme.example>, admin at {sandbox.url}"
    assert account.name == "sandbox"


async def test_check_names_what_is_wrong(app: ZendeskApp, sandbox: ZendeskSandbox) -> None:
    wrong = make_app(sandbox.url, api_token="nonsense")
    with pytest.raises(FixConfig, match=r"401.*check email and api_token"):
        await wrong.check()
    await wrong.aclose()
    anonymous = '{"user": {"id": null, "name": "Anonymous user"}}'
    end_user = '{"user": {"id": 5, "name": "Eva", "email": "eva@acme.example", "role": "end-user"}}'
    for fault, said in (
        (Fault("users/me", "status", status=200, body=anonymous), "anonymous visitor — check email and api_token"),
        (Fault("users/me", "status", status=200, body=end_user), "eva@acme.example is an end user"),
        (
            Fault("users/me", "status", status=404, body='{"error": "x"}'),
            "no Zendesk account .HTTP 404. — check base_url",
        ),
        (Fault("users/me", "html"), "answered HTML.* check base_url"),
        (Fault("users/me", "truncate"), "truncated JSON.* check base_url"),
        (Fault("users/me", "empty"), "answered nothing.* check base_url"),
    ):
        sandbox.faults[:] = [fault]
        with pytest.raises(FixConfig, match=said):
            await app.check()


async def test_nothing_answers() -> None:
    app = make_app("http://127.0.0.1:9", rate_limit=1000)
    with pytest.raises(RetryLater, match="cannot reach"):
        await app.check()
    await app.aclose()


async def test_secrets_are_in_no_message_and_no_repr(app: ZendeskApp, sandbox: ZendeskSandbox) -> None:
    wrong = make_app(sandbox.url, api_token="hush-hush")
    with pytest.raises(FixConfig) as caught:
        await wrong.check()
    await wrong.aclose()
    assert "hush-hush" not in str(caught.value) + repr(wrong.config)


def test_a_line_break_in_a_token_is_told_and_not_hidden_in_the_header() -> None:
    config = ZendeskConfig(subdomain="acme", email="a@b.example", api_token="hush-hush\n")  # type: ignore[arg-type]
    with pytest.raises(FixConfig, match="has a line break") as told:
        config.headers()
    assert "hush" not in str(told.value)


def test_oauth_and_the_accounts_address() -> None:
    config = ZendeskConfig(subdomain="acme", oauth_token="t")  # type: ignore[arg-type]
    assert config.address() == "https://acme.zendesk.com"
    assert config.headers() == {"Authorization": "Bearer t"}


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ({"subdomain": "acme"}, "needs email and api_token, or client_id"),
        ({"email": "a@b.example", "api_token": "t"}, "needs subdomain"),
        ({"subdomain": "https://acme.zendesk.com", "oauth_token": "t"}, "only the first part"),
        ({"subdomain": "acme", "oauth_token": "t", "tokn": "x"}, "Extra inputs"),
    ],
)
def test_a_block_that_cannot_work_is_refused(block: dict[str, str], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ZendeskConfig(**block)  # type: ignore[arg-type]


async def test_bearer_tokens_reach_the_sandbox(sandbox: ZendeskSandbox) -> None:
    app = make_app(sandbox.url, oauth_token="zd_test_oploop", email=None, api_token=None)
    assert "admin" in (await app.check()).line
    await app.aclose()


async def test_the_budget_learns_the_accounts_limit_from_the_headers() -> None:
    box = ZendeskSandbox(rate_limit=700)
    with box.running() as url:
        app = make_app(url)
        await app.check()
        assert app.client.transport.budget is not None
        assert app.client.transport.budget.calls == 700
        await app.aclose()


async def test_a_used_up_limit_is_waited_out_as_the_headers_say() -> None:
    clock = VirtualClock()
    box = ZendeskSandbox(runtime=clock.runtime(), rate_limit=5)
    with box.running() as url:
        app = make_app(url, clock.runtime())
        await asyncio.gather(*(app.check() for _ in range(12)))
        await app.aclose()
    assert sum(e.status == 200 for e in box.log) == 12
    assert all("Retry-After" in e.answer_headers for e in box.log if e.status == 429)
    assert 60 <= clock.slept <= 1000
