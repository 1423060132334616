"""Mixpanel's own Python library takes the sandbox for Mixpanel."""

from __future__ import annotations

import time
from collections.abc import Iterator

import mixpanel
import pytest

from oploop.apps.mixpanel.sandbox import ACCOUNT, PROJECT, SECRET, TOKEN, MixpanelSandbox


@pytest.fixture
def box() -> Iterator[MixpanelSandbox]:
    sandbox = MixpanelSandbox()
    with sandbox.running():
        yield sandbox


def client(url: str, token: str = TOKEN, secret: str = SECRET) -> mixpanel.Mixpanel:
    paths = {"events_url": "track", "people_url": "engage", "import_url": "import", "groups_url": "groups"}
    consumer = mixpanel.Consumer(
        **{name: f"{url}/{path}" for name, path in paths.items()},
        credentials=mixpanel.ServiceAccountCredentials(ACCOUNT, secret, str(PROJECT)),
        retry_limit=0,
    )
    return mixpanel.Mixpanel(token, consumer)


def test_profiles_of_users_and_groups(box: MixpanelSandbox) -> None:
    mp = client(box.url)
    mp.people_set("u1", {"$name": "Zoë", "plan": "free", "seats": 3})
    mp.people_set_once("u1", {"plan": "pro", "first": "mail"})
    mp.people_increment("u1", {"seats": 2})
    mp.people_union("u1", {"tags": ["a", "b"]})
    mp.people_append("u1", {"tags": "c"})
    mp.people_remove("u1", {"tags": "a"})
    mp.people_unset("u1", ["plan"])
    properties = {"$name": "Zoë", "seats": 5, "first": "mail", "tags": ["b", "c"]}
    assert box.dump("profiles") == [{"$distinct_id": "u1", "$properties": properties}]
    mp.group_set("company", "acme", {"$name": "Acme"})
    assert box.dump("company") == [{"$distinct_id": "acme", "$properties": {"$name": "Acme"}}]
    mp.group_delete("company", "acme")
    mp.people_delete("u1")
    assert box.dump("company") == box.dump("profiles") == []


def test_events_are_tracked_and_imported(box: MixpanelSandbox) -> None:
    mp = client(box.url)
    mp.track("u1", "Opened", {"page": "/"})
    mp.import_data(api_key="", distinct_id="u1", event_name="Paid", timestamp=int(time.time()) - 3600)
    assert [e["event"] for e in box.dump("events")] == ["Opened", "Paid"]


def test_what_is_wrong_is_said_in_its_terms(box: MixpanelSandbox) -> None:
    with pytest.raises(mixpanel.MixpanelException):
        client(box.url).people_set("", {"plan": "free"})
    with pytest.raises(mixpanel.MixpanelException):
        client(box.url, secret="wrong").import_data("", "u1", "Paid", int(time.time()))
    client(box.url, token="nobodys").people_set("u1", {"plan": "free"})  # taken, and dropped
    assert box.dump("profiles") == []
    assert len(box.dump("dropped")) == 1
