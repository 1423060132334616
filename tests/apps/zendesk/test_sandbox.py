"""The sandbox behaves as documented: by a public client, and by plain requests."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from zenpy import Zenpy
from zenpy.lib.api_objects import CustomField, Organization, Ticket, User
from zenpy.lib.exception import APIException, RecordNotFoundException

from oploop.apps.zendesk import ZendeskSandbox
from tests.apps.zendesk.conftest import TEXT_ID, TIER_ID, fill


@pytest.fixture
def zenpy(sandbox: ZendeskSandbox, monkeypatch: pytest.MonkeyPatch) -> Iterator[Zenpy]:
    """The public client on the sandbox: it builds SCHEME://SUBDOMAIN.DOMAIN, and takes the scheme from the environment."""
    monkeypatch.setenv("ZENPY_FORCE_SCHEME", "http")
    subdomain, domain = sandbox.url.removeprefix("http://").split(".", 1)
    with requests.Session() as session:
        yield Zenpy(
            subdomain=subdomain, domain=domain, email="eva@acme.example", token="zd_test_oploop", session=session
        )


def api(
    sandbox: ZendeskSandbox, method: str, path: str, token: str = "zd_test_oploop", **more: Any
) -> requests.Response:
    """A plain request, as an agent's browser or a script would send it."""
    auth = ("agent@acme.example/token", token)
    return requests.request(method, f"{sandbox.url}/api/v2/{path}", auth=auth, timeout=5, **more)


def wait_for(zenpy: Zenpy, job: Any) -> Any:
    """The job once it has ended."""
    for _ in range(200):
        status = zenpy.job_status(id=job.id)
        if status.status not in ("queued", "working"):
            return status
        time.sleep(0.005)
    raise AssertionError("the job does not end")


def test_zenpy_reads(zenpy: Zenpy) -> None:
    assert zenpy.users.me().email == "eva@acme.example"
    assert zenpy.tickets(id=7).subject == "Drücker brennt 6 🔥"
    assert len(list(zenpy.tickets())) == 300
    assert [t.id for t in zenpy.tickets(ids=[3, 4])] == [3, 4]
    assert len(list(zenpy.tickets.incremental(start_time=0, per_page=70))) == 300
    assert len(list(zenpy.users.incremental(start_time=0))) == 40
    assert len(list(zenpy.organizations.incremental(start_time=0))) == 12
    assert {f.title for f in zenpy.ticket_fields()} >= {"Subject", "Priority reason"}
    assert [t.id for t in zenpy.search(type="ticket", subject="nothing")] == []
    with pytest.raises(RecordNotFoundException):
        zenpy.tickets(id=4711)


def test_zenpy_writes_one_record(zenpy: Zenpy, sandbox: ZendeskSandbox) -> None:
    made = zenpy.tickets.create(
        Ticket(subject="Hilfe", description="brennt", requester_id=505, external_id="Z-1")
    ).ticket
    made.priority = "urgent"
    made.custom_fields = [CustomField(id=TEXT_ID, value="wichtig")]
    assert zenpy.tickets.update(made).ticket.priority == "urgent"
    assert {"id": TEXT_ID, "value": "wichtig"} in sandbox.dump("tickets")[-1]["custom_fields"]
    assert [t.id for t in zenpy.search(type="ticket", external_id="Z-1")] == [made.id]
    zenpy.tickets.delete(made)
    with pytest.raises(RecordNotFoundException):
        zenpy.tickets(id=made.id)
    with pytest.raises(APIException, match="Priority: asap is invalid"):
        zenpy.tickets.update(Ticket(id=7, priority="asap"))
    user = zenpy.users.create_or_update(User(name="Renamed", external_id="c-3"))
    assert (user.id, user.external_id) == (503, "c-3")
    with pytest.raises(APIException, match="already been taken"):
        zenpy.organizations.create(Organization(name="ORG 3"))


def test_zenpy_writes_many(zenpy: Zenpy, sandbox: ZendeskSandbox) -> None:
    job = zenpy.tickets.create([Ticket(subject=f"n{i}", description="d") for i in range(10)])
    done = wait_for(zenpy, job)
    assert (done.status, done.total, len(done.results)) == ("completed", 10, 10)
    assert {t["subject"] for t in sandbox.dump("tickets")[-10:]} == {f"n{i}" for i in range(10)}
    wait_for(zenpy, zenpy.tickets.update([Ticket(id=1, priority="low"), Ticket(id=2, priority="high")]))
    assert [t["priority"] for t in sandbox.dump("tickets")[:2]] == ["low", "high"]
    wait_for(zenpy, zenpy.tickets.delete([zenpy.tickets(id=1), zenpy.tickets(id=2)]))
    assert {t["status"] for t in sandbox.dump("tickets")[:2]} == {"deleted"}


def test_credentials(sandbox: ZendeskSandbox) -> None:
    assert api(sandbox, "GET", "tickets/7", token="wrong").status_code == 401
    assert requests.get(f"{sandbox.url}/api/v2/tickets/7", timeout=5).status_code == 401
    assert requests.get(f"{sandbox.url}/api/v2/users/me", timeout=5).json()["user"]["id"] is None
    assert api(sandbox, "GET", "users/me.json").json()["user"]["email"] == "agent@acme.example"


def test_pages_by_cursor_and_by_offset(sandbox: ZendeskSandbox) -> None:
    first = api(sandbox, "GET", "tickets?page[size]=100").json()
    assert (len(first["tickets"]), first["meta"]["has_more"]) == (100, True)
    second = requests.get(first["links"]["next"], auth=("a/token", "zd_test_oploop"), timeout=5).json()
    assert [t["id"] for t in second["tickets"]][:2] == [101, 102]
    by_offset = api(sandbox, "GET", "tickets?page=3&per_page=100").json()
    assert (by_offset["tickets"][0]["id"], by_offset["count"], by_offset["next_page"]) == (201, 300, None)
    assert api(sandbox, "GET", "tickets?page=101").status_code == 400
    assert api(sandbox, "GET", "tickets?page[size]=101").status_code == 400
    assert api(sandbox, "GET", "tickets?page[size]=10&page[after]=!!").status_code == 400


def test_exports_refuse_a_start_that_is_too_recent(sandbox: ZendeskSandbox) -> None:
    for path in ("tickets/cursor", "users/cursor", "organizations"):
        refused = api(sandbox, "GET", f"incremental/{path}?start_time={sandbox.store.seconds() - 30}")
        assert refused.status_code == 400
        assert "Too recent start_time" in refused.json()["description"]
    assert api(sandbox, "GET", "incremental/tickets/cursor").status_code == 400


def test_no_more_than_thirty_jobs_and_a_hundred_items(sandbox: ZendeskSandbox) -> None:
    sandbox.jobs.seconds = 30.0
    body = {"tickets": [{"id": 1, "priority": "low"}]}
    codes = [api(sandbox, "PUT", "tickets/update_many", json=body).status_code for _ in range(31)]
    assert codes == [200] * 30 + [429]
    assert api(sandbox, "PUT", "tickets/update_many", json={"tickets": body["tickets"] * 101}).status_code == 400
    assert api(sandbox, "GET", "tickets/show_many?ids=" + ",".join(map(str, range(101)))).status_code == 400
    ids = [j["id"] for j in api(sandbox, "GET", "job_statuses").json()["job_statuses"]]
    shown = api(sandbox, "GET", f"job_statuses/show_many?ids={','.join(ids[:3])}").json()["job_statuses"]
    assert [j["status"] for j in shown] == ["queued"] * 3


def test_safe_updates_and_closed_tickets(sandbox: ZendeskSandbox) -> None:
    stamp = api(sandbox, "GET", "tickets/7").json()["ticket"]["updated_at"]
    safe = {"ticket": {"priority": "high", "safe_update": True, "updated_stamp": stamp}}
    assert api(sandbox, "PUT", "tickets/7", json=safe).status_code == 200
    conflict = api(sandbox, "PUT", "tickets/7", json={"ticket": {**safe["ticket"], "priority": "low"}})
    assert (conflict.status_code, conflict.json()["error"]) == (409, "UpdateConflict")
    api(sandbox, "PUT", "tickets/7", json={"ticket": {"status": "closed"}})
    closed = api(sandbox, "PUT", "tickets/7", json={"ticket": {"priority": "low"}})
    assert (closed.status_code, "closed prevents" in closed.text) == (422, True)


def test_values_are_kept_as_zendesk_keeps_them(sandbox: ZendeskSandbox) -> None:
    def put(**fields: Any) -> dict[str, Any]:
        answer: dict[str, Any] = api(sandbox, "PUT", "tickets/7", json={"ticket": fields}).json()["ticket"]
        return answer

    before = put(subject="  Ä b  ")
    assert before["subject"] == before["raw_subject"] == "Ä b"
    assert put(subject="Ä b", nonsense=1, description="x") == before, (
        "a change that changes nothing, and unknown fields"
    )
    assert put(tags=["Zwei Teile", "A"])["tags"] == ["a", "teile", "zwei"]
    assert put(additional_tags=["b"], remove_tags=["zwei"])["tags"] == ["a", "b", "teile"]
    gold = put(custom_fields=[{"id": TIER_ID, "value": "tier_gold"}])
    assert "tier_gold" in gold["tags"]
    assert gold["fields"] == gold["custom_fields"]
    assert put(custom_fields=[{"id": TIER_ID, "value": "no option"}, {"id": 1, "value": "x"}]) == gold, (
        "ignored in silence"
    )
    untagged = put(tags=["a"])
    assert {"id": TIER_ID, "value": None} in untagged["custom_fields"]


def test_users_keep_their_primary_address(sandbox: ZendeskSandbox) -> None:
    changed = api(sandbox, "PUT", "users/501", json={"user": {"email": "other@acme.example"}}).json()["user"]
    assert changed["email"] == "u1@acme.example"
    again = api(sandbox, "POST", "users", json={"user": {"name": "N", "email": "U2@acme.example"}})
    assert (again.status_code, "already being used" in again.text) == (422, True)
    deleted = api(sandbox, "DELETE", "users/502").json()["user"]
    assert (deleted["active"], deleted["email"]) == (False, None)
    assert api(sandbox, "DELETE", "users/502").status_code == 404


def test_deleted_organizations_stay_in_the_export_alone(sandbox: ZendeskSandbox) -> None:
    assert api(sandbox, "DELETE", "organizations/53").status_code == 204
    assert api(sandbox, "GET", "organizations/53").status_code == 404
    assert "deleted_at" not in api(sandbox, "GET", "organizations/54").json()["organization"]
    sandbox.advance(61)
    exported = api(sandbox, "GET", "incremental/organizations?start_time=0").json()["organizations"]
    (gone,) = [o for o in exported if o["deleted_at"]]
    assert (gone["id"], gone["name"]) == (53, "53_deleted_Org 3")
    assert api(sandbox, "POST", "organizations", json={"organization": {"name": "Org 3"}}).status_code == 201


def test_field_definitions_can_be_made_changed_and_deleted(sandbox: ZendeskSandbox) -> None:
    made = api(sandbox, "POST", "ticket_fields", json={"ticket_field": {"type": "text", "title": "Neu"}}).json()[
        "ticket_field"
    ]
    path = f"ticket_fields/{made['id']}"
    assert (
        api(sandbox, "PUT", path, json={"ticket_field": {"title": "Neuer"}}).json()["ticket_field"]["title"] == "Neuer"
    )
    assert {"id": made["id"], "value": None} in api(sandbox, "GET", "tickets/7").json()["ticket"]["custom_fields"]
    assert api(sandbox, "DELETE", path).status_code == 204
    assert api(sandbox, "GET", path).status_code == 404
    subject = next(d["id"] for d in sandbox.dump("ticket_fields") if d["type"] == "subject")
    assert api(sandbox, "DELETE", f"ticket_fields/{subject}").status_code == 422


def test_control_over_http(sandbox: ZendeskSandbox) -> None:
    before = api(sandbox, "GET", "tickets/7").json()["ticket"]
    requests.post(f"{sandbox.url}/_sandbox/system_update", json={"ids": [7]}, timeout=5).raise_for_status()
    after = api(sandbox, "GET", "tickets/7").json()["ticket"]
    assert after["generated_timestamp"] > before["generated_timestamp"]
    assert after["updated_at"] == before["updated_at"]
    requests.post(f"{sandbox.url}/_sandbox/load", json={"users": [{"name": "L"}]}, timeout=5).raise_for_status()
    assert sandbox.dump("users")[-1]["name"] == "L"
    requests.post(f"{sandbox.url}/_sandbox/reset", timeout=5).raise_for_status()
    assert sandbox.dump("tickets") == []
    assert {d["type"] for d in sandbox.dump("ticket_fields")} >= {"subject", "priority"}


def test_limits_are_told_and_kept() -> None:
    box = ZendeskSandbox(rate_limit=3)
    fill(box)
    with box.running():
        answers = [api(box, "GET", "tickets/7") for _ in range(5)]
    told = [a.headers.get("x-rate-limit-remaining") for a in answers[:3]]
    assert [a.status_code for a in answers] == [200] * 3 + [429] * 2
    assert told == ["2", "1", "0"]
    assert int(answers[4].headers["Retry-After"]) >= 1


def test_a_large_company_loads() -> None:
    box = ZendeskSandbox(keep_log=False)
    box.load("users", [{"name": f"U{i}", "email": f"u{i}@acme.example"} for i in range(2000)])
    box.load("tickets", [{"subject": f"T{i}", "requester_id": 900001 + i % 2000} for i in range(5000)])
    assert len(box.dump("tickets")) == 5000
    assert all(t["updated_at"] and t["generated_timestamp"] for t in box.dump("tickets")[:10])
    with pytest.raises(LookupError):
        box.load("nothing", [{}])
