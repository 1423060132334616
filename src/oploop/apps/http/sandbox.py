"""A stand-in for somebody's JSON API: accounts, in lists of every kind of paging, written singly and in batches."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import orjson
from aiohttp import web

from oploop.apps.sandbox import Sandbox, json_response

TOKEN = "http_test_oploop"
PLANS = ("free", "pro", "team")
PAGE = 50
WINDOW = 60  #: seconds for which the limit counts


class HttpSandbox(Sandbox):
    """Accounts with a name, an e-mail that is unique, a plan and tags. `POST /accounts` heeds `Idempotency-Key`,
    `PATCH` `If-Match` (with `updated_at`)."""

    title = "A JSON API"

    def __init__(self, *, limit: int = 1_000_000, **more: Any) -> None:
        super().__init__(**more)
        self.limit = limit  #: calls in WINDOW seconds
        self.reset()

    @classmethod
    def default_config(cls, url: str) -> dict[str, Any]:
        """The app's block for this sandbox."""
        return {"base_url": url, "auth": {"bearer": TOKEN}, "streams": STREAMS, "objects": OBJECTS}

    def reset(self) -> None:
        self.accounts: dict[int, dict[str, Any]] = {}
        self._numbers = itertools.count(1)
        self._answered: dict[str, tuple[int, Any]] = {}
        self._window: tuple[float, int] | None = None  #: (when it began, calls in it)

    def load(self, kind: str, records: list[dict[str, Any]]) -> None:
        if kind != "accounts":
            super().load(kind, records)
        for record in records:
            at = record.get("updated_at") or self._now()
            blank: dict[str, Any] = {"name": "", "email": None, "plan": None, "tags": [], "deleted": False}
            number = record.get("id") or self._new()
            self.accounts[number] = {"id": number, **blank, **record, "updated_at": at}

    def dump(self, kind: str) -> list[dict[str, Any]]:
        if kind != "accounts":
            return super().dump(kind)
        return [a for a in self.accounts.values() if not a["deleted"]]

    def change(self, number: int, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Change an account as a person would."""
        self.accounts[number] |= {**fields, "updated_at": self._now()}
        return self.accounts[number]

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/me", self._guarded(self._me)),
            web.get("/accounts", self._guarded(self._list)),
            web.post("/accounts", self._guarded(self._create)),
            web.post("/accounts/batch", self._guarded(self._batch)),
            web.post("/accounts/all", self._guarded(self._all)),
            web.get("/accounts/{id}", self._guarded(self._show)),
            web.patch("/accounts/{id}", self._guarded(self._update)),
            web.delete("/accounts/{id}", self._guarded(self._remove)),
        ]

    def _new(self) -> int:
        return next(n for n in self._numbers if n not in self.accounts)

    def _now(self) -> str:
        return self.now().isoformat(timespec="milliseconds")

    def _counted(self) -> dict[str, str]:
        """Count a call against the limit of its window; what the headers say of it, -1 remaining for one too many."""
        now, at = self.now().timestamp(), self._window
        if at is None or now >= at[0] + WINDOW:
            at = (now, 0)
        self._window = (at[0], at[1] + 1)
        left = max(-1, self.limit - self._window[1])
        reset = math.ceil(at[0] + WINDOW - now)
        names = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")
        return dict(zip(names, map(str, (self.limit, left, reset)), strict=True))

    def _guarded(self, handler: Any) -> Any:
        async def guarded(request: web.Request) -> web.StreamResponse:
            if request.headers.get("Authorization") != f"Bearer {TOKEN}" and request.query.get("token") != TOKEN:
                return json_response({"error": {"message": "the token is not known"}}, 401)
            told = self._counted()
            if told["X-RateLimit-Remaining"] == "-1":
                more = {"Retry-After": told["X-RateLimit-Reset"], **told, "X-RateLimit-Remaining": "0"}
                return json_response({"error": {"message": "too many calls"}}, 429, more)
            answer: web.StreamResponse = await handler(request)
            answer.headers.update(told)
            return answer

        return guarded

    async def _me(self, request: web.Request) -> web.Response:
        return json_response({"name": "Sandbox"})

    async def _list(self, request: web.Request) -> web.Response:
        asked = request.query
        found = sorted(self.accounts.values(), key=lambda a: (a["updated_at"], a["id"]))
        if "updated_since" in asked:
            found = [a for a in found if a["updated_at"] >= asked["updated_since"].replace("Z", "+00:00")]
        else:
            found = [a for a in found if not a["deleted"]]
        start, size = int(asked.get("offset") or 0), int(asked.get("per_page", PAGE))
        if asked.get("cursor"):  # what comes behind a record, whatever has moved since
            when, _, number = asked["cursor"].partition("|")
            found = [a for a in found if (a["updated_at"], a["id"]) > (when, int(number))]
        if "page" in asked:
            start = (int(asked["page"]) - 1) * size
        more = start + size if start + size < len(found) else None
        link = f"/accounts?offset={more}&per_page={size}" if more is not None else None
        page = found[start : start + size]
        body = {
            "data": {"accounts": page},
            "next_cursor": f"{page[-1]['updated_at']}|{page[-1]['id']}" if more else None,
            "next": link,
        }
        return json_response(body)

    async def _show(self, request: web.Request) -> web.Response:
        account = self._live(request)
        return json_response({"account": account}) if account else json_response({"error": "no such account"}, 404)

    def _live(self, request: web.Request) -> dict[str, Any] | None:
        number = request.match_info["id"]
        account = self.accounts.get(int(number)) if number.isdigit() else None
        return None if account is None or account["deleted"] else account

    def _wrong(self, fields: Mapping[str, Any], number: int | None) -> str | None:
        if fields.get("plan") not in (*PLANS, None):
            return f"plan cannot be {fields['plan']}"
        if number is None and not fields.get("email"):
            return "email is missing"
        email = fields.get("email")
        if email and any(a["email"] == email and a["id"] != number for a in self.dump("accounts")):
            return f"{email} is taken"
        return None

    async def _create(self, request: web.Request) -> web.Response:
        key = request.headers.get("Idempotency-Key")
        if key in self._answered:
            status, body = self._answered[key]
            return json_response(body, status)
        fields = orjson.loads(await request.read())
        wrong = self._wrong(fields, None)
        if wrong is not None:
            return json_response({"error": {"message": wrong}}, 422)
        self.load("accounts", [fields])
        body = {"id": list(self.accounts)[-1], "status": "ok"}
        if key is not None:
            self._answered[key] = (201, body)
        return json_response(body, 201)

    async def _update(self, request: web.Request) -> web.Response:
        account = self._live(request)
        if account is None:
            return json_response({"error": "no such account"}, 404)
        held = request.headers.get("If-Match")
        if held is not None and held.strip('"') != account["updated_at"]:
            return json_response({"error": {"message": "the account has changed"}}, 412)
        fields = orjson.loads(await request.read())
        wrong = self._wrong(fields, account["id"])
        if wrong is not None:
            return json_response({"error": {"message": wrong}}, 422)
        return json_response(self.change(account["id"], fields))

    async def _all(self, request: web.Request) -> web.Response:
        """As `_batch`, but all of them or none."""
        records = orjson.loads(await request.read())["records"]
        for record in records:
            known = next((a for a in self.dump("accounts") if a["email"] == record.get("email")), None)
            if wrong := self._wrong(record, known["id"] if known else None):
                return json_response({"error": {"message": wrong}}, 422)
        return await self._batch(request)

    async def _batch(self, request: web.Request) -> web.Response:
        """Up to 100 accounts, made or changed by e-mail; refused whole only for what is no batch."""
        records = orjson.loads(await request.read()).get("records")
        if not isinstance(records, list) or len(records) > 100:
            return json_response({"error": {"message": "records must be a list of up to 100"}}, 400)
        results = []
        for record in records:
            known = next((a for a in self.dump("accounts") if a["email"] == record.get("email")), None)
            wrong = self._wrong(record, known["id"] if known else None)
            if wrong is not None:
                results.append({"email": record.get("email"), "status": "refused", "error": wrong})
                continue
            if known:
                self.change(known["id"], record)
            else:
                self.load("accounts", [record])
                known = self.accounts[list(self.accounts)[-1]]
            results.append({"email": record["email"], "status": "ok", "id": known["id"]})
        return json_response({"results": results[::-1]})

    async def _remove(self, request: web.Request) -> web.Response:
        account = self._live(request)
        if account is None:
            return json_response({"error": "no such account"}, 404)
        self.change(account["id"], {"deleted": True})
        return web.Response(status=204)


STREAMS: dict[str, Any] = {
    "accounts": {
        "path": "/accounts",
        "records": "data.accounts",
        "key": "id",
        "columns": {
            "id": "integer",
            "name": "text",
            "email": "text",
            "plan": "text",
            "tags": "json",
            "deleted": "boolean",
            "updated_at": "timestamp",
        },
        "paging": {"cursor": "next_cursor", "param": "cursor"},
        "since": {"param": "updated_since", "column": "updated_at"},
        "deleted": "deleted",
        "version": "updated_at",
        "lag": 1,
    }
}
OBJECTS: dict[str, Any] = {
    "accounts": {
        "stream": "accounts",
        "fields": {
            "email": {"key": True, "required": True, "nullable": False},
            "name": "text",
            "plan": {"enum": list(PLANS)},
            "tags": "list",
        },
        "create": {"path": "/accounts", "idempotency": "Idempotency-Key"},
        "update": {"method": "PATCH", "path": "/accounts/{id}", "if_match": {"field": "updated_at", "value": '"{}"'}},
        "remove": {"method": "DELETE", "path": "/accounts/{id}"},
        "fetch": "/accounts/{id}",
    },
    "imports": {
        "stream": "accounts",
        "fields": {"email": {"key": True, "required": True, "nullable": False}, "name": "text", "plan": "text"},
        "upsert": {
            "path": "/accounts/batch",
            "batch": 100,
            "body": {"records": "$records"},
            "record": {"email": "$key.email", "...": "$record"},
            "results": "results",
            "by": "email",
            "ok": {"status": "ok"},
            "keys": ["email"],
        },
        "fetch": "/accounts/{id}",
    },
}
