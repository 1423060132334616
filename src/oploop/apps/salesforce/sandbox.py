"""A stand-in for a Salesforce org: OAuth, describe, SOQL, single records, collections, Bulk API 2.0, the day's limit.

Source: REST API Developer Guide; sandbox_schema.py, _org.py, _soql.py and _jobs.py have the rest.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

import jwt
import orjson
from aiohttp import web

from oploop.apps.salesforce.sandbox_jobs import Jobs, Missing
from oploop.apps.salesforce.sandbox_org import Org, Refusal, Unreadable, make_id
from oploop.apps.salesforce.sandbox_schema import PREFIXES
from oploop.apps.salesforce.sandbox_soql import BadQuery, run
from oploop.apps.sandbox import Handler, Sandbox, json_response

CLIENT_ID, CLIENT_SECRET, REFRESH_TOKEN = "3MVG9sandbox.oploop", "sandbox-consumer-secret", "5Aep861sandbox"
VERSION = "62.0"
BASE = "/services/data/v{version:\\d\\d\\.0}"
MOST, MOST_IDS = 200, 2_000


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
        self._cursors: dict[str, tuple[str, list[str], list[dict[str, Any]]]] = {}

    def load(self, kind: str, records: list[dict[str, Any]]) -> None:
        for record in records:
            self.org.load(kind, record)

    def dump(self, kind: str) -> list[dict[str, Any]]:
        return self.org.live(kind)

    def new_id(self, name: str, number: int) -> str:
        """The id of an object's record of this number, for records that are loaded."""
        return make_id(name, number)

    def routes(self) -> list[web.RouteDef]:
        one, by = BASE + "/sobjects/{name}/{id}", BASE + "/sobjects/{name}/{field}/{value}"
        many = BASE + "/composite/sobjects"
        return [
            web.post("/services/oauth2/token", self.token),
            web.get("/services/data/", self.versions),
            web.get(BASE + "/limits", self.in_api(self.limits)),
            web.get(BASE + "/limits/", self.in_api(self.limits)),
            web.get(BASE + "/sobjects", self.in_api(self.objects)),
            web.get(BASE + "/sobjects/", self.in_api(self.objects)),
            web.get(BASE + "/sobjects/{name}/describe", self.in_api(self.describe)),
            web.post(BASE + "/sobjects/{name}", self.in_api(self.create)),
            web.post(BASE + "/sobjects/{name}/", self.in_api(self.create)),
            web.get(one, self.in_api(self.show)),
            web.patch(one, self.in_api(self.update)),
            web.delete(one, self.in_api(self.delete)),
            web.get(by, self.in_api(self.show_by)),
            web.patch(by, self.in_api(self.upsert)),
            web.get(BASE + "/query{all:(All)?}/", self.in_api(self.query)),
            web.get(BASE + "/query{all:(All)?}", self.in_api(self.query)),
            web.get(BASE + "/query{all:(All)?}/{locator}", self.in_api(self.more)),
            web.post(many, self.in_api(self.create_many)),
            web.patch(many, self.in_api(self.update_many)),
            web.delete(many, self.in_api(self.delete_many)),
            web.patch(many + "/{name}/{field}", self.in_api(self.upsert_many)),
            web.post(many + "/{name}", self.in_api(self.show_many)),
            *[web.route(r.method, r.path, self.in_api(r.handler)) for r in self.jobs_routes()],
        ]

    def jobs_routes(self) -> list[web.RouteDef]:
        def late(name: str) -> Handler:
            async def call(request: web.Request) -> web.StreamResponse:
                handler: Handler = getattr(self.jobs, name)  # the jobs of now: a reset makes new ones
                return await handler(request)

            return call

        found = self.jobs.routes(BASE)
        return [web.route(r.method, r.path, late(r.handler.__name__)) for r in found]

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

    async def objects(self, request: web.Request) -> web.Response:
        told = [{k: v for k, v in d.items() if k != "fields"} for d in self.org.described.values()]
        return json_response({"encoding": "UTF-8", "maxBatchSize": 200, "sobjects": told})

    async def describe(self, request: web.Request) -> web.Response:
        return json_response(self.org.described[self._name(request)])

    def _name(self, request: web.Request) -> str:
        known = {n.lower(): n for n in self.org.records}
        name = known.get(request.match_info["name"].lower())
        if name is None:
            raise Missing
        return name

    # -- queries -----------------------------------------------------------------------------------------------------

    async def query(self, request: web.Request) -> web.Response:
        found = run(self.org, request.query.get("q", ""), all_rows=bool(request.match_info["all"]))
        if found.count:
            return json_response({"totalSize": len(found.rows), "done": True, "records": []})
        key = f"01g5g{len(self._cursors):010d}"
        self._cursors[key] = (found.name, found.fields, found.rows)
        return self._page(key, 0)

    async def more(self, request: web.Request) -> web.Response:
        key, _, start = request.match_info["locator"].partition("-")
        if key not in self._cursors or not start.isdigit():
            raise BadQuery("INVALID_QUERY_LOCATOR", "invalid query locator")
        return self._page(key, int(start))

    def _page(self, key: str, start: int) -> web.Response:
        name, fields, rows = self._cursors[key]
        end = start + self.page
        told: dict[str, Any] = {
            "totalSize": len(rows),
            "done": end >= len(rows),
            "records": [_shown(name, r, fields) for r in rows[start:end]],
        }
        if end < len(rows):
            told["nextRecordsUrl"] = f"/services/data/v{VERSION}/query/{key}-{end}"
        else:
            del self._cursors[key]
            self._cursors[f"done {key}"] = (name, [], [])
        return json_response(told)

    def forget_cursors(self) -> None:
        """Queries that are under way cannot be gone on with."""
        self._cursors = {f"gone {k}": v for k, v in self._cursors.items()}

    # -- one record --------------------------------------------------------------------------------------------------

    async def create(self, request: web.Request) -> web.Response:
        name, sent = self._name(request), orjson.loads(await request.read())
        self.org.known(name, sent)
        return json_response({"id": self.org.insert(name, sent), "success": True, "errors": []}, 201)

    async def show(self, request: web.Request) -> web.Response:
        name = self._name(request)
        try:
            record = self.org.held(name, request.match_info["id"])
        except Refusal:
            raise Missing from None
        return json_response(_shown(name, record, list(record)))

    async def update(self, request: web.Request) -> web.Response:
        name, sent = self._name(request), orjson.loads(await request.read())
        self.org.known(name, sent)
        since = request.headers.get("If-Unmodified-Since")
        held = self.org.held(name, request.match_info["id"])
        if since is not None and datetime.fromisoformat(held["LastModifiedDate"]) > parsedate_to_datetime(since):
            said = "the record has been modified since"
            return json_response([{"errorCode": "PRECONDITION_FAILED", "message": said}], 412)
        self.org.update(name, request.match_info["id"], sent)
        return web.Response(status=204)

    async def delete(self, request: web.Request) -> web.Response:
        self.org.delete(self._name(request), request.match_info["id"])
        return web.Response(status=204)

    async def show_by(self, request: web.Request) -> web.Response:
        name, ids = self._name(request), self._by(request)
        if len(ids) > 1:
            return self._choices(name, ids)
        if not ids:
            raise Missing
        record = self.org.held(name, ids[0])
        return json_response(_shown(name, record, list(record)))

    async def upsert(self, request: web.Request) -> web.Response:
        name, ids, sent = self._name(request), self._by(request), orjson.loads(await request.read())
        if len(ids) > 1:
            return self._choices(name, ids)
        self.org.known(name, sent)
        field, value = request.match_info["field"], request.match_info["value"]
        record_id, made = self.org.upsert(name, field, {**sent, field: value})
        return json_response({"id": record_id, "success": True, "errors": [], "created": made}, 201 if made else 200)

    def _by(self, request: web.Request) -> list[str]:
        name, field = self._name(request), request.match_info["field"]
        if not self.org.fields[name].get(field, {}).get("externalId"):
            raise Refusal("NOT_FOUND", f"Provided external ID field does not exist or is not accessible: {field}")
        return self.org.found(name, field, request.match_info["value"])

    def _choices(self, name: str, ids: list[str]) -> web.Response:
        return json_response([f"/services/data/v{VERSION}/sobjects/{name}/{i}" for i in ids], 300)

    # -- many --------------------------------------------------------------------------------------------------------

    async def create_many(self, request: web.Request) -> web.Response:
        return await self._many(request, lambda name, r: self.org.insert(name, r))

    async def update_many(self, request: web.Request) -> web.Response:
        def change(name: str, record: Mapping[str, Any]) -> str:
            record_id = record.get("id") or record.get("Id")
            if record_id is None:
                raise Refusal("MISSING_ARGUMENT", "Id not specified in an update call")
            self._lock(str(record_id))
            return self.org.update(name, str(record_id), record)

        return await self._many(request, change)

    async def upsert_many(self, request: web.Request) -> web.Response:
        name, field = self._name(request), request.match_info["field"]
        if not self.org.fields[name].get(field, {}).get("externalId"):
            raise Unreadable("INVALID_FIELD", f"Field name provided, {field} is not an External ID for {name}")
        sent = orjson.loads(await request.read())["records"]
        keys = [str(r.get(field)).strip().lower() for r in sent]

        def put(_: str, record: Mapping[str, Any]) -> tuple[str, bool]:
            value = str(record.get(field))
            if record.get(field) is not None and keys.count(value.strip().lower()) > 1:
                raise Refusal("DUPLICATE_VALUE", f"Duplicate external id specified: {value}", field)
            if "id" in record or "Id" in record:
                raise Refusal("INVALID_FIELD", "cannot specify Id in an upsert by an external id", "Id")
            return self.org.upsert(name, field, record)

        return await self._many(request, put)

    async def _many(
        self, request: web.Request, one: Callable[[str, Mapping[str, Any]], str | tuple[str, bool]]
    ) -> web.Response:
        records = orjson.loads(await request.read()).get("records") or []
        if len(records) > MOST:
            raise Unreadable(
                "EXCEEDED_ID_LIMIT", f"record limit reached. cannot submit more than {MOST} records into this call"
            )
        for record in records:
            kind = (record.get("attributes") or {}).get("type")
            if kind not in self.org.records:
                raise Unreadable("INVALID_TYPE", f"sObject type '{kind}' is not supported.")
            self.org.known(kind, record)
            self._readable(kind, record)
        results: list[dict[str, Any]] = []
        for record in records:
            try:
                done = one(record["attributes"]["type"], record)
            except Refusal as e:
                results.append({"success": False, "errors": [e.as_json()]})
                continue
            told = {"id": done[0], "created": done[1]} if isinstance(done, tuple) else {"id": done}
            results.append({**told, "success": True, "errors": []})
        return json_response(results)

    def _readable(self, name: str, record: Mapping[str, Any]) -> None:
        """Values of a kind that the JSON of a call cannot have there make the whole call unreadable."""
        try:
            self.org.taken(name, {k: v for k, v in record.items() if k in self.org.fields[name]}, new=True)
        except Refusal:
            return  # said of the record alone

    async def delete_many(self, request: web.Request) -> web.Response:
        ids = [i for i in request.query.get("ids", "").split(",") if i]
        if len(ids) > MOST:
            raise Unreadable(
                "EXCEEDED_ID_LIMIT", f"record limit reached. cannot submit more than {MOST} records into this call"
            )
        names = {prefix: name for name, prefix in PREFIXES.items()}
        results: list[dict[str, Any]] = []
        for record_id in ids:
            try:
                if record_id[:3] not in names:
                    raise Refusal("MALFORMED_ID", f"bad id {record_id}")
                self._lock(record_id)
                results.append({"id": self.org.delete(names[record_id[:3]], record_id), "success": True, "errors": []})
            except Refusal as e:
                results.append({"id": record_id, "success": False, "errors": [e.as_json()]})
        return json_response(results)

    async def show_many(self, request: web.Request) -> web.Response:
        name, asked = self._name(request), orjson.loads(await request.read())
        if len(asked["ids"]) > MOST_IDS:
            raise Unreadable("EXCEEDED_ID_LIMIT", f"cannot retrieve more than {MOST_IDS} records")
        unknown = [f for f in asked["fields"] if f not in self.org.fields[name]]
        if unknown:
            raise BadQuery("INVALID_FIELD", f"No such column '{unknown[0]}' on entity '{name}'.")
        found: list[dict[str, Any] | None] = []
        for record_id in asked["ids"]:
            try:
                found.append(_shown(name, self.org.held(name, record_id), asked["fields"]))
            except Refusal:
                found.append(None)
        return json_response(found)

    def _lock(self, record_id: str) -> None:
        if self.locked.get(record_id, 0) > 0:
            self.locked[record_id] -= 1
            raise Refusal(
                "UNABLE_TO_LOCK_ROW", "unable to obtain exclusive access to this record or 1 records: " + record_id
            )


def _errors(status: int, code: str, message: str) -> web.Response:
    return json_response([{"message": message, "errorCode": code}], status)


def _shown(name: str, record: Mapping[str, Any], fields: list[str]) -> dict[str, Any]:
    """A record as answers have it: its address, and the fields that were asked for."""
    address = f"/services/data/v{VERSION}/sobjects/{name}/{record['Id']}"
    values = {f: _time(record[f]) for f in fields}
    return {"attributes": {"type": name, "url": address}, **values}


def _time(value: Any) -> Any:
    """Times as answers write them: 2025-03-01T12:00:00.000+0000."""
    if isinstance(value, str) and len(value) == 25 and value.endswith("+00:00") and value[10] == "T":
        return value.replace("+00:00", ".000+0000")
    return value
