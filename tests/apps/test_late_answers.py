"""Answers that take their time: what a fetch shows is as of when it was asked for, not of when its answer's `Date` says."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from email.utils import formatdate, parsedate_to_datetime
from typing import Any

import pytest

from oploop.apps.base import App
from oploop.apps.http import HttpApp
from oploop.apps.http.config import HttpConfig
from oploop.apps.http.sandbox import HttpSandbox
from oploop.apps.hubspot import HubSpotApp, HubSpotConfig
from oploop.apps.hubspot.sandbox import HubSpotSandbox
from oploop.apps.policy import Answer, Request
from oploop.apps.salesforce import SalesforceApp, SalesforceConfig
from oploop.apps.salesforce.sandbox import SalesforceSandbox
from oploop.apps.sandbox import Sandbox
from oploop.apps.sender import Sender
from oploop.apps.zendesk import ZendeskApp, ZendeskSandbox
from oploop.apps.zendesk.client import ZendeskConfig
from oploop.records import VERSION
from oploop.runtime import Runtime

SECONDS = 5
Make = Callable[[str, Runtime], App]


class Late:
    """On the wire: answers to calls that `match` end so many seconds later, by the app's clock. `meanwhile` is called once, between
    what such an answer shows and its end."""

    def __init__(self, match: str, meanwhile: Callable[[], None] = lambda: None) -> None:
        self.match, self.meanwhile, self.met = match, meanwhile, 0

    def monotonic(self) -> float:
        return time.monotonic() + SECONDS * self.met

    def over(self, sender: Sender, runtime: Runtime) -> Sender:
        async def send(request: Request) -> Answer:
            answer = await sender(request)
            if self.match not in request.url:
                return answer
            self.met += 1
            if self.met == 1:
                self.meanwhile()
            date = parsedate_to_datetime(answer.headers["date"]).timestamp() + SECONDS
            return replace(answer, headers={**answer.headers, "date": formatdate(date, usegmt=True)})

        return send


APPS: dict[str, tuple[type[Sandbox], Make, str, dict[str, Any], str]] = {
    "zendesk": (
        ZendeskSandbox,
        lambda url, runtime: ZendeskApp("zendesk", ZendeskConfig(**ZendeskSandbox.default_config(url)), runtime),
        "tickets",
        {"id": 1, "subject": "one", "status": "open"},
        "show_many",
    ),
    "salesforce": (
        SalesforceSandbox,
        lambda url, runtime: SalesforceApp(
            "salesforce", SalesforceConfig(**SalesforceSandbox.default_config(url)), runtime
        ),
        "Account",
        {"Name": "one"},
        "composite/sobjects",
    ),
    "hubspot": (
        HubSpotSandbox,
        lambda url, runtime: HubSpotApp("hubspot", HubSpotConfig(**HubSpotSandbox.default_config(url)), runtime),
        "contacts",
        {"email": "one@acme.example"},
        "batch/read",
    ),
    "http": (
        HttpSandbox,
        lambda url, runtime: HttpApp("billing", HttpConfig(**HttpSandbox.default_config(url)), runtime),
        "accounts",
        {"name": "one"},
        "/accounts/1",
    ),
}


@pytest.mark.parametrize("asked_before", [True, False])
@pytest.mark.parametrize("name", APPS)
async def test_what_a_late_answer_shows_may_be_changed_before_its_end(name: str, asked_before: bool) -> None:
    kind, make, object_name, record, match = APPS[name]
    sandbox, late = kind(), Late(match)
    with sandbox.running() as url:
        sandbox.load(object_name, [record])
        [held] = sandbox.dump(object_name)
        app = make(url, Runtime(trace=late, monotonic=late.monotonic))
        if asked_before:
            await app.check()
        began = sandbox.now().timestamp()
        batch = await app.fetch(object_name, [str(held.get("id", held.get("Id")))])
        await app.aclose()
    [version] = batch.table[VERSION].to_pylist()
    assert late.met
    assert int(began) - 30 <= version / 1e6 <= began, "as of before the answer ended"
