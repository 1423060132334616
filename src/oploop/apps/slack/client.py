"""How Slack's Web API behaves: a bot's token, HTTP 200 with `ok: false` as the normal failure, limits by method and channel.

Sources: docs.slack.dev: apis/web-api (responses, errors), apis/web-api/rate-limits, reference/methods/chat.postMessage.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import orjson
from pydantic import Field, SecretStr

from oploop.apps.base import AppConfig
from oploop.apps.credentials import bearer
from oploop.apps.transport import Answer, Budget, LostAnswer, NotTheApi, Policy, Refused, Transport
from oploop.errors import FixConfig, OploopError, RetryLater
from oploop.runtime import Runtime

#: "Several hundred messages a minute" a workspace takes.
MESSAGES_A_MINUTE = 300

#: Nothing was done, and a later try may succeed.
NOT_NOW = frozenset({"ratelimited", "rate_limited", "service_unavailable", "request_timeout", "team_added_to_org"})
#: "It's possible some aspect of the operation succeeded before the error was raised."
UNCLEAR = frozenset({"internal_error", "fatal_error"})
#: The token is at fault, not the record.
NO_ENTRY = frozenset(
    {
        "not_authed", "invalid_auth", "account_inactive", "token_revoked", "token_expired", "no_permission", "org_login_required",
        "ekm_access_denied", "not_allowed_token_type", "missing_scope", "access_denied", "enterprise_is_restricted",
    }
)  # fmt: skip
#: What Slack's words mean for whoever mends the row.
SAID = {
    "channel_not_found": "there is no such channel, or it is private and the app is not in it",
    "not_in_channel": "the app is not in the channel: invite it there",
    "is_archived": "the channel is archived",
    "msg_too_long": "the text is too long",
    "no_text": "the message is empty",
    "too_many_attachments": "it has more than 100 attachments",
    "restricted_action": "the workspace lets the app not post there",
}


class SlackConfig(AppConfig):
    """The keys of a `slack` block. `messages_per_second` counts for each channel, `reads_per_minute` for each kind of list."""

    base_url: str = "https://slack.com/api"
    token: SecretStr = Field(description="of a bot: xoxb-...")
    messages_per_second: int = Field(default=1, ge=1)
    reads_per_minute: int = Field(default=20, ge=1)


class SlackPolicy(Policy):
    """What Slack says beside 200. 429 comes with `Retry-After` in seconds."""

    credentials = "token"
    words, code = ("error",), "error"


class Client:
    """One workspace's API."""

    def __init__(self, config: SlackConfig, runtime: Runtime) -> None:
        self._config = config
        self.transport = Transport(
            config.base_url,
            runtime=runtime,
            headers=bearer(config.token),
            policy=SlackPolicy(),
            budget=Budget(runtime, calls=max(MESSAGES_A_MINUTE, config.reads_per_minute), window=60.0),
        )

    def _budget(self, name: str, calls: int, window: float) -> Budget:
        """A limit of a method or channel."""
        assert self.transport.budget is not None
        return self.transport.budget.beside(name, calls=calls, window=window)

    async def whoami(self) -> dict[str, Any]:
        return (await self._read("auth.test", {})).said()

    async def listed(self, method: str, params: Mapping[str, Any]) -> Answer:
        """A page of a list, within the method's own limit."""
        await self._budget(method, self._config.reads_per_minute, 60.0).take()
        return await self._read(method, params)

    async def shown(self, method: str, params: Mapping[str, Any]) -> Answer | None:
        """One record by its id; None where there is none."""
        try:
            return await self._read(method, params)
        except Refused as e:
            if e.code in ("user_not_found", "channel_not_found", "user_not_visible"):
                return None
            raise

    async def post(self, channel: str, fields: Mapping[str, Any]) -> tuple[dict[str, Any], int | None]:
        """Post a message, within the channel's limit; (the answer, Slack's clock). Never done twice."""
        name = "post-" + re.sub(r"\W", "-", channel)
        await self._budget(name, self._config.messages_per_second, 1.0).take()
        return await self._write("chat.postMessage", {"channel": channel, **fields})

    async def _read(self, method: str, params: Mapping[str, Any]) -> Answer:
        answer = await self.transport.request("GET", method, params=params)
        body = answer.json()
        if not isinstance(body, dict) or "ok" not in body:
            raise NotTheApi(answer)
        if not body["ok"]:
            raise refusal(answer, body, writing=False)
        return answer

    async def _write(self, method: str, form: Mapping[str, Any]) -> tuple[dict[str, Any], int | None]:
        """A changing call; it is not repeated once it may have been received."""
        values = {k: _form_value(v) for k, v in form.items()}
        answer = await self.transport.request("POST", method, form=values, idempotent=False)
        said = answer.written(dict, "ok")
        if not said["ok"]:
            raise refusal(answer, said, writing=True)
        return said, answer.date_micros()


def refusal(answer: Answer, body: Mapping[str, Any], *, writing: bool) -> OploopError:
    """What an `ok: false` means: a token to mend, a call to make again, one that may have been done, or a no."""
    code = str(body.get("error") or "an error without a name")
    method = answer.request.url.split("?", 1)[0].rpartition("/")[2]
    if code == "missing_scope":
        needed = body.get("needed") or "a scope"
        return FixConfig(
            f"token lacks the scope {needed} that {method} needs", mend="add it to the Slack app, install it again"
        )
    if code in NO_ENTRY:
        return FixConfig(f"{method}: Slack refused the token: {code}", mend="check token")
    if code in NOT_NOW:
        return RetryLater(f"{method}: Slack says not now: {code}")
    if code in UNCLEAR:
        if writing:
            return LostAnswer(f"{method} failed in the middle ({code}): it may have been done")
        return RetryLater(f"{method} failed: {code}")
    return Refused(answer, f"{code}: {SAID[code]}" if code in SAID else code, code=code)


def _form_value(value: Any) -> str:
    """A field as forms carry it: nested values as JSON."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return orjson.dumps(value).decode() if isinstance(value, list | dict) else str(value)
