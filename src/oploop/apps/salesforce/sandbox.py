"""A stand-in for a Salesforce org: OAuth, describe, SOQL, single records, collections, Bulk API 2.0, the day's limit.

Here are who may call and the limits; sandbox_routes.py and _jobs.py have its addresses, _org.py and _schema.py what it holds,
_soql.py its queries. Source: REST API Developer Guide.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import jwt
import orjson
from aiohttp import web

from oploop.apps.salesforce.sandbox_jobs import Jobs, Missing
from oploop.apps.salesforce.sandbox_org import Org, Refusal, Unreadable
from oploop.apps.salesforce.sandbox_routes import VERSION, CollectionRoutes, QueryRoutes, RecordRoutes
from oploop.apps.salesforce.sandbox_soql import BadQuery
from oploop.apps.sandbox import Handler, Sandbox, json_response

CLIENT_ID, CLIENT_SECRET, REFRESH_TOKEN = "3MVG9sandbox.oploop", "sandbox-consumer-secret", "5Aep861sandbox"
BASE = "/services/data/v{version:\\d\\d\\.0}"


class Part(Protocol):
    """Some of the org's addresses, and what they do."""

    def routes(self, base: str) -> list[web.RouteDef]: ...


class SalesforceSandbox(Sandbox):
    """`page`: rows of a query's answer; `daily`: calls of a day; `public_key`: PEM by which assertions are proven;
    `rotates`: each refresh gives a new refresh token, and ends the old one."""

    title = "Salesforce"

    def __init__(
        self,
        *,
        page: int = 2_000,
        daily: int = 100_000,
        public_key: str | None = None,
        rotates: bool = False,
        **more: Any,
    ) -> None:
        super().__init__(**more)
        self.page, self.daily, self.public_key, self.rotates = page, daily, public_key, rotates
        self.reset()

    @classmethod
    def default_config(cls, url: str) -> dict[str, str]:
        return {"base_url": url, "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET}

    def reset(self) -> None:
        self.org = Org(self.now)
        self.jobs = Jobs(self.org, VERSION)
        self.used = 0
        self.sessions: set[str] = set()
        self.refresh = REFRESH_TOKEN
        self.locked: dict[str, int] = {}  #: record id -> how often it is still locked when somebody writes it
        self.queries = QueryRoutes(self.org, self.page)
        records, many = RecordRoutes(self.org), CollectionRoutes(self.org, self.locked)
        self.parts: dict[str, Part] = {"queries": self.queries, "records": records, "many": many, "jobs": self.jobs}

    def load(self, kind: str, records: list[dict[str, Any]]) -> None:
        for record in records:
            self.org.load(kind, record)

    def dump(self, kind: str) -> list[dict[str, Any]]:
        return self.org.live(kind)

    def routes(self) -> list[web.RouteDef]:
        own = [web.get(f"{BASE}/limits{slash}", self.in_api(self.limits)) for slash in ("", "/")]
        behind = [
            web.route(r.method, r.path, self.in_api(self._late(part, r.handler.__name__)))
            for part, one in self.parts.items()
            for r in one.routes(BASE)
        ]
        return [
            web.post("/services/oauth2/token", self.token), web.get("/services/data/", self.versions), *own, *behind
        ]  # fmt: skip

    def _late(self, part: str, name: str) -> Handler:
        """A handler of the part that is there when it is called: a reset makes new ones."""

        async def call(request: web.Request) -> web.StreamResponse:
            handler: Handler = getattr(self.parts[part], name)
            return await handler(request)

        return call

    def forget_cursors(self) -> None:
        """Queries that are under way cannot be gone on with."""
        self.queries.forget_cursors()

    def not_found(self, status: int) -> web.Response:
        return _errors(status, "NOT_FOUND", "The requested resource does not exist")

    # -- who may call ------------------------------------------------------------------------------------------------

    async def token(self, request: web.Request) -> web.Response:
        form = await request.post()
        grant = str(form.get("grant_type"))
        wrong = self._wrong(grant, {k: str(v) for k, v in form.items()})
        if wrong is not None:
            return json_response({"error": wrong[0], "error_description": wrong[1]}, 400)
        token = "00D5g!" + secrets.token_urlsafe(24)
        self.sessions.add(token)
        told = {
            "access_token": token,
            "instance_url": self.url,
            "id": f"{self.url}/id/00D5g/{self.org.me}",
            "token_type": "Bearer",
            "issued_at": str(round(self.now().timestamp() * 1000)),
            "scope": "api",
        }
        if grant == "refresh_token" and self.rotates:
            self.refresh = told["refresh_token"] = "5Aep861" + secrets.token_urlsafe(12)
        return json_response(told)

    def _wrong(self, grant: str, form: Mapping[str, str]) -> tuple[str, str] | None:
        if grant == "urn:ietf:params:oauth:grant-type:jwt-bearer":
            return self._wrong_assertion(form.get("assertion", ""))
        if form.get("client_id") != CLIENT_ID:
            return "invalid_client_id", "client identifier invalid"
        if form.get("client_secret") != CLIENT_SECRET:
            return "invalid_client", "invalid client credentials"
        if grant == "refresh_token":
            good = form.get("refresh_token") == self.refresh
            return None if good else ("invalid_grant", "expired access/refresh token")
        return None if grant == "client_credentials" else ("unsupported_grant_type", "grant type not supported")

    def _wrong_assertion(self, assertion: str) -> tuple[str, str] | None:
        audience = ["https://login.salesforce.com", "https://test.salesforce.com"]
        try:
            told = jwt.decode(assertion, self.public_key or "", algorithms=["RS256"], audience=audience)
        except (jwt.PyJWTError, ValueError):
            return "invalid_grant", "invalid assertion"
        names = [u["Username"] for u in self.org.live("User") if u["IsActive"]]
        return (
            None
            if told["iss"] == CLIENT_ID and told["sub"] in names
            else ("invalid_grant", "user hasn't approved this consumer")
        )

    def in_api(self, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> Handler:
        """A handler behind the door: a session, the day's limit, errors in Salesforce's form."""

        async def call(request: web.Request) -> web.StreamResponse:
            if request.headers.get("Authorization", "").removeprefix("Bearer ") not in self.sessions:
                return _errors(401, "INVALID_SESSION_ID", "Session expired or invalid")
            if self.used >= self.daily:
                answer: web.StreamResponse = _errors(403, "REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded.")
            else:
                self.used += 1
                answer = await self._answered(request, handler)
            answer.headers["Sforce-Limit-Info"] = f"api-usage={self.used}/{self.daily}"
            return answer

        return call

    async def _answered(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        try:
            return await handler(request)
        except (Unreadable, BadQuery) as e:
            return _errors(400, *e.args)
        except Refusal as e:
            return json_response([e.as_json(key="errorCode")], 404 if e.code == "ENTITY_IS_DELETED" else 400)
        except orjson.JSONDecodeError:
            return _errors(
                400, "JSON_PARSER_ERROR", "The HTTP entity body is required, but this request has no entity body."
            )
        except Missing:
            return self.not_found(404)

    # -- what there is -----------------------------------------------------------------------------------------------

    async def versions(self, request: web.Request) -> web.Response:
        return json_response([{"label": "Winter '25", "url": f"/services/data/v{VERSION}", "version": VERSION}])

    async def limits(self, request: web.Request) -> web.Response:
        left = self.daily - self.used
        return json_response(
            {
                "DailyApiRequests": {"Max": self.daily, "Remaining": left},
                "DailyBulkV2QueryJobs": {"Max": 10000, "Remaining": 10000},
            }
        )


def _errors(status: int, code: str, message: str) -> web.Response:
    return json_response([{"message": message, "errorCode": code}], status)
