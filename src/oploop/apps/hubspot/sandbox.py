"""A stand-in for HubSpot: a real HTTP server on loopback that behaves as the vendor documents.

    sandbox.py         the server: credentials, limits, control
    sandbox_routes.py  its addresses;  sandbox_search.py  how its search compares
    sandbox_store.py   the records and HubSpot's rules;  sandbox_links.py  associations and lists
    sandbox_values.py  values of properties;  sandbox_shapes.py  what an account has from the start

Kinds of `load` and `dump`: a type (`contacts`), an association (`deals_to_contacts`: from_id, to_id), `lists`,
`list_memberships`, `owners`, `schemas` (custom objects), `properties.TYPE`.
"""

from __future__ import annotations

import math
from collections import deque
from datetime import datetime, timedelta
from typing import Any

from aiohttp import web

from oploop.apps.hubspot.sandbox_links import Associations, Lists
from oploop.apps.hubspot.sandbox_routes import AccountRoutes, RecordRoutes, Reply
from oploop.apps.hubspot.sandbox_shapes import PORTAL, Refusal
from oploop.apps.hubspot.sandbox_store import Store
from oploop.apps.sandbox import Sandbox, json_response
from oploop.runtime import Runtime

ACCESS_TOKEN = "pat-test-oploop"
CLIENT_ID, CLIENT_SECRET, REFRESH_TOKEN = "oploop-client", "oploop-client-secret", "oploop-refresh-token"
TOKEN_SECONDS = 1_800  #: how long a token of the OAuth app is good
UNLIMITED = 100_000


class HubSpotSandbox(Sandbox):
    """HubSpot on loopback.

    `rate_limit`: calls in ten seconds, `search_limit`: searches a second, `daily_limit`: calls a day (None: no limit);
    `speedup`: how much faster than ours its seconds pass for the limits. `index_lag`: seconds until a search shows a
    change. `multi_status`: the batches that may be done in part.
    """

    title = "HubSpot"

    def __init__(
        self,
        *,
        runtime: Runtime | None = None,
        keep_log: bool = True,
        access_token: str = ACCESS_TOKEN,
        rate_limit: int | None = None,
        search_limit: int | None = None,
        daily_limit: int | None = None,
        speedup: float = 1.0,
        index_lag: float = 3.0,
        multi_status: frozenset[str] = frozenset({"create"}),
    ) -> None:
        super().__init__(runtime=runtime, keep_log=keep_log)
        self._access_token, self._speedup, self._multi = access_token, speedup, multi_status
        self._limits = {"TEN_SECONDLY_ROLLING": rate_limit, "SECONDLY": search_limit, "DAILY": daily_limit}
        self.store = Store(self.now, index_lag)
        self.links, self.lists = Associations(self.store), Lists(self.store)
        self.owners: list[dict[str, Any]] = []
        self.reset()

    @classmethod
    def default_config(cls, url: str) -> dict[str, Any]:
        """The keys of a `hubspot` block in `oploop.yml` that reach the sandbox at `url`."""
        return {"access_token": ACCESS_TOKEN, "base_url": url}

    # -- control -----------------------------------------------------------------------------------------------------

    def reset(self) -> None:
        """An account without records."""
        self.store.clear()
        self.links.clear()
        self.lists.clear()
        self.owners.clear()
        self._tokens: dict[str, datetime] = {}
        self._calls: dict[str, deque[float]] = {name: deque() for name in self._limits}

    def load(self, kind: str, records: list[dict[str, Any]]) -> None:
        """Fill in records as if they had always been there."""
        head, _, rest = kind.partition(".")
        left, to, right = kind.partition("_to_")
        for record in records:
            if head == "properties":
                self.store.define(rest, record)
            elif kind == "schemas":
                self.store.add_schema(record)
            elif kind == "owners":
                self.owners.append({"archived": False, "teams": [], **record})
            elif kind == "lists":
                self.lists.create(record)
            elif kind == "list_memberships":
                self.lists.change(str(record["list_id"]), [str(record["record_id"])], [])
            elif to:
                ends = self.store.kinds[left], self.store.kinds[right]
                self.links.add(*ends, str(record["from_id"]), str(record["to_id"]))
            else:
                self.store.load(self.store.kinds[kind], record)

    def dump(self, kind: str) -> list[dict[str, Any]]:
        """All live records of a kind."""
        left, to, right = kind.partition("_to_")
        if kind == "lists":
            return list(self.lists.lists.values())
        if kind == "owners":
            return self.owners
        if kind == "list_memberships":
            return [{"list_id": str(n), "record_id": str(m)} for n in self.lists.lists for m in self.lists.live(str(n))]
        if to:
            return self.links.dump(self.store.kinds[left], self.store.kinds[right])
        if kind.startswith("properties."):
            return list(self.store.kinds[kind.partition(".")[2]].properties.values())
        return [r for _, r in sorted(self.store.kinds[kind].records.items()) if not r["archived"]]

    def edit(self, kind: str, number: str, **properties: Any) -> None:
        """What a person does by hand: set some properties of a record."""
        known = self.store.kinds[kind]
        record = self.store.get(known, number)
        if record is None:
            raise LookupError(number)
        self.store.update(known, record, {k: "" if v is None else str(v) for k, v in properties.items()})

    # -- routes ------------------------------------------------------------------------------------------------------

    def routes(self) -> list[web.RouteDef]:
        records = RecordRoutes(self.store, self.links, self._multi)
        account = AccountRoutes(self.store, self.links, self.lists, self.owners)
        listed = [("GET", "/account-info/v3/details", self._details), *records.routes(), *account.routes()]
        found = [web.route(method, path, self._guarded(reply)) for method, path, reply in listed]
        return [web.post("/oauth/v1/token", self._token), *found]

    def not_found(self, status: int) -> web.Response:
        return json_response(Refusal(status, "resource not found", "OBJECT_NOT_FOUND").body(), status)

    async def _details(self, request: web.Request) -> web.Response:
        return json_response(
            {
                "portalId": PORTAL,
                "accountType": "STANDARD",
                "timeZone": "US/Eastern",
                "companyCurrency": "USD",
                "additionalCurrencies": [],
                "utcOffset": "-05:00",
                "utcOffsetMilliseconds": -18_000_000,
                "uiDomain": "app.hubspot.com",
                "dataHostingLocation": "na1",
            }
        )

    def _guarded(self, reply: Reply) -> Reply:
        """Credentials and limits before, HubSpot's errors after; searches tell no limits."""

        async def guarded(request: web.Request) -> web.Response:
            searching = request.path.endswith("/search") and request.path.startswith("/crm/v3/objects")
            try:
                self._authorize(request)
                self._count("SECONDLY" if searching else "TEN_SECONDLY_ROLLING")
                self._count("DAILY")
                response = await reply(request)
            except Refusal as e:
                response = json_response(e.body(), e.status)
            if not searching:
                response.headers.update(self._limit_headers())
            return response

        return guarded

    async def _token(self, request: web.Request) -> web.Response:
        """A new access token for the OAuth app's refresh token, which stays the same."""
        form = await request.post()
        known = {"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, "refresh_token": REFRESH_TOKEN}
        wrong = [name for name, value in known.items() if form.get(name) != value]
        if form.get("grant_type") != "refresh_token" or wrong:
            said = f"missing or unknown {', '.join(wrong) or 'grant_type'}"
            return json_response({"status": "BAD_AUTH_CODE", "message": said}, 400)
        token = f"oauth-{self._runtime.new_id()}"
        self._tokens[token] = self.now() + timedelta(seconds=TOKEN_SECONDS)
        answer = {"token_type": "bearer", "access_token": token, "refresh_token": REFRESH_TOKEN}
        return json_response({**answer, "expires_in": TOKEN_SECONDS})

    def _authorize(self, request: web.Request) -> None:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if token in self._tokens:
            if self._tokens[token] <= self.now():
                raise Refusal(
                    401,
                    f"The OAuth token used to make this call expired {self._tokens[token]}",
                    "EXPIRED_AUTHENTICATION",
                )
        elif token != self._access_token:
            said = "Authentication credentials not found. This API supports OAuth 2.0 authentication"
            raise Refusal(401, said, "INVALID_AUTHENTICATION")

    def _window(self, name: str) -> float:
        return {"SECONDLY": 1.0, "TEN_SECONDLY_ROLLING": 10.0, "DAILY": 86_400.0}[name] / self._speedup

    def _count(self, name: str) -> None:
        """Count a call; Refusal (429) when it is one too many."""
        limit, calls = self._limits[name], self._calls[name]
        if limit is None:
            return
        now = self._runtime.monotonic()
        while calls and calls[0] <= now - self._window(name):
            calls.popleft()
        if len(calls) >= limit:
            said = f"You have reached your {name.lower()} limit."
            raise Refusal(429, said, "RATE_LIMITS", errorType="RATE_LIMIT", policyName=name, groupName="publicapi:private-apps:oploop")  # fmt: skip
        calls.append(now)

    def _limit_headers(self) -> dict[str, str]:
        limit, day = self._limits["TEN_SECONDLY_ROLLING"], self._limits["DAILY"]
        left = UNLIMITED if limit is None else max(0, limit - len(self._calls["TEN_SECONDLY_ROLLING"]))
        found = {
            "X-HubSpot-RateLimit-Max": str(limit or UNLIMITED),
            "X-HubSpot-RateLimit-Remaining": str(left),
            "X-HubSpot-RateLimit-Interval-Milliseconds": str(math.ceil(self._window("TEN_SECONDLY_ROLLING") * 1000)),
        }
        if day is not None:
            found["X-HubSpot-RateLimit-Daily"] = str(day)
            found["X-HubSpot-RateLimit-Daily-Remaining"] = str(max(0, day - len(self._calls["DAILY"])))
        return found
