"""A stand-in for Mixpanel: ingestion, raw export and profile queries on one address.

It answers as the documents say: `/import` takes what is right and names what is not, `/engage` says 200 to everything, a wrong
project token is taken and dropped (`dump("dropped")`). Sources: see client.py, streams.py, objects.py.
"""

from __future__ import annotations

import base64
import csv
import io
from collections import Counter, defaultdict, deque
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs

import orjson
from aiohttp import web

from oploop.apps.mixpanel.sandbox_store import Store
from oploop.apps.mixpanel.writer import MAX_CALL_BYTES, MAX_RECORDS
from oploop.apps.sandbox import Sandbox, json_response

PROJECT, ACCOUNT, SECRET, TOKEN = 3187769, "oploop.sandbox.mp-service-account", "sandbox-secret", "sandbox-token"
GROUPS = {"company": -1405123841946871899}
PAGE = 1000
GZIP_FROM = 1400
MAX_TABLE_BYTES, REPLACES_A_DAY = 100_000_000, 100


class MixpanelSandbox(Sandbox):
    """Mixpanel on loopback. `per_hour`: exports, and queries, that it allows; `profile_lag`: seconds until a query shows a
    profile's change; `timezone`: of a project created before 2023."""

    title = "Mixpanel"

    def __init__(
        self,
        *,
        per_hour: int = 60,
        profile_lag: float = 0.0,
        timezone: str = "UTC",
        groups: Mapping[str, int] = GROUPS,
        max_events: int = MAX_RECORDS,
        **more: Any,
    ) -> None:
        super().__init__(**more)
        self.per_hour, self.profile_lag, self.timezone = per_hour, profile_lag, timezone
        self.groups, self.max_events = dict(groups), max_events
        self.reset()

    @classmethod
    def default_config(cls, url: str) -> dict[str, Any]:
        """The app's block for this sandbox."""
        block = {"base_url": url, "project_id": PROJECT, "service_account": ACCOUNT, "secret": SECRET, "token": TOKEN}
        return {**block, "groups": GROUPS}

    def reset(self) -> None:
        self.store = Store(self.now, self.timezone)
        self._asked: dict[str, deque[datetime]] = defaultdict(deque)
        self._sessions: dict[str, list[dict[str, Any]]] = {}
        #: lookup tables by id; the rows of each, as texts, with the header first
        self.tables: dict[str, dict[str, Any]] = {}
        self._replaced: deque[datetime] = deque()

    def load(self, kind: str, records: list[dict[str, Any]]) -> None:
        """ "events": {"event", "time" (a datetime or milliseconds), "distinct_id", "$insert_id", properties ...}; "profiles", or
        a group key: {"$distinct_id", "$properties"}; "lookup_tables": {"id", "name"}."""
        if kind == "lookup_tables":
            self.tables |= {record["id"]: {"rows": [], **record} for record in records}
            return
        if kind == "events":
            for record in records:
                properties = {k: v for k, v in record.items() if k != "event"}
                if isinstance(record["time"], datetime):
                    properties["time"] = round(record["time"].timestamp() * 1000)
                self.store.add_event({"event": record["event"], "properties": properties})
        elif kind == "profiles" or kind in self.groups:
            for record in records:
                group = "" if kind == "profiles" else kind
                self.store.put(
                    group, str(record["$distinct_id"]), dict(record.get("$properties", {})), self._long_ago()
                )
        else:
            super().load(kind, records)

    def dump(self, kind: str) -> list[dict[str, Any]]:
        """ "events" as queries show them, "raw" as they came, "profiles", a group key's, or what was "dropped"."""
        if kind == "lookup_tables":
            return list(self.tables.values())
        if kind in ("events", "raw", "dropped"):
            return {
                "events": self.store.distinct_events(), "raw": self.store.events, "dropped": self.store.dropped
            }[kind]  # fmt: skip
        if kind == "profiles" or kind in self.groups:
            shown = self.store.shown("" if kind == "profiles" else kind, self.now())
            return [{"$distinct_id": k, "$properties": p} for k, p in shown.items()]
        return super().dump(kind)

    def _long_ago(self) -> datetime:
        return self.now() - timedelta(days=1)

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/import", self._import),
            web.post("/track", self._track),
            web.post("/engage", self._engage),
            web.post("/groups", self._engage),
            web.get("/lookup-tables", self._tables),
            web.put("/lookup-tables/{id}", self._replace),
            web.get("/api/2.0/export", self._export),
            web.post("/api/query/engage", self._query),
        ]

    def not_found(self, status: int) -> web.Response:
        return json_response({"error": "Not Found", "status": "error"}, status)

    # -- ingestion ---------------------------------------------------------------------------------------------------

    async def _import(self, request: web.Request) -> web.Response:
        body = await request.read()
        refused = self._refusal(request, token_too=True)
        if refused is not None:
            return refused
        if len(body) > MAX_CALL_BYTES:
            error = f"request exceeds max limit of {MAX_CALL_BYTES} bytes"
            return json_response({"code": 413, "error": error, "status": "Request Entity Too Large"}, 413)
        events = _records(request, body)
        if events is None or len(events) > self.max_events:
            error = "invalid JSON" if events is None else f"more than {self.max_events} events"
            return json_response({"code": 400, "error": error, "status": "Bad Request", "num_records_imported": 0}, 400)
        failed, taken = [], 0
        for index, event in enumerate(events):
            why = self.store.why_no_event(event)
            if why is None:
                self.store.add_event(event)
                taken += 1
            else:
                insert_id = str(event["properties"].get("$insert_id", "")) if "properties" in event else ""
                failed.append({"index": index, "insert_id": insert_id, "field": why[0], "message": why[1]})
        if request.query.get("strict") != "1":
            return json_response({"code": 200, "status": 1, "error": None, "num_records_imported": taken})
        if failed:
            error = "some data points in the request failed validation"
            answer = {"code": 400, "error": error, "failed_records": failed, "num_records_imported": taken}
            return json_response({**answer, "status": "Bad Request"}, 400)
        return json_response({"code": 200, "num_records_imported": taken, "status": "OK"})

    async def _track(self, request: web.Request) -> web.Response:
        """What browsers and client libraries send; the token stands in the properties."""
        body = await request.read()
        taken = 0
        for event in _records(request, body) or []:
            properties = dict(event.get("properties", {}))
            if properties.pop("token", None) != TOKEN:
                self.store.dropped.append(event)
            elif event.get("event"):
                self.store.add_event({**event, "properties": {"time": self.now().timestamp(), **properties}})
            taken += 1
        return _received(request, body, taken, [])

    async def _engage(self, request: web.Request) -> web.Response:
        body = await request.read()
        group = request.path == "/groups"
        failed, taken = [], 0
        for index, update in enumerate((_records(request, body) or [])[: MAX_RECORDS + 1]):
            why = self.store.why_no_update(update, group)
            if why is None and index >= MAX_RECORDS:
                why = "", f"more than {MAX_RECORDS} updates"
            if why is not None:
                failed.append({"index": index, "field": why[0], "message": why[1]})
                continue
            taken += 1
            if update["$token"] == TOKEN:
                self.store.update(update)
            else:  # "this does not signify a valid project token"
                self.store.dropped.append(update)
        return _received(request, body, taken, failed)

    async def _tables(self, request: web.Request) -> web.Response:
        found = [{"id": t["id"], "name": t["name"]} for t in self.tables.values()]
        return self._refusal(request) or json_response({"code": 200, "status": "OK", "results": found})

    async def _replace(self, request: web.Request) -> web.Response:
        """As a whole or not at all. 100 calls in any 24 hours; the first ten faults are named."""
        body, table = await request.read(), self.tables.get(request.match_info["id"])
        refused = self._refusal(request)
        if refused is not None:
            return refused
        if len(body) > MAX_TABLE_BYTES:
            return json_response({"code": 413, "error": "the table is too large", "status": "Too Large"}, 413)
        if table is None:
            error = f"Lookup table with id {request.match_info['id']!r} was not found."
            return json_response({"code": 404, "error": error, "status": "Not Found"}, 404)
        while self._replaced and self._replaced[0] <= self.now() - timedelta(days=1):
            self._replaced.popleft()
        if len(self._replaced) >= REPLACES_A_DAY:
            return json_response({"code": 429, "error": "rate limit exceeded", "status": "Too Many Requests"}, 429)
        self._replaced.append(self.now())
        rows = list(csv.reader(io.StringIO(body.decode(), newline=""), strict=True))
        failed = table_faults(rows)
        if failed:
            error = "some data points in the request failed validation"
            answer = {"code": 400, "error": error, "failed_records": failed[:10], "status": "Bad Request"}
            return json_response(answer, 400)
        table["rows"] = rows
        return json_response({"code": 200, "status": "OK"})

    # -- reading -----------------------------------------------------------------------------------------------------

    async def _export(self, request: web.Request) -> web.Response:
        refused = self._refusal(request) or self._limited("export")
        if refused is not None:
            return refused
        asked = request.query
        try:
            first, last = date.fromisoformat(asked["from_date"]), date.fromisoformat(asked["to_date"])
            limit = int(asked["limit"]) if "limit" in asked else None
        except (KeyError, ValueError):
            return json_response({"error": "from_date and to_date are needed, yyyy-mm-dd", "status": "error"}, 400)
        if first > last or "where" in asked or (limit or 1) > 100_000:
            return json_response({"error": "from_date, to_date, where or limit cannot be that", "status": "error"}, 400)
        names = orjson.loads(asked["event"]) if "event" in asked else None
        found = self.store.exported(first, last, names, limit)
        if asked.get("time_in_ms") != "true":
            found = [{**e, "properties": {**e["properties"], "time": e["properties"]["time"] // 1000}} for e in found]
        body = b"".join(orjson.dumps(e, option=orjson.OPT_APPEND_NEWLINE) for e in found)
        response = web.Response(body=body, content_type="text/plain")
        if len(body) > GZIP_FROM and "gzip" in request.headers.get("Accept-Encoding", ""):
            response.enable_compression(web.ContentCoding.gzip)
        return response

    async def _query(self, request: web.Request) -> web.Response:
        form = {k: v[0] for k, v in parse_qs((await request.read()).decode()).items()}
        refused = self._refusal(request) or self._limited("query")
        if refused is not None:
            return refused
        unknown = form.keys() - {"session_id", "page", "data_group_id", "distinct_id", "distinct_ids"}
        if unknown:
            return json_response({"error": f"the sandbox does not know {sorted(unknown)}", "status": "error"}, 400)
        page = int(form.get("page", 0))
        session = form.get("session_id")
        if page > 0 and session not in self._sessions:
            return json_response({"error": "request for page in uncached query for params", "status": "error"}, 400)
        if session is None or session not in self._sessions:
            session = f"{len(self._sessions)}-{self._runtime.new_id()}"
            self._sessions[session] = self._found(form)
        results = self._sessions[session][page * PAGE : (page + 1) * PAGE]
        total = len(self._sessions[session])
        answer = {"page": page, "page_size": PAGE, "session_id": session, "status": "ok", "total": total}
        return json_response({**answer, "results": results})

    def _found(self, form: Mapping[str, str]) -> list[dict[str, Any]]:
        keys = {str(number): key for key, number in self.groups.items()}
        group = keys.get(form["data_group_id"], "?") if "data_group_id" in form else ""
        shown = self.store.shown(group, self.now() - timedelta(seconds=self.profile_lag))
        wanted = set(orjson.loads(form["distinct_ids"])) if "distinct_ids" in form else None
        if "distinct_id" in form:
            wanted = {form["distinct_id"]}
        return [{"$distinct_id": k, "$properties": p} for k, p in shown.items() if wanted is None or k in wanted]

    # -- who may what ------------------------------------------------------------------------------------------------

    def _refusal(self, request: web.Request, *, token_too: bool = False) -> web.Response | None:
        user, _, password = _basic(request.headers.get("Authorization", ""))
        if token_too and (user, password) == (TOKEN, ""):
            return None
        if (user, password) == (ACCOUNT, SECRET) and request.query.get("project_id") == str(PROJECT):
            return None
        return json_response({"code": 401, "error": "Invalid credentials", "status": "Unauthorized"}, 401)

    def _limited(self, what: str) -> web.Response | None:
        asked, now = self._asked[what], self.now()
        while asked and asked[0] <= now - timedelta(hours=1):
            asked.popleft()
        if len(asked) >= self.per_hour:
            return json_response({"error": "Query rate limit exceeded", "status": "error"}, 429)
        asked.append(now)
        return None


def table_faults(rows: list[list[str]]) -> list[dict[str, Any]]:
    """What Mixpanel finds wrong with a lookup table, by the row's index: the header, the ids, the number of fields."""
    if not rows or len(set(rows[0])) < len(rows[0]):
        return [{"index": 0, "message": "invalid header: its values must be unique"}]
    ids = Counter(row[0] for row in rows[1:] if row)
    found = []
    for index, row in enumerate(rows[1:], 1):
        if len(row) != len(rows[0]):
            found.append({"index": index, "message": "invalid row: wrong number of fields"})
        elif ids[row[0]] > 1:
            found.append({"index": index, "message": "invalid row: its primary key is another row's too"})
    return found


def _records(request: web.Request, body: bytes) -> list[Any] | None:
    """The records of a call: a JSON list, lines of JSON, or a form's `data`."""
    kind = request.content_type
    try:
        if kind == "application/x-www-form-urlencoded":
            text = parse_qs(body.decode())["data"][0]
            found = orjson.loads(text if text[:1] in "[{" else base64.b64decode(text))
        elif kind == "application/x-ndjson":
            found = [orjson.loads(line) for line in body.splitlines() if line]
        else:
            found = orjson.loads(body)
    except (orjson.JSONDecodeError, KeyError, ValueError):
        return None
    return found if isinstance(found, list) else [found]


def _received(request: web.Request, body: bytes, taken: int, failed: list[dict[str, Any]]) -> web.Response:
    """200 in any case: a bare 1 or 0, with `verbose` an object, with `strict` what failed too."""
    form = parse_qs(body.decode()) if request.content_type == "application/x-www-form-urlencoded" else {}
    status = 1 if taken else 0
    said: dict[str, Any] = {
        "status": status,
        "error": None if not failed and taken else "no data, or some of it is invalid",
    }
    if request.query.get("strict") == "1" and failed:
        return json_response({**said, "failed_records": failed, "num_records_imported": taken})
    if "1" in (request.query.get("verbose"), *form.get("verbose", [])):
        return json_response(said)
    return web.Response(text=str(status), content_type="text/plain")


def _basic(header: str) -> tuple[str, str, str]:
    try:
        return base64.b64decode(header.removeprefix("Basic "), validate=True).decode().partition(":")
    except ValueError:
        return "", "", ""
