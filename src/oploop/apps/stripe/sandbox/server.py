"""The sandbox over HTTP: keys, idempotency, the rate limit, lists in pages, errors in Stripe's shape."""

from __future__ import annotations

import base64
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl

import orjson
from aiohttp import web

from oploop.apps.sandbox import Fault, Handler, Sandbox
from oploop.apps.stripe.sandbox import params as p
from oploop.apps.stripe.sandbox.books import ENDED, Books, Origin, invoice_step
from oploop.apps.stripe.sandbox.params import ApiError
from oploop.apps.stripe.sandbox.shapes import ACCOUNT, BALANCE, DAY, KINDS, OBJECT
from oploop.apps.stripe.sandbox.store import KeyBox, Query, Saved, Shelf, Test
from oploop.apps.stripe.streams import API_VERSION
from oploop.runtime import Runtime

EVENTS_KEPT = 30 * DAY
FORM = "application/x-www-form-urlencoded"
EMIT = "+events"  #: a kind's suffix with which loading tells of it by events

_MANY = {"charges.refunds": ("refunds", "charge"), "customers.subscriptions": ("subscriptions", "customer")}


class StripeSandbox(Sandbox):
    """Stripe's API on loopback. Load `customers`, `charges`, ... (`charges+events`: with events, as if made just now).

    `rate_limit`: calls a second, more get 429 (None: no limit). `forbidden`: paths that the key, as a restricted one,
    may not use. `account_version`: the version of the API in which events are rendered from then on.
    """

    title = "Stripe"

    def __init__(
        self,
        *,
        api_key: str = "sk_test_oploop",
        runtime: Runtime | None = None,
        keep_log: bool = True,
        rate_limit: int | None = None,
    ) -> None:
        super().__init__(runtime=runtime, keep_log=keep_log)
        self.api_key = api_key
        self.rate_limit = rate_limit
        self.forbidden: set[str] = set()
        self._calls: deque[float] = deque()
        self.reset()

    @classmethod
    def default_config(cls, url: str) -> dict[str, Any]:
        """The keys of the app's block in `oploop.yml` for a sandbox at this address."""
        return {"base_url": url, "api_key": "sk_test_oploop", "rate_limit": 5000}

    # -- the store -----------------------------------------------------------------------------------------------------

    def reset(self) -> None:
        self.books = Books(lambda: int(self.now().timestamp()), self._runtime.random)
        self._keys = KeyBox(DAY)

    @property
    def account_version(self) -> str:
        return self.books.account_version

    @account_version.setter
    def account_version(self, version: str) -> None:
        self.books.account_version = version

    def load(self, kind: str, records: list[dict[str, Any]]) -> None:
        name = kind.removesuffix(EMIT)
        if name not in KINDS:
            raise LookupError(f"Stripe's sandbox has no {name}")
        self.books.load(name, records, emit=kind.endswith(EMIT))

    def dump(self, kind: str) -> list[dict[str, Any]]:
        shelf = self._shelf(kind)
        dumped: list[dict[str, Any]] = [orjson.loads(shelf.raw(row["id"])) for row in shelf]
        return dumped

    def _shelf(self, kind: str) -> Shelf:
        return self.books.events if kind == "events" else self.books.shelves[kind]

    # -- HTTP ----------------------------------------------------------------------------------------------------------

    def routes(self) -> list[web.RouteDef]:
        return [web.route("*", "/v1/{tail:.*}", self._handle)]

    def not_found(self, status: int) -> web.Response:
        return _error(ApiError("Unrecognized request URL. See https://stripe.com/docs.", status=404))

    async def _answer(self, request: web.Request, handler: Handler, fault: Fault | None) -> web.StreamResponse:
        """A key that is in use is refused; a 500 is saved under its key like any other answer."""
        key = request.headers.get("Idempotency-Key")
        if request.method != "POST" or key is None:
            return await super()._answer(request, handler, fault)
        if key in self._keys.in_flight:
            return _error(
                ApiError(
                    "There is currently another in-progress request using this Idempotent Key",
                    status=409,
                    type="idempotency_error",
                    code="idempotency_key_in_use",
                )
            )
        self._keys.in_flight.add(key)
        try:
            response = await super()._answer(request, handler, fault)
        finally:
            self._keys.in_flight.discard(key)
        if fault is not None and fault.action == "status" and fault.status == 500:
            self._save(key, request.path, await request.read(), fault.status, fault.body.encode())
        return response

    async def _handle(self, request: web.Request) -> web.Response:
        request_id = self.books.new_id("req")
        try:
            response = self._checked(request, await request.read(), request_id)
        except ApiError as e:
            response = _error(e)
        response.headers["Request-Id"] = request_id
        response.headers["Stripe-Version"] = API_VERSION
        return response

    def _checked(self, request: web.Request, body: bytes, request_id: str) -> web.Response:
        self._authorize(request)
        self._count()
        if request.method != "POST":
            return self._do(request, _pairs(request, body))
        kind = request.content_type
        if body and kind != FORM:
            raise ApiError(f"Invalid request (check that your POST content type is {FORM})")
        key = request.headers.get("Idempotency-Key")
        self.books.origin = Origin(request_id, key)
        if key is None:
            return self._do(request, _pairs(request, body))
        return self._once(key, request, body)

    def _authorize(self, request: web.Request) -> None:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "basic":
            given = base64.b64decode(given).decode("utf-8", "replace").partition(":")[0]
        if not given:
            raise ApiError(
                "You did not provide an API key. You need to provide your API key in the Authorization header, using "
                "Bearer auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY').",
                status=401,
            )
        if given.strip() != self.api_key:
            shown = f"{given[:8]}{'*' * max(0, len(given) - 12)}{given[-4:]}"
            raise ApiError(f"Invalid API Key provided: {shown}", status=401)
        if any(request.path.startswith(path) for path in self.forbidden):
            raise ApiError(
                "The provided key does not have the required permissions for this endpoint on account "
                f"'{ACCOUNT['id']}'.",
                status=403,
            )

    def _count(self) -> None:
        if self.rate_limit is None:
            return
        now = self._runtime.monotonic()
        while self._calls and self._calls[0] <= now - 1.0:
            self._calls.popleft()
        if len(self._calls) >= self.rate_limit:
            raise ApiError(
                "Request rate limit exceeded. Learn more about rate limits https://stripe.com/docs/rate-limits.",
                status=429,
                code="rate_limit",
            )
        self._calls.append(now)

    def _once(self, key: str, request: web.Request, body: bytes) -> web.Response:
        if len(key) > 255:
            raise ApiError("Idempotency keys may be at most 255 characters long.")
        saved = self._keys.get(key, self.now().timestamp())
        if saved is None:
            try:
                response = self._do(request, _pairs(request, body))
            except ApiError as e:
                if not e.checked:
                    self._save(key, request.path, body, e.status, orjson.dumps(e.body))
                raise
            assert isinstance(response.body, bytes)
            self._save(key, request.path, body, response.status, response.body)
            return response
        if (saved.path, saved.params) != (request.path, _canonical(body)):
            raise ApiError(
                "Keys for idempotent requests can only be used with the same parameters they were first used with. "
                f"Try using a key other than '{key}' if you meant to execute a different request.",
                type="idempotency_error",
            )
        replayed = {"Idempotent-Replayed": "true"}
        return web.Response(body=saved.body, status=saved.status, headers=replayed, content_type="application/json")

    def _save(self, key: str, path: str, body: bytes, status: int, answer: bytes) -> None:
        self._keys.save(key, Saved(path, _canonical(body), status, answer, self.now().timestamp()))

    # -- the calls -----------------------------------------------------------------------------------------------------

    def _do(self, request: web.Request, pairs: list[tuple[str, str]]) -> web.Response:
        tree = p.nest(pairs)
        path = request.match_info["tail"].strip("/").split("/")
        match (request.method, path):
            case ("GET", ["account"]):
                return self._whole(ACCOUNT, p.read(tree, p.EXPAND))
            case ("GET", ["balance"]):
                return self._whole(BALANCE, p.read(tree, p.EXPAND))
            case ("GET", [kind]) if kind in p.LIST:
                return self._list(kind, p.read(tree, p.LIST[kind]))
            case ("GET", [kind, record_id]) if kind in p.LIST:
                return self._one(kind, record_id, p.read(tree, p.EXPAND))
            case ("POST", [kind]) if kind in KINDS:
                takes, required = p.CREATE[kind]
                given = p.read(tree, takes, required)
                return self._whole(self.books.create(kind, given), given)
            case ("POST", ["invoices", invoice_id, "finalize" | "pay" | "void" as step]):
                given = p.read(tree, p.EXPAND)
                return self._whole(invoice_step(self.books, invoice_id, step), given)
            case ("POST", [kind, record_id]) if kind in KINDS:
                self.books.get(kind, record_id)
                given = p.read(tree, p.UPDATE[kind])
                return self._whole(self.books.update(kind, record_id, given), given)
            case ("DELETE", [kind, record_id]) if kind in KINDS:
                given = p.read(tree, p.DELETE.get(kind, {}))
                return self._whole(self.books.delete(kind, record_id), given)
        raise ApiError(f"Unrecognized request URL ({request.method}: {request.path}).", status=404)

    def _one(self, kind: str, record_id: str, given: Mapping[str, Any]) -> web.Response:
        shelf = self._shelf(kind)
        found = shelf.get(record_id) or self.books.tombstones.get(record_id)
        if found is None or (kind == "events" and found["created"] < self._events_from()):
            raise p.missing(OBJECT[kind], record_id, "id")
        if given.get("expand"):
            return self._whole(found, given)
        return _json(shelf.raw(record_id) if "deleted" not in found else orjson.dumps(found))

    def _whole(self, row: Mapping[str, Any], given: Mapping[str, Any]) -> web.Response:
        for path in given.get("expand") or ():
            row = self._expanded(row, path.split("."))
        return _json(orjson.dumps(row))

    def _list(self, kind: str, given: Mapping[str, Any]) -> web.Response:
        shelf = self._shelf(kind)
        low, high = _bounds(given.get("created") or {})
        if kind == "events":
            low = max(low or 0, self._events_from())
        tests = tuple(_tests(kind, given))
        after, before = given.get("starting_after"), given.get("ending_before")
        if after and before:
            raise ApiError("You may only specify one of these parameters: ending_before, starting_after.")
        query = Query(given.get("limit") or 10, after, before, low, high, tests)
        try:
            ids, more = shelf.page(query)
        except LookupError as e:
            param = "starting_after" if after else "ending_before"
            raise p.missing(OBJECT[kind], str(e.args[0]), param, status=400) from None
        head = b'{"object":"list","url":"/v1/%s","has_more":%s,"data":[' % (
            kind.encode(),
            b"true" if more else b"false",
        )
        if not given.get("expand"):
            return _json(head + b",".join([shelf.raw(record_id) for record_id in ids]) + b"]}")
        rows = [orjson.loads(shelf.raw(record_id)) for record_id in ids]
        for path in given["expand"]:
            first, *rest = path.split(".")
            if first != "data" or not rest:
                raise ApiError(f"This property cannot be expanded ({path}).", param="expand")
            rows = [self._expanded(row, rest) for row in rows]
        return _json(head + b",".join([orjson.dumps(row) for row in rows]) + b"]}")

    def _events_from(self) -> int:
        return int(self.now().timestamp()) - EVENTS_KEPT

    def _expanded(self, row: Mapping[str, Any], path: list[str]) -> dict[str, Any]:
        """A copy of an object in which the id at `path` is the object that it names."""
        name, *rest = path
        many = _MANY.get(f"{row.get('object')}s.{name}")
        if many is not None:
            kind, by = many
            data = [other for other in self.books.shelves[kind] if other[by] == row["id"]][::-1][:10]
            url = f"/v1/{kind}?{by}={row['id']}"
            return {**row, name: {"object": "list", "data": data, "has_more": False, "url": url}}
        value = row.get(name)
        if isinstance(value, str):
            value = self._named(value)
        if name not in row or (value is not None and not isinstance(value, dict)):
            raise ApiError(f"This property cannot be expanded ({'.'.join(path)}).", param="expand")
        if value is not None and rest:
            value = self._expanded(value, rest)
        return {**row, name: value}

    def _named(self, record_id: str) -> Mapping[str, Any] | str:
        for shelf in self.books.shelves.values():
            found = shelf.get(record_id)
            if found is not None:
                return found
        return self.books.tombstones.get(record_id, record_id)


def _pairs(request: web.Request, body: bytes) -> list[tuple[str, str]]:
    pairs = list(request.query.items())
    try:
        return pairs + parse_qsl(body.decode(), keep_blank_values=True, strict_parsing=bool(body))
    except ValueError:
        raise ApiError("Invalid request: the body is no form") from None


def _canonical(body: bytes) -> bytes:
    """A form's parameters, whatever their order."""
    return orjson.dumps(sorted(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True)))


def _bounds(created: Mapping[str, int]) -> tuple[int | None, int | None]:
    """Seconds from, up to and not with, of the four comparisons."""
    lows = [created[k] + (k == "gt") for k in ("gt", "gte") if created.get(k) is not None]
    highs = [created[k] + (k == "lte") for k in ("lt", "lte") if created.get(k) is not None]
    return max(lows, default=None), min(highs, default=None)


def _tests(kind: str, given: Mapping[str, Any]) -> list[Test]:
    """What an object must be to be listed."""
    tests: list[Test] = [_equals(name, given[name]) for name in p.EQUAL[kind] if given.get(name) is not None]
    if kind == "subscriptions":
        tests += _subscription_tests(given)
    if kind == "events":
        if given.get("type") and given.get("types"):
            raise ApiError("You may only specify one of these parameters: type, types.")
        tests += [_of_types([given["type"]])] if given.get("type") else []
        tests += [_of_types(given["types"])] if given.get("types") else []
    if given.get("ids"):
        tests.append(_among("id", given["ids"]))
    if given.get("lookup_keys"):
        tests.append(_among("lookup_key", given["lookup_keys"]))
    return tests


def _subscription_tests(given: Mapping[str, Any]) -> list[Test]:
    status, price = given.get("status"), given.get("price")
    tests: list[Test] = []
    if status is None:
        tests.append(lambda row: row["status"] != "canceled")
    elif status == "ended":
        tests.append(lambda row: row["status"] in ENDED)
    elif status != "all":
        tests.append(_equals("status", status))
    if price is not None:
        tests.append(lambda row: any(item["price"]["id"] == price for item in row["items"]["data"]))
    return tests


def _equals(name: str, value: Any) -> Test:
    return lambda row: bool(row[name] == value)


def _among(name: str, values: list[str]) -> Test:
    wanted = set(values)
    return lambda row: row[name] in wanted


def _of_types(types: list[str]) -> Test:
    """Events by type; * stands for anything that follows."""
    whole = {one for one in types if "*" not in one}
    starts = tuple(one.removesuffix("*") for one in types if "*" in one)
    matches: Callable[[str], bool] = lambda name: name in whole or name.startswith(starts)  # noqa: E731
    return lambda row: matches(row["type"])


def _json(body: bytes, status: int = 200) -> web.Response:
    return web.Response(body=body, status=status, content_type="application/json")


def _error(e: ApiError) -> web.Response:
    response = _json(orjson.dumps(e.body), e.status)
    if e.status == 429:
        response.headers["Stripe-Rate-Limited-Reason"] = "global-rate"
    return response
