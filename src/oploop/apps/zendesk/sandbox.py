"""A stand-in for Zendesk Support: a real HTTP server on loopback that behaves as the vendor documents.

    sandbox.py         the server: credentials, limits, control
    sandbox_routes.py  its addresses;  sandbox_http.py  bodies, pages, cursors
    sandbox_store.py   the records and Zendesk's rules;  sandbox_shapes.py  every key of a record
    sandbox_custom.py  custom objects, and lists that can only be read
    sandbox_jobs.py    background jobs

Besides what every sandbox has: POST /_sandbox/system_update {"ids": [...]} moves tickets' `generated_timestamp` alone.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import orjson
from aiohttp import web

from oploop.apps.sandbox import Sandbox, json_response
from oploop.apps.zendesk.sandbox_custom import LISTED, CustomRoutes, CustomStore
from oploop.apps.zendesk.sandbox_jobs import Jobs
from oploop.apps.zendesk.sandbox_routes import (
    ADMIN_ID,
    BulkRoutes,
    DefinitionRoutes,
    ExportRoutes,
    RecordRoutes,
    Reply,
)
from oploop.apps.zendesk.sandbox_shapes import ADDRESS, DEFINITION_SHAPES
from oploop.apps.zendesk.sandbox_store import KINDS, Refusal, Store
from oploop.runtime import Runtime

API_TOKEN = "zd_test_oploop"
CLIENT_ID, CLIENT_SECRET = "oploop_test", "zd_client_secret"
REFRESH_TOKEN = "zd_refresh_0"
TOKEN_SECONDS = 1800  #: as long as a token lasts where nothing else was asked for
UNLIMITED = 100_000  #: calls a minute that the headers tell where no limit is set


class ZendeskSandbox(Sandbox):
    """Zendesk Support on loopback.

    `rate_limit`, `export_limit`: calls a minute (None: no limit); `speedup`: how much faster than ours its minutes pass.
    `job_seconds`: how long a background job takes. `bulk_imports`: whether users may be created in bulk.
    Any e-mail address goes with the API token, so that different people can act.
    """

    title = "Zendesk"

    def __init__(
        self,
        *,
        api_token: str = API_TOKEN,
        runtime: Runtime | None = None,
        keep_log: bool = True,
        rate_limit: int | None = None,
        export_limit: int | None = None,
        speedup: float = 1.0,
        job_seconds: float = 0.05,
        bulk_imports: bool = True,
    ) -> None:
        super().__init__(runtime=runtime, keep_log=keep_log)
        self._api_token = api_token
        self._speedup = speedup
        self._limits = {"account": rate_limit, "exports": export_limit, "cursor exports": export_limit}
        self._used: dict[str, tuple[int, int]] = {}
        self._bulk_imports = bulk_imports
        self.store = Store(self.now)
        self.jobs = Jobs(self._runtime, job_seconds)
        self.custom = CustomStore(self.now)
        self._refresh = REFRESH_TOKEN
        self._tokens: dict[str, datetime] = {}

    @classmethod
    def default_config(cls, url: str) -> dict[str, Any]:
        """The keys of a `zendesk` block in `oploop.yml` that reach the sandbox at `url`."""
        return {"subdomain": "sandbox", "email": "ops@acme.example", "api_token": API_TOKEN, "base_url": url}

    # -- control -----------------------------------------------------------------------------------------------------

    def reset(self) -> None:
        """An account without records, jobs or used-up limits."""
        self.store.clear()
        self.custom.clear()
        self.jobs.clear()
        self._used.clear()
        self._refresh = REFRESH_TOKEN
        self._tokens.clear()

    def load(self, kind: str, records: list[dict[str, Any]]) -> None:
        """Fill in records (tickets, users, organizations, custom_objects.KEY, ...) or definitions; what they lack is completed."""
        if kind in DEFINITION_SHAPES:
            for record in records:
                self.store.define(kind, record)
        elif kind in KINDS:
            self.store.load(kind, records)
        elif kind in LISTED:
            for record in records:
                self.custom.load_listed(kind, record)
        elif kind == "custom_objects":
            for record in records:
                self.custom.load_object(record)
        elif kind.removeprefix("custom_objects.") in self.custom.objects:
            for record in records:
                self.custom.load_record(kind.removeprefix("custom_objects."), record)
        else:
            raise LookupError(kind)

    def dump(self, kind: str) -> list[dict[str, Any]]:
        """All records of a kind, deleted ones too, as the exports show them."""
        if kind in DEFINITION_SHAPES:
            return list(self.store.definitions[kind].values())
        if kind in LISTED:
            return list(self.custom.listed[kind].values())
        if kind == "ticket_comments":
            return [{"ticket_id": n, **c} for n, held in sorted(self.store.comments.items()) for c in held]
        if kind.startswith("custom_objects."):
            return list(self.custom.records[kind.removeprefix("custom_objects.")].values())
        return [self.store.exported(kind, r) for _, r in sorted(self.store.records[kind].items())]

    def system_update(self, ids: Iterable[int]) -> None:
        """Let Zendesk itself touch tickets: `generated_timestamp` moves, `updated_at` does not."""
        self.store.system_update(ids)

    async def _system_update(self, request: web.Request) -> web.Response:
        self.system_update(orjson.loads(await request.read())["ids"])
        return json_response({})

    # -- routes ------------------------------------------------------------------------------------------------------

    def routes(self) -> list[web.RouteDef]:
        found = [web.post("/_sandbox/system_update", self._system_update), web.post("/oauth/tokens", self._token)]
        parts = (
            BulkRoutes(self.store, self.jobs, imports=self._bulk_imports),
            ExportRoutes(self.store, self._count_call),
            DefinitionRoutes(self.store),
            CustomRoutes(self.custom, self.jobs),
            RecordRoutes(self.store),
        )
        listed = [("GET", "users/me", self._me), *(route for part in parts for route in part.routes())]
        for method, path, reply in listed:
            handler = self._guarded(reply)
            found += [web.route(method, f"/api/v2/{path}{suffix}", handler) for suffix in ("", ".json")]
        return found

    def not_found(self, status: int) -> web.Response:
        """An address that Zendesk does not have."""
        return json_response({"error": "InvalidEndpoint", "description": "Not found"}, status)

    async def _token(self, request: web.Request) -> web.Response:
        """A token for the OAuth client. A refresh token is good for one use, which ends the tokens before it too."""
        try:
            asked = orjson.loads(await request.read())
        except orjson.JSONDecodeError:  # the document: "must be formatted as JSON"
            return json_response({"error": "invalid_request", "error_description": "no JSON"}, 400)
        if (asked.get("client_id"), asked.get("client_secret")) != (CLIENT_ID, CLIENT_SECRET):
            return json_response({"error": "invalid_client", "error_description": "client authentication failed"}, 401)
        token = f"oauth-{self._runtime.new_id()}"
        answer: dict[str, Any] = {"access_token": token, "token_type": "bearer", "expires_in": TOKEN_SECONDS}
        match asked.get("grant_type"):
            case "client_credentials":
                answer["scope"] = asked.get("scope", "read")
            case "refresh_token" if asked.get("refresh_token") == self._refresh:
                self._tokens.clear()
                self._refresh = answer["refresh_token"] = f"refresh-{self._runtime.new_id()}"
                answer["refresh_token_expires_in"] = 30 * 86_400
            case _:
                return json_response(
                    {"error": "invalid_grant", "error_description": "the grant is invalid or expired"}, 400
                )
        self._tokens[token] = self.now() + timedelta(seconds=TOKEN_SECONDS)
        return json_response(answer)

    def _guarded(self, reply: Reply) -> Reply:
        """Limits and credentials before, Zendesk's errors after."""

        async def guarded(request: web.Request) -> web.Response:
            headers: dict[str, str] = {}
            try:
                headers = self._count_call("account")
                if self._caller(request) is None and reply != self._me:
                    raise Refusal(401, "Couldn't authenticate you", "No credentials")
                response = await reply(request)
            except Refusal as e:
                response = json_response(e.body(), e.status)
                if e.error == "APIRateLimitExceeded":
                    headers["Retry-After"] = str(self._left_of_minute())
            for name, value in headers.items():
                response.headers.setdefault(name, value)
            return response

        return guarded

    def _caller(self, request: web.Request) -> str | None:
        """The e-mail address of `EMAIL/token:API_TOKEN` (Bearer: none, so empty); None without credentials.

        Refusal (401) when the token is wrong.
        """
        scheme, _, value = request.headers.get("Authorization", "").partition(" ")
        if not scheme:
            return None
        user, secret = "/token", value
        if scheme == "Basic":
            try:
                user, _, secret = base64.b64decode(value).decode().rpartition(":")
            except (binascii.Error, UnicodeDecodeError):
                secret = ""
        if scheme == "Bearer" and self._tokens.get(value, self.now()) > self.now():
            return ""
        if secret != self._api_token or not user.endswith("/token"):
            raise Refusal(401, "Couldn't authenticate you", "Invalid credentials")
        return user.removesuffix("/token")

    async def _me(self, request: web.Request) -> web.Response:
        email = self._caller(request)
        user: dict[str, Any] = {
            "id": None,
            "name": "Anonymous user",
            "email": "invalid@example.com",
            "role": "end-user",
        }
        if email is not None:
            user = {
                "id": ADMIN_ID,
                "url": f"{ADDRESS}/users/{ADMIN_ID}.json",
                "name": email.partition("@")[0] or "OAuth client",
                "email": email or "oauth@sandbox.example",
                "role": "admin",
                "active": True,
                "authenticity_token": "sandbox",
            }
        return json_response({"user": user})

    # -- limits ------------------------------------------------------------------------------------------------------

    def _left_of_minute(self) -> float:
        """Seconds until the sandbox's next minute; whole ones, as Zendesk has them, unless its time is sped up."""
        seconds = (60 - self._runtime.monotonic() * self._speedup % 60) / self._speedup
        return round(seconds, 3) if self._speedup > 1 else int(seconds) + 1

    def _count_call(self, bucket: str) -> dict[str, str]:
        """Count a call against a limit; the headers that tell of it. Refusal (429) when it is used up."""
        limit = self._limits[bucket]
        minute = int(self._runtime.monotonic() * self._speedup // 60)
        then, used = self._used.get(bucket, (minute, 0))
        used = used + 1 if then == minute else 1
        self._used[bucket] = (minute, used)
        if limit is not None and used > limit:
            what = "API" if bucket == "account" else "incremental export API"
            raise Refusal(429, "APIRateLimitExceeded", f"Number of allowed {what} requests per minute exceeded")
        total, left = (UNLIMITED, UNLIMITED) if limit is None else (limit, limit - used)
        reset = self._left_of_minute()
        if bucket != "account":
            name = "zendesk-ratelimit-incremental-exports" + ("-cursor" if bucket == "cursor exports" else "")
            return {name: f"total={total}; remaining={left}; resets={int(reset)}"}
        return {
            "x-rate-limit": str(total),
            "ratelimit-limit": str(total),
            "x-rate-limit-remaining": str(left),
            "ratelimit-remaining": str(left),
            "ratelimit-reset": str(reset),
        }
