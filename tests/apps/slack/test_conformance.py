"""Slack before the suite that every app must pass."""

from __future__ import annotations

from typing import Any

from oploop.apps.conformance import AppSuite, ObjectCase, StreamCase
from oploop.apps.sandbox import Sandbox
from oploop.apps.slack import SlackApp
from oploop.apps.slack.sandbox import SlackSandbox
from oploop.runtime import Runtime


def _user(i: int) -> dict[str, Any]:
    return {"id": f"U{i:08}", "real_name": f"Zoë {i} 🌻", **({"email": f"u{i}@acme.example"} if i % 3 else {})}


def _channel(i: int) -> dict[str, Any]:
    return {"id": f"C{i:08}", "name": f"team-{i}", "is_archived": i % 7 == 0, "is_private": i % 5 == 0}


def _change(sandbox: Any, key: str) -> None:
    sandbox.load("users", [{**sandbox.users[key], "real_name": "geändert"}])


def _leave(sandbox: Any, key: str) -> None:
    sandbox.load("users", [{**sandbox.users[key], "deleted": True}])


def _rename(sandbox: Any, key: str) -> None:
    sandbox.load("channels", [{**sandbox.channels[key], "name": "renamed"}])


def _close(sandbox: Any, key: str) -> None:
    del sandbox.channels[key]


class TestSlack(AppSuite):
    app_class = SlackApp
    wrong_credentials = {"token": "xoxb-nobodys"}
    streams = [
        StreamCase("users", "users", _user, "GET /users.list", count=450, change=_change, delete=_leave),
        StreamCase("channels", "channels", _channel, "GET /conversations.list", change=_rename, delete=_close),
    ]
    objects = [
        ObjectCase(
            "messages",
            fields=lambda i: {"channel": "#ops", "text": f"Zoë's {i}th 🌻"},
            bad={"channel": "#nowhere"},
            calls="POST /chat.postMessage",
            key=("text",),
        )
    ]

    def sandbox(self, runtime: Runtime) -> Sandbox:
        return SlackSandbox(runtime=runtime, messages_per_second=None, reads_per_minute=None)

    def config(self, sandbox: Sandbox) -> dict[str, Any]:
        limits = {"messages_per_second": 10_000, "reads_per_minute": 10_000}
        return {**SlackSandbox.default_config(sandbox.url), **limits}
