"""A stand-in for Slack: a workspace with users, channels and the messages in them.

It answers 200 with `ok: false` where Slack does, 429 with `Retry-After` over a limit. Sources: see client.py, objects.py.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict, deque
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qs

import orjson
from aiohttp import web

from oploop.apps.sandbox import Sandbox, json_response
from oploop.apps.slack.objects import TEXT

TOKEN = "xoxb-oploop-sandbox"
TEAM = "T0SANDBOX1"
SCOPES = frozenset({"users:read", "channels:read", "chat:write"})
_NEEDS = {
    "users.list": "users:read", "users.info": "users:read", "conversations.list": "channels:read",
    "conversations.info": "channels:read", "chat.postMessage": "chat:write", "chat.delete": "chat:write",
}  # fmt: skip
PAGE = 1000


class SlackSandbox(Sandbox):
    """Slack on loopback. `scopes`: what the bot may do; None as a limit: none is kept to."""

    title = "Slack"

    def __init__(
        self,
        *,
        messages_per_second: int | None = 1,
        reads_per_minute: int | None = 20,
        scopes: frozenset[str] = SCOPES,
        **more: Any,
    ) -> None:
        super().__init__(**more)
        self.messages_per_second, self.reads_per_minute, self.scopes = messages_per_second, reads_per_minute, scopes
        self.reset()

    @classmethod
    def default_config(cls, url: str) -> dict[str, str]:
        """The app's block for this sandbox."""
        return {"base_url": url, "token": TOKEN}

    def reset(self) -> None:
        self.users: dict[str, dict[str, Any]] = {}
        self.channels: dict[str, dict[str, Any]] = {}
        self.messages: list[dict[str, Any]] = []
        self._asked: dict[str, deque[datetime]] = defaultdict(deque)
        self._posted = 0
        self.load(
            "channels",
            [{"id": "C0GENERAL1", "name": "general", "is_general": True}, {"id": "C0OPS00001", "name": "ops"}],
        )
        self.load("users", [{"id": "U0BOT00001", "name": "oploop", "is_bot": True}])

    def load(self, kind: str, records: list[dict[str, Any]]) -> None:
        """ "users" {"id", "name", "email" ...} and "channels" {"id", "name" ...}; what is missing is filled in."""
        if kind == "users":
            for record in records:
                self.users[record["id"]] = self._user(record)
        elif kind == "channels":
            for record in records:
                self.channels[record["id"]] = self._channel(record)
        else:
            super().load(kind, records)

    def dump(self, kind: str) -> list[dict[str, Any]]:
        """ "users", "channels" or "messages", each with its channel."""
        if kind == "messages":
            return list(self.messages)
        if kind not in ("users", "channels"):
            return super().dump(kind)
        return list(self.users.values() if kind == "users" else self.channels.values())

    def _user(self, record: dict[str, Any]) -> dict[str, Any]:
        real, at = record.get("real_name", record.get("name", "")), round(self.now().timestamp())
        texts = ("title", "phone", "skype", "status_text", "status_emoji")
        profile = {
            "real_name": real, "real_name_normalized": real, "display_name": real, "display_name_normalized": real,
            "avatar_hash": hashlib.md5(record["id"].encode()).hexdigest()[:12], "fields": None, "team": TEAM,
            **dict.fromkeys(texts, ""), **({"email": record["email"]} if "email" in record else {}),
        }  # fmt: skip
        flags = (
            "is_admin",
            "is_owner",
            "is_primary_owner",
            "is_restricted",
            "is_ultra_restricted",
            "is_bot",
            "is_app_user",
        )
        filled = {
            "team_id": TEAM, "name": record["id"].lower(), "deleted": False, "color": "9f69e7", "real_name": real,
            "tz": "Europe/Amsterdam", "tz_label": "CET", "tz_offset": 3600, "updated": at, "profile": profile,
            **dict.fromkeys(flags, False),
        }  # fmt: skip
        return {**filled, **{k: v for k, v in record.items() if k != "email"}}

    def _channel(self, record: dict[str, Any]) -> dict[str, Any]:
        about = {"value": "", "creator": "", "last_set": 0}
        flags = (
            "is_group", "is_im", "is_mpim", "is_private", "is_archived", "is_general", "is_shared", "is_ext_shared",
            "is_org_shared", "is_pending_ext_shared",
        )  # fmt: skip
        name = record.get("name", record["id"].lower())
        return {
            **dict.fromkeys(flags, False),
            "is_channel": True, "is_member": True, "created": round(self.now().timestamp()), "creator": "U0BOT00001",
            "name": name, "name_normalized": name, "topic": about, "purpose": about, "previous_names": [], "num_members": 1,
            "unlinked": 0, "shared_team_ids": [TEAM], "pending_shared": [], **record,
        }  # fmt: skip

    # -- the methods -------------------------------------------------------------------------------------------------

    def routes(self) -> list[web.RouteDef]:
        """Each method by GET and by POST, as Slack takes them."""
        methods = {
            "auth.test": self._auth, "users.list": self._users, "users.info": self._user_info,
            "conversations.list": self._conversations, "conversations.info": self._conversation,
            "chat.postMessage": self._post, "chat.delete": self._delete,
        }  # fmt: skip
        found = []
        for name, answer in methods.items():

            async def handle(request: web.Request, name: str = name, answer: Any = answer) -> web.Response:
                asked = await _arguments(request)
                refused = self._refusal(request, name)
                return refused or self._limited(name, asked) or answer(asked)

            found += [web.get(f"/{name}", handle), web.post(f"/{name}", handle)]
        return found

    def not_found(self, status: int) -> web.Response:
        return _no("unknown_method")

    def _auth(self, asked: dict[str, Any]) -> web.Response:
        who = {"user": "oploop", "user_id": "U0BOT00001", "bot_id": "B0BOT00001"}
        url = "https://sandbox.slack.com/"
        return json_response({"ok": True, "url": url, "team": "Sandbox", "team_id": TEAM, **who})

    def _users(self, asked: dict[str, Any]) -> web.Response:
        return self._page(asked, list(self.users.values()), "members", {"cache_ts": round(self.now().timestamp())})

    def _user_info(self, asked: dict[str, Any]) -> web.Response:
        user = self.users.get(asked.get("user", ""))
        return json_response({"ok": True, "user": user}) if user else _no("user_not_found")

    def _conversations(self, asked: dict[str, Any]) -> web.Response:
        types = str(asked.get("types", "public_channel")).split(",")
        shown = [
            c
            for c in self.channels.values()
            if ("private_channel" in types and c["is_member"] if c["is_private"] else "public_channel" in types)
            and not (c["is_archived"] and str(asked.get("exclude_archived")).lower() == "true")
        ]
        return self._page(asked, shown, "channels", {})

    def _conversation(self, asked: dict[str, Any]) -> web.Response:
        channel = self.channels.get(asked.get("channel", ""))
        return json_response({"ok": True, "channel": channel}) if channel else _no("channel_not_found")

    def _page(
        self, asked: dict[str, Any], records: list[dict[str, Any]], name: str, more: dict[str, Any]
    ) -> web.Response:
        """A page by a cursor that names the first record of the next one. Ids sort, so that none is passed over."""
        limit = min(int(asked.get("limit") or PAGE), PAGE)
        records = sorted(records, key=lambda r: str(r["id"]))
        if asked.get("cursor"):
            records = [r for r in records if str(r["id"]) >= str(asked["cursor"])]
        following = str(records[limit]["id"]) if len(records) > limit else ""
        metadata = {"response_metadata": {"next_cursor": following}}
        return json_response({"ok": True, name: records[:limit], **more, **metadata})

    def _post(self, asked: dict[str, Any]) -> web.Response:
        channel = self._find(str(asked.get("channel", "")))
        text, blocks = str(asked.get("text") or ""), _nested(asked.get("blocks"))
        attachments = _nested(asked.get("attachments")) or []
        if channel is None:
            return _no("channel_not_found")
        if channel["is_archived"]:
            return _no("is_archived")
        if not channel["is_member"]:
            return _no("not_in_channel")
        if not text and not blocks and not attachments:
            return _no("no_text")
        if len(text) > (TEXT.max_length or 0):
            return _no("msg_too_long")
        if len(attachments) > 100:
            return _no("too_many_attachments")
        if blocks is not None and not all(isinstance(b, dict) and "type" in b for b in blocks):
            return _no("invalid_blocks")
        self._posted += 1
        message: dict[str, Any] = {
            "type": "message",
            "ts": f"{int(self.now().timestamp()):010}.{self._posted:06}",
            "text": text,
            "user": "U0BOT00001",
            "bot_id": "B0BOT00001",
            "team": TEAM,
        }
        message |= {k: str(asked[k]) for k in ("username", "thread_ts") if asked.get(k)}
        message |= {"blocks": blocks} if blocks else {}
        self.messages.append({**message, "channel": channel["id"]})
        return json_response({"ok": True, "channel": channel["id"], "ts": message["ts"], "message": message})

    def _delete(self, asked: dict[str, Any]) -> web.Response:
        channel, ts = str(asked.get("channel", "")), str(asked.get("ts", ""))
        if channel not in self.channels:
            return _no("channel_not_found")
        kept = [m for m in self.messages if (m["channel"], m["ts"]) != (channel, ts)]
        if len(kept) == len(self.messages):
            return _no("message_not_found")
        self.messages = kept
        return json_response({"ok": True, "channel": channel, "ts": ts})

    def _find(self, named: str) -> dict[str, Any] | None:
        """A channel by its id or name; a person's id is the conversation with them."""
        if named in self.users:
            direct = "D" + named[1:]
            self.channels.setdefault(
                direct, self._channel({"id": direct, "is_im": True, "is_channel": False, "is_private": True})
            )
            return self.channels[direct]
        name = named.removeprefix("#")
        return self.channels.get(named) or next((c for c in self.channels.values() if c["name"] == name), None)

    # -- who may what ------------------------------------------------------------------------------------------------

    def _refusal(self, request: web.Request, method: str) -> web.Response | None:
        given = request.headers.get("Authorization", "")
        if not given:
            return _no("not_authed")
        if given != f"Bearer {TOKEN}":
            return _no("invalid_auth")
        needed = _NEEDS.get(method)
        if needed is not None and needed not in self.scopes:
            return _no("missing_scope", needed=needed, provided=",".join(sorted(self.scopes)))
        return None

    def _limited(self, method: str, asked: dict[str, Any]) -> web.Response | None:
        """The limit of a list by the minute, or of a channel by the second."""
        if method == "chat.postMessage":
            bucket, most, seconds = f"post {asked.get('channel')}", self.messages_per_second, 1
        elif method.endswith(".list"):
            bucket, most, seconds = method, self.reads_per_minute, 60
        else:
            return None
        known, now = self._asked[bucket], self.now()
        while known and known[0] <= now - timedelta(seconds=seconds):
            known.popleft()
        if most is not None and len(known) >= most:
            return json_response({"ok": False, "error": "ratelimited"}, 429, {"Retry-After": str(seconds)})
        known.append(now)
        return None


async def _arguments(request: web.Request) -> dict[str, Any]:
    """A call's arguments, from wherever Slack takes them: the address, a form, JSON."""
    body = await request.read()
    asked: dict[str, Any] = dict(request.query)
    if request.content_type == "application/json" and body:
        asked |= orjson.loads(body)
    elif body:
        asked |= {k: v[0] for k, v in parse_qs(body.decode()).items()}
    return asked


def _nested(value: Any) -> Any:
    return orjson.loads(value) if isinstance(value, str) and value else value


def _no(error: str, **more: Any) -> web.Response:
    return json_response({"ok": False, "error": error, **more})
