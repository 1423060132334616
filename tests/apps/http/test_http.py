"""What a block says of an API: each kind of paging, templates, batches, and mistakes told with their line."""

from __future__ import annotations

import gzip
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import orjson
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oploop.apps.budget import Quota
from oploop.apps.columns import Chunk, Columns
from oploop.apps.http import HttpApp, HttpSandbox
from oploop.apps.http.config import HttpConfig
from oploop.apps.http.sandbox import OBJECTS, STREAMS
from oploop.apps.http.templates import Filling, Missing, maker, path_of, rows_maker
from oploop.apps.jsonvalues import plain
from oploop.apps.policy import Answer, Request
from oploop.apps.registry import make_app
from oploop.apps.sandbox import Fault
from oploop.apps.tracing import HttpTrace
from oploop.apps.transport import Refused
from oploop.errors import FixConfig, FixData, RetryLater
from oploop.project import load_project
from oploop.records import Batch, Change, Deletes, JsonPath, Op, Outcome, ReadOptions, Replay, Step
from oploop.runtime import Runtime

ACCOUNTS = STREAMS["accounts"]


@pytest.fixture
def sandbox() -> Iterator[HttpSandbox]:
    box = HttpSandbox()
    box.load("accounts", [{"email": f"a{i}@x", "name": f"A {i}"} for i in range(1, 126)])
    with box.running():
        yield box


Make = Callable[..., HttpApp]


@pytest.fixture
async def make(sandbox: HttpSandbox) -> AsyncIterator[Make]:
    made: list[HttpApp] = []

    def app(stream: dict[str, Any] | None = None, objects: dict[str, Any] | None = None, **more: Any) -> HttpApp:
        block = {**HttpSandbox.default_config(sandbox.url), **more}
        block["streams"] = {"accounts": {**ACCOUNTS, **(stream or {})}}
        block["objects"] = objects if objects is not None else OBJECTS
        made.append(HttpApp("billing", HttpConfig(**block), Runtime()))
        return made[-1]

    yield app
    for each in made:
        await each.aclose()


async def read(app: HttpApp, cursor: Any = None) -> list[Batch]:
    return [b async for b in app.read("accounts", cursor, ReadOptions())]


def ids(batches: list[Batch]) -> list[int]:
    return [r["id"] for b in batches for r in b.table.to_pylist()]


PAGINGS: list[dict[str, Any]] = [
    {"cursor": "next_cursor", "param": "cursor"},
    {"link": "next", "size": 50, "size_param": "per_page"},
    {"page": "page", "size": 50, "size_param": "per_page"},
    {"offset": "offset", "size": 25, "size_param": "per_page"},
]


@pytest.mark.parametrize("paging", PAGINGS, ids=lambda p: next(iter(p)))
async def test_each_kind_of_paging_brings_each_record_once(make: Make, paging: dict[str, Any]) -> None:
    batches = await read(make({"paging": paging, "since": None}))
    assert sorted(ids(batches)) == list(range(1, 126))
    assert batches[-1].complete


async def test_pages_that_end_just_full_end(make: Make, sandbox: HttpSandbox) -> None:
    sandbox.load("accounts", [{"email": f"b{i}@x"} for i in range(25)])  # 150: three full pages
    for paging in PAGINGS:
        assert len(ids(await read(make({"paging": paging, "since": None})))) == 150


async def test_without_since_each_read_is_whole_and_absence_tells(make: Make) -> None:
    app = make({"since": None, "deleted": None})
    assert (app.streams["accounts"].incremental, app.streams["accounts"].deletes) == (False, Deletes.ABSENCE)
    first = await read(app)
    assert len(ids(await read(app, first[-1].cursor))) == 125


async def test_what_is_no_list_is_named(make: Make) -> None:
    with pytest.raises(FixData, match=r"no list of records at 'data\.rows' in the answer — check `records`"):
        await read(make({"records": "data.rows"}))


def step(obj: str, op: Op, *changes: tuple[str | None, dict[str, Any]]) -> Step:
    listed = [
        Change(n, op, {"email": fields.get("email", "")}, fields, remote_id=i)
        for n, (i, fields) in enumerate(changes, 1)
    ]
    return Step("01STEP", "a_sync", obj, op, listed)


async def test_a_create_whose_answer_was_lost_is_made_once_under_its_key(make: Make, sandbox: HttpSandbox) -> None:
    app = make()
    assert app.objects["accounts"].operations[Op.CREATE].replay is Replay.KEY
    sandbox.faults.append(Fault("POST /accounts$", "lose"))
    [receipt] = await app.send(step("accounts", Op.CREATE, (None, {"email": "new@x", "name": "N"})))
    assert receipt.outcome is Outcome.OK
    assert [a["id"] for a in sandbox.dump("accounts") if a["email"] == "new@x"] == [int(receipt.remote_id or 0)]


async def test_what_may_be_made_twice_without_a_key_is_never_sent_again(make: Make) -> None:
    app = make(objects={"accounts": {**OBJECTS["accounts"], "create": {"path": "/accounts"}}})
    assert app.objects["accounts"].operations[Op.CREATE].replay is Replay.NEVER
    assert app.objects["accounts"].operations[Op.UPDATE].replay is Replay.SAFE


def test_a_field_may_stand_within_a_json_column(make: Make) -> None:
    columns = {"id": "integer", "email": "text", "profile": "json"}
    fields = {"email": {"key": True}, "city": {"column": "profile", "path": ["address", "city"], "title": "City"}}
    app = make(
        {"columns": columns, "since": None, "version": None},
        objects={"accounts": OBJECTS["accounts"] | {"fields": fields}},
    )
    city = app.objects["accounts"].fields["city"]
    assert (city.source, city.title) == (JsonPath("profile", ("address", "city")), "City")
    fields["city"] = {"column": "email", "path": "city"}
    with pytest.raises(ValueError, match=r"objects\.accounts\.fields\.city: path is for a column of type json"):
        make(
            {"columns": columns, "since": None, "version": None},
            objects={"accounts": OBJECTS["accounts"] | {"fields": fields}},
        )


async def test_results_of_a_batch_are_matched_by_a_field_whatever_their_order(make: Make, sandbox: HttpSandbox) -> None:
    changes = [(None, {"email": f"n{i}@x", "name": f"N{i}"}) for i in range(4)]
    changes[2][1]["plan"] = "gold"
    receipts = await make().send(step("imports", Op.UPSERT, *changes))
    assert [r.outcome.value for r in receipts] == ["ok", "ok", "rejected", "ok"]
    assert receipts[2].error == "plan cannot be gold"
    made = {a["email"]: str(a["id"]) for a in sandbox.dump("accounts")}
    assert [r.remote_id for r in receipts if r.remote_id] == [made["n0@x"], made["n1@x"], made["n3@x"]]


async def test_a_refusal_is_in_the_apps_words_and_a_missing_one_to_remove_is_gone(make: Make) -> None:
    app = make()
    with pytest.raises(Refused, match="a1@x is taken"):
        await app.send(step("accounts", Op.UPDATE, ("2", {"email": "a1@x"})))
    [gone] = await app.send(step("accounts", Op.REMOVE, ("4711", {})))
    assert gone.outcome is Outcome.OK
    nameless = step("accounts", Op.UPDATE, (None, {"name": "x"}))
    [held] = await app.send(nameless)
    assert (held.outcome, held.error) == (Outcome.REJECTED, "id has no value, which the path '/accounts/{id}' needs")


async def test_a_fetch_shows_the_present_and_what_is_gone(make: Make, sandbox: HttpSandbox) -> None:
    sandbox.change(3, {"deleted": True})
    rows = {r["id"]: r for r in (await make().fetch("accounts", ["2", "3", "4711"])).table.to_pylist()}
    assert {n: r["_deleted"] for n, r in rows.items()} == {2: False, 3: True, 4711: True}
    assert rows[2]["name"] == "A 2"
    assert "_gone" not in rows[4711]


async def test_the_limit_of_the_block_is_the_accounts_budget(make: Make) -> None:
    app = make(limit={"calls": 30, "per": 60})
    assert app.api.budget is not None
    assert (app.api.budget.calls, app.api.budget.window) == (30, 60)


TEXT = st.text(min_size=1).filter(lambda s: s.strip() != "" and s not in (".", ".."))


@given(key=TEXT, value=TEXT, remote=TEXT)
def test_whatever_fills_a_template_stays_one_value(key: str, value: str, remote: str) -> None:
    filling = Filling({"name": value, "day": date(2026, 1, 2)}, {"code": key}, remote, "s:1")
    path = path_of("/a/{code}/b/{id}", filling)
    assert path == f"/a/{quote(key, safe='')}/b/{quote(remote, safe='')}"
    assert unquote(path.split("/")[2]) == key
    body = maker({"id": "$id", "k": "$key.code", "n": ["$field.name", "$$5"], "...": "$record"})(filling)
    said = orjson.loads(orjson.dumps(body, default=plain))
    assert said == {"id": remote, "k": key, "n": [value, "$5"], "name": value, "day": "2026-01-02"}


def test_a_place_without_a_value_is_named() -> None:
    with pytest.raises(Missing, match="code has no value"):
        path_of("/a/{code}", Filling({}, {}, "1", "s"))


PROJECT = """\
name: shop
models: {{engine: none}}
apps:
  billing:
    type: http
    base_url: http://127.0.0.1:9
    streams:
      accounts: {{path: /a, key: id, columns: {{id: integer}}}}
    objects:
      accounts:
        fields: {{name: text}}
        {line}
"""
MISTAKES = [
    ("create: {path: '/a/{id'}", "12: billing.objects.accounts.create.path: '/a/{id' has a brace too many"),
    ("create: {path: /a, body: $recrd}", "'$recrd' is no place; there are $record, $records"),
    ("create: {path: /a, batch: 10}", "a batch needs a body with"),
    ("create: {path: /a, replay: key}", "replay: key needs idempotency"),
    ("create: {path: /a, methd: PUT}", "unknown key 'methd'"),
    ("fetch: /a/{id}", "takes nothing: add create, update"),
    ("create: {path: /a}\n        stream: accouns", "there is no stream 'accouns'"),
]


@pytest.mark.parametrize(("line", "says"), MISTAKES, ids=[m[1][:24] for m in MISTAKES])
def test_a_mistake_in_the_block_is_told_with_its_line(tmp_path: Path, line: str, says: str) -> None:
    (tmp_path / "oploop.yml").write_text(PROJECT.format(line=line))
    with pytest.raises(FixConfig) as e:
        make_app(load_project(tmp_path, {}).apps["billing"], Runtime())
    assert "oploop.yml:" in str(e.value)
    assert says in str(e.value)


async def test_what_changes_behind_a_page_that_has_gone_by_comes_with_the_next_read(
    make: Make, sandbox: HttpSandbox
) -> None:
    app, cursor, seen = make(), None, 0
    async for batch in app.read("accounts", None, ReadOptions()):
        seen += 1
        if seen == 1:
            sandbox.advance(60)
            sandbox.change(1, {"name": "early"})  # its page has gone by
            sandbox.advance(240)
            sandbox.change(120, {"name": "late"})  # a later page shows a later time
        cursor = batch.cursor or cursor
    later = {r["id"]: r["name"] for b in await read(app, cursor) for r in b.table.to_pylist()}
    assert (later[1], later[120]) == ("early", "late")


async def test_a_list_that_is_not_in_the_order_that_the_block_says_is_told(make: Make, sandbox: HttpSandbox) -> None:
    since = {**ACCOUNTS["since"], "column": "created", "sorted": True}
    app = make({"since": since, "version": None, "columns": {**ACCOUNTS["columns"], "created": "unix"}})
    for times in ([3, 2], [1, None]):
        records = [{"id": n, "created": at} for n, at in enumerate(times)]
        body = orjson.dumps({"data": {"accounts": records}, "next_cursor": "x|1"}).decode()
        sandbox.faults.append(Fault("GET /accounts", "status", status=200, body=body))
        with pytest.raises(FixData, match=r"the records do not come in the order of created — remove `since\.sorted`"):
            await read(app)


async def test_an_app_that_gives_less_than_was_asked_for_is_read_to_its_end(make: Make, sandbox: HttpSandbox) -> None:
    app = make(
        {"paging": {"offset": "offset", "size": 500, "size_param": "limit"}, "since": None}
    )  # 50 a page, whatever
    assert sorted(ids(await read(app))) == list(range(1, 126))


async def test_a_page_that_comes_again_ends_the_read_with_a_word(make: Make) -> None:
    stuck = make({"paging": {"cursor": "data.accounts.0.id", "param": "nothing"}, "since": None})
    with pytest.raises(FixData, match="the next page was read before"):
        await read(stuck)


@pytest.mark.parametrize("following", [["a"], {"a": 1}])
async def test_a_cursor_that_is_none_is_told(make: Make, sandbox: HttpSandbox, following: Any) -> None:
    body = orjson.dumps({"data": {"accounts": []}, "next_cursor": following}).decode()
    sandbox.faults.append(Fault("GET /accounts", "status", status=200, body=body))
    with pytest.raises(FixData, match="'next_cursor' is no cursor"):
        async for _ in make({"paging": {"cursor": "next_cursor", "param": "cursor"}}).read(
            "accounts", None, ReadOptions()
        ):
            pass


@pytest.mark.parametrize("instant", ["1" + "0" * 400, '"nan"', '"inf"', "-1e15", "1e300"])
async def test_an_instant_of_no_year_is_none_and_reading_goes_on(
    make: Make, sandbox: HttpSandbox, instant: str
) -> None:
    columns = {"id": "integer", "u": "unix"}
    since = {"param": "updated_since", "column": "u", "format": "unix"}
    app = make({"columns": columns, "since": since, "version": "u", "deleted": None, "paging": None}, objects={})
    cursor = None
    for _ in range(2):  # the second read asks from what the first has seen
        body = f'{{"data": {{"accounts": [{{"id": 1, "u": {instant}}}]}}}}'
        sandbox.faults.append(Fault("GET /accounts", "status", status=200, body=body))
        batches = [b async for b in app.read("accounts", cursor, ReadOptions())]
        assert sum(b.table.num_rows for b in batches) == 1
        cursor = batches[-1].cursor


async def test_an_error_in_a_good_answer_is_a_refusal_and_silence_is_unknown(make: Make, sandbox: HttpSandbox) -> None:
    app = make()
    wrong = Fault("PATCH /accounts", "status", status=200, body='{"error": {"message": "bad plan"}}')
    sandbox.faults += [wrong]
    [receipt] = await app.send(step("accounts", Op.UPDATE, ("2", {"plan": "pro"})))
    assert (receipt.outcome, receipt.error) == (Outcome.REJECTED, "bad plan")
    sure = make(objects={"accounts": {**OBJECTS["accounts"], "update": {"path": "/accounts/{id}", "ok": {"id": 2}}}})
    sandbox.faults.append(Fault("POST /accounts/2", "status", status=204))
    [receipt] = await sure.send(step("accounts", Op.UPDATE, ("2", {"plan": "pro"})))
    assert receipt.outcome is Outcome.UNKNOWN


async def test_results_that_leave_records_out_are_nobodys(make: Make, sandbox: HttpSandbox) -> None:
    by_index = {**OBJECTS["imports"], "upsert": {**OBJECTS["imports"]["upsert"], "by": "index"}}
    sandbox.faults.append(
        Fault("batch", "status", status=200, body='{"results": [{"status": "refused", "error": "bad"}]}')
    )
    changes = [(None, {"email": f"n{i}@x"}) for i in range(3)]
    receipts = await make(objects={"imports": by_index}).send(step("imports", Op.UPSERT, *changes))
    assert [r.outcome for r in receipts] == [Outcome.UNKNOWN] * 3


UNUSUAL = [{"...": "$record", "id": "$id"}, {"n": "$field.name"}, {"x": 5}, {"in": {"id": "$id"}}, "$id", ["$record"]]


@pytest.mark.parametrize(
    "template",
    [
        *("$record", {"id": "$id", "...": "$record"}, {"k": "$key.code", "n": "$key.none"}),
        *({"name": "$key.code", "...": "$record"}, *UNUSUAL),
    ],
)
def test_many_records_made_at_once_are_those_made_one_by_one(template: Any) -> None:
    """And what is too unusual for that is not tried."""
    keys, remotes = ["a", "b", "c"], ["1", None, "x"]
    fields = [{"name": "é", "n": 1}, {}, {"day": date(2026, 1, 2)}]
    rows = pa.RecordBatch.from_pydict({"__number": [1, 2, 3], "__remote": remotes})
    made = [
        Change(i, Op.UPDATE, {"code": k}, f, r) for i, (k, f, r) in enumerate(zip(keys, fields, remotes, strict=True))
    ]
    chunk = Chunk(rows, [("code", "k0")], [], lambda _: made, lambda _: fields, lambda _: {"code": keys})
    many = rows_maker(template)
    if many is None:
        assert template in UNUSUAL
        return
    one = maker(template)
    singly = [one(Filling(c.fields, c.key, c.remote_id, "s", whole_id=True)) for c in made]
    assert many(Columns(chunk, 0, 3), True) == singly
    assert many(Columns(chunk, 1, 2), True) == singly[1:2]
    assert fields == [{"name": "é", "n": 1}, {}, {"day": date(2026, 1, 2)}], "the changes themselves stay as they were"


@pytest.mark.parametrize("packed", [True, False])
async def test_large_bodies_go_packed_where_the_block_says_so(packed: bool) -> None:
    seen: list[Request] = []

    async def wire(request: Request) -> Answer:
        seen.append(request)
        return Answer(200, {}, b"{}", request)

    app = HttpApp("crm", HttpConfig(base_url="http://127.0.0.1:9", gzip=packed), Runtime())
    app.api._send = wire
    for text in ("short", "long " * 1000):
        await app.api.request("POST", "x", json={"text": text})
    await app.aclose()
    assert [r.headers.get("Content-Encoding") for r in seen] == [None, "gzip" if packed else None]
    body = seen[1].body or b""
    assert orjson.loads(gzip.decompress(body) if packed else body) == {"text": "long " * 1000}


def test_an_id_is_a_number_where_the_app_has_numbers_and_no_step_of_an_address() -> None:
    filling = Filling({}, {}, "5", "s", whole_id=True)
    assert maker({"id": "$id"})(filling) == {"id": 5}
    with pytest.raises(Missing, match="cannot stand in the path"):
        path_of("/a/{id}/x", Filling({}, {}, "..", "s"))


# -- the account's key in the address, its limit in headers, records that have changed --------------------------------


async def test_a_key_in_the_address_goes_with_each_call_and_is_told_to_nobody(
    make: Make, sandbox: HttpSandbox, tmp_path: Path
) -> None:
    secret = "http_test_oploop"
    trace = HttpTrace(tmp_path / "trace")
    block = {**HttpSandbox.default_config(sandbox.url), "auth": {"query": "token", "value": secret}}
    paged = {**ACCOUNTS, "paging": {"link": "next"}}
    app = HttpApp("billing", HttpConfig(**{**block, "streams": {"accounts": paged}}), replace(Runtime(), trace=trace))
    assert len(ids(await read(app))) == 125
    sandbox.faults.append(Fault("GET /me", "status", status=400, body=f'{{"error": "no {secret}"}}'))
    with pytest.raises(Refused) as told:
        await app.api.request("GET", "me")
    await app.aclose()
    trace.close()
    assert secret not in str(told.value)
    assert secret not in (tmp_path / "trace").read_text()
    other = HttpApp("b", HttpConfig(**{**block, "auth": {"query": "token", "value": "wrong"}}), Runtime())
    with pytest.raises(FixConfig, match=r"check auth\.value"):
        await other.check()
    assert other.api.account() != app.api.account()
    await other.aclose()


async def test_headers_that_tell_the_limit_set_the_budget(make: Make, sandbox: HttpSandbox) -> None:
    names = {"limit": "X-RateLimit-Limit", "remaining": "X-RateLimit-Remaining", "reset": "X-RateLimit-Reset"}
    sandbox.limit = 40
    app = make(limit={"calls": 1000, "per": 60, "headers": names})
    await app.check()
    assert app.api.budget is not None
    assert app.api.budget.calls == 40
    policy = app.api.policy
    for reset, seconds in (("12", 12.0), ("1900000012", 12.0), ("soon", None)):
        date_ = format_datetime(datetime.fromtimestamp(1900000000, UTC), usegmt=True)
        headers = {"x-ratelimit-remaining": "3", "x-ratelimit-reset": reset, "date": date_}
        quota = policy.quota(Answer(200, headers, b"{}", Request("GET", "http://x/")))
        assert quota == Quota(None, 3, seconds)


async def test_a_429_holds_all_calls_as_long_as_it_says_and_nothing_is_lost(make: Make, sandbox: HttpSandbox) -> None:
    app = make()
    sandbox.faults.append(Fault("PATCH", "status", status=429, headers={"Retry-After": "0.3"}, times=2))
    began = time.monotonic()
    [receipt] = await app.send(step("accounts", Op.UPDATE, ("1", {"name": "New"})))
    assert (receipt.outcome, sandbox.accounts[1]["name"]) == (Outcome.OK, "New")
    assert time.monotonic() - began >= 0.6


async def test_a_conditional_update_leaves_a_record_that_has_changed(make: Make, sandbox: HttpSandbox) -> None:
    app = make()
    held = {n: {"updated_at": sandbox.accounts[n]["updated_at"]} for n in (1, 2)}
    sandbox.advance(1)
    sandbox.change(2, {"plan": "team"})

    def update(n: int) -> Step:
        change = Change(1, Op.UPDATE, {"email": f"a{n}@x"}, {"name": "New"}, str(n), as_read=held[n])
        return Step("01STEP", "a_sync", "accounts", Op.UPDATE, [change], conditional=True)

    [done], [changed] = await app.send(update(1)), await app.send(update(2))
    assert (done.outcome, changed.outcome) == (Outcome.OK, Outcome.CHANGED)
    assert (sandbox.accounts[1]["name"], sandbox.accounts[2]["name"]) == ("New", "A 2")


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({}, True),
        ({"params": {"sort": "id"}}, False),
        ({"since": {"param": "updated_since", "column": "updated_at", "sorted": True}}, False),
        ({"paging": {"cursor": "next_cursor", "param": "cursor"}}, False),
    ],
)
async def test_pages_that_are_counted_in_no_order_are_named(make: Make, more: dict[str, Any], told: bool) -> None:
    counted = {"page": "page", "size": 50, "size_param": "per_page"}
    said = (await make({"paging": counted, "since": None, **more}).check()).line
    assert ("accounts: pages are counted" in said) is told


async def test_an_instant_whose_records_never_rest_ends_the_read_and_loses_none(
    make: Make, sandbox: HttpSandbox
) -> None:
    instant = "2026-01-01T00:00:00.000+00:00"
    sandbox.load("accounts", [{"id": n, "name": f"A {n}", "updated_at": instant} for n in range(1, 161)])
    turns = iter(range(1, 161))
    changing = Fault("GET /accounts", "then", times=10_000, then=lambda: sandbox.change(next(turns), {"name": "new"}))
    sandbox.faults.append(changing)
    since = {"param": "updated_since", "column": "updated_at", "sorted": True}
    counted = {"page": "page", "size": 10, "size_param": "per_page"}
    app = make({"paging": counted, "since": since})
    with pytest.raises(RetryLater, match="of one instant keep changing"):
        async for _ in app.read("accounts", None, ReadOptions()):
            pass
