"""Slack's own Python library takes the sandbox for Slack."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError

from oploop.apps.slack.sandbox import TOKEN, SlackSandbox


@pytest.fixture
def box() -> Iterator[SlackSandbox]:
    sandbox = SlackSandbox(reads_per_minute=None)
    with sandbox.running():
        yield sandbox


def client(url: str, token: str = TOKEN) -> WebClient:
    return WebClient(token=token, base_url=f"{url}/")


def test_it_lists_by_pages(box: SlackSandbox) -> None:
    box.load("users", [{"id": f"U{n:08}"} for n in range(5)])
    slack = client(box.url)
    assert slack.auth_test()["team"] == "Sandbox"
    found = [m["id"] for page in slack.users_list(limit=2) for m in page["members"]]
    assert sorted(found) == sorted(box.users)
    assert [c["name"] for c in slack.conversations_list(exclude_archived=True)["channels"]] == ["general", "ops"]
    assert slack.users_info(user="U00000003")["user"]["id"] == "U00000003"


def test_it_posts_and_takes_back(box: SlackSandbox) -> None:
    slack = client(box.url)
    said = slack.chat_postMessage(channel="#ops", text="hi", blocks=[{"type": "divider"}])
    assert [(m["text"], m["channel"]) for m in box.dump("messages")] == [("hi", "C0OPS00001")]
    slack.chat_delete(channel=said["channel"], ts=said["ts"])
    assert box.dump("messages") == []


def test_what_is_wrong_is_said_in_its_terms(box: SlackSandbox) -> None:
    slack = client(box.url)
    for work, error in (
        (lambda: client(box.url, "xoxb-wrong").auth_test(), "invalid_auth"),
        (lambda: slack.chat_postMessage(channel="#nowhere", text="hi"), "channel_not_found"),
        (lambda: slack.chat_postMessage(channel="#ops", text="x" * 40_001), "msg_too_long"),
    ):
        with pytest.raises(SlackApiError) as e:
            work()
        assert e.value.response["error"] == error
    box.advance(2)
    slack.chat_postMessage(channel="#ops", text="one")
    with pytest.raises(SlackApiError) as e:
        slack.chat_postMessage(channel="#ops", text="two")
    assert (e.value.response.status_code, e.value.response.headers["Retry-After"]) == (429, "1")
