"""Writes whose answers are garbled: under each replay declaration, singly and in batches, done and not done. Nothing is doubled, nothing
told as sent that was not, and nothing as not sent that may have been."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import orjson
import pytest

from oploop.apps.conformance import Bench, ObjectCase
from oploop.apps.http import HttpApp, HttpSandbox
from oploop.apps.http.config import HttpConfig
from oploop.apps.http.sandbox import OBJECTS
from oploop.apps.sandbox import Fault
from oploop.errors import OploopError
from oploop.records import Op, Outcome, Receipt
from oploop.runtime import Runtime

IMPORTS = OBJECTS["imports"]["upsert"]
BATCH = {"path": "/accounts/batch", "batch": 100, "body": {"records": "$records"}}
#: Ways of making accounts, with what each may be told of an answer.
WAYS: dict[str, dict[str, Any]] = {
    "safe": {"create": {"path": "/accounts", "idempotency": "Idempotency-Key", "replay": "safe"}},
    "key": {"create": {"path": "/accounts", "idempotency": "Idempotency-Key"}},
    "lookup": {"create": {"path": "/accounts", "replay": "lookup"}},
    "never": {"create": {"path": "/accounts"}},
    "never, ok": {"create": {"path": "/accounts", "ok": {"status": "ok"}}},
    "batch": {"upsert": {**IMPORTS}},
    "batch, never": {"create": {**IMPORTS, "keys": [], "replay": "never"}},
    "batch, never, without ok": {"create": {**IMPORTS, "keys": [], "ok": {}, "replay": "never"}},
    "batch, never, by index": {"create": {**IMPORTS, "keys": [], "by": "index", "replay": "never"}},
    "batch, never, without results": {"create": {**BATCH, "replay": "never"}},
    "batch, never, without results, ok": {"create": {**BATCH, "ok": {"done": True}, "replay": "never"}},
}
#: What comes back for two accounts that were made.
SAID: dict[str, tuple[str, dict[str, str]]] = {
    "nothing": ("", {}),
    "HTML": ("<!doctype html><title>Sign in</title>", {"Content-Type": "text/html"}),
    "HTML as JSON": ("<p>", {}),
    "cut off": ('{"results": [{"email": "new0@acme.exam', {}),
    "no gzip": ("{}", {"Content-Encoding": "gzip"}),
    **{body: (body, {}) for body in ("[]", "{}", "null", "5", '"ok"', "true", "[null]", "[[]]", "NaN")},
    **{
        name: (orjson.dumps({"results": results}).decode(), {})
        for name, results in {
            "no results": None,
            "results that are a number": 5,
            "empty results": [],
            "null results": [None, None],
            "results that are texts": ["ok", "ok"],
            "results without a word": [{}, {}],
            "one result": [{"email": "new0@acme.example", "status": "ok"}],
            "one result twice": [{"email": "new0@acme.example", "status": "ok"}] * 2,
            "strangers": [{"email": "a@x", "status": "ok"}, {"email": "b@x", "status": "ok"}],
            "one index twice": [{"index": 0, "status": "ok"}, {"index": 0, "status": "refused", "error": "bad"}],
            "indexes of nobody": [{"index": 7, "status": "ok"}, {"index": -1, "status": "ok"}],
            "ids of another kind": [{"email": "new0@acme.example", "status": "ok", "id": {}}],
        }.items()
    },
}
CASE = ObjectCase(
    "accounts",
    fields=lambda i: {"email": f"new{i}@acme.example", "name": f"N {i}"},
    calls="POST /accounts",
    key=("email",),
)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[HttpSandbox]:
    box = HttpSandbox()
    with box.running():
        yield box


@pytest.fixture(params=WAYS)
async def bench(request: pytest.FixtureRequest, sandbox: HttpSandbox) -> AsyncIterator[Bench]:
    sandbox.reset()
    sandbox.faults.clear()
    sandbox.log.clear()
    block = HttpSandbox.default_config(sandbox.url)
    shared = {n: OBJECTS["accounts"][n] for n in ("stream", "fields", "fetch")}
    block["objects"] = {"accounts": {**shared, **WAYS[request.param]}}

    async def at_once(seconds: float) -> None:
        """Waits are none."""

    app = HttpApp("billing", HttpConfig(**block), Runtime(sleep=at_once))
    yield Bench(sandbox, app)
    await app.aclose()


async def delivered(bench: Bench, fault: Fault) -> list[Receipt]:
    """The receipts of two new accounts, as the engine has them."""
    [op] = bench.app.objects["accounts"].operations
    bench.sandbox.faults.append(fault)
    try:
        receipts = list((await bench.deliver(CASE, op, [{"fields": CASE.fields(n)} for n in range(2)])).values())
    except OploopError as e:  # the engine stops there
        receipts = [Receipt(n, Outcome.RETRY, error=str(e)) for n in (1, 2)]
    assert fault.times < 99, "no call met the fault"
    return receipts


def made(bench: Bench) -> dict[str, str]:
    return {a["email"]: str(a["id"]) for a in bench.sandbox.dump("accounts")}


@pytest.mark.parametrize("said", SAID)
async def test_what_was_done_is_never_told_as_not_sent_and_never_done_twice(bench: Bench, said: str) -> None:
    body, headers = SAID[said]
    receipts = await delivered(bench, Fault(CASE.calls or "", "say", status=200, body=body, headers=headers, times=99))
    calls = [e for e in bench.sandbox.log if e.method == "POST"]
    stands = bench.sandbox.dump("accounts")
    assert len({a["email"] for a in stands}) == len(stands), "an account was made twice"
    [operation] = bench.app.objects["accounts"].operations.values()
    unsaid = [r for r in receipts if r.outcome in (Outcome.REJECTED, Outcome.RETRY)]
    if operation.replay.value in ("never", "lookup"):
        assert not unsaid, receipts
        assert len(calls) == (1 if operation.batch > 1 else 2), "what may have been done was sent again"
    for receipt, fields in zip(receipts, (CASE.fields(0), CASE.fields(1)), strict=True):
        if receipt.outcome is Outcome.OK:
            assert fields["email"] in made(bench)
            assert receipt.remote_id in (None, made(bench)[fields["email"]])


@pytest.mark.parametrize("said", [n for n in SAID if n in ("HTML", "HTML as JSON", "cut off", "no gzip", "NaN")])
@pytest.mark.parametrize("status", [200, 201, 202])
async def test_what_was_not_done_is_not_told_as_sent(bench: Bench, said: str, status: int) -> None:
    body, headers = SAID[said]
    fault = Fault(CASE.calls or "", "status", status=status, body=body, headers=headers, times=99)
    receipts = await delivered(bench, fault)
    assert not made(bench)
    assert Outcome.OK not in {r.outcome for r in receipts}, receipts


@pytest.mark.parametrize("error", [False, 0, "", None, [], {}])
async def test_an_error_that_is_none_refuses_nothing(sandbox: HttpSandbox, error: Any) -> None:
    block = HttpSandbox.default_config(sandbox.url)
    app = HttpApp("billing", HttpConfig(**block), Runtime())
    bench = Bench(sandbox, app)
    sandbox.reset()
    sandbox.faults[:] = [
        Fault("POST /accounts", "say", status=200, body=orjson.dumps({"id": 9, "error": error}).decode())
    ]
    [receipt] = (await bench.deliver(CASE, Op.CREATE, [{"fields": CASE.fields(0)}])).values()
    assert (receipt.outcome, receipt.remote_id) == (Outcome.OK, "9")
    await app.aclose()


async def test_two_records_of_a_batch_that_are_called_the_same_have_no_result_of_their_own(
    sandbox: HttpSandbox,
) -> None:
    """Results name accounts by their plan here: nobody knows which is whose."""
    block = HttpSandbox.default_config(sandbox.url)
    block["objects"] = {"imports": {**OBJECTS["imports"], "upsert": {**IMPORTS, "by": "plan"}}}
    results = [{"plan": "pro", "status": "ok", "id": 1}, {"plan": "pro", "status": "refused", "error": "bad"}]
    sandbox.reset()
    for answer in (results, results[::-1], results[:1]):
        sandbox.faults[:] = [
            Fault("POST", "status", status=200, body=orjson.dumps({"results": answer}).decode(), times=9)
        ]
        app = HttpApp("billing", HttpConfig(**block), Runtime())
        case = replace(CASE, object="imports")
        records = [{"fields": {**CASE.fields(n), "plan": "pro"}} for n in range(2)]
        receipts = (await Bench(sandbox, app).deliver(case, Op.UPSERT, records)).values()
        assert {r.outcome for r in receipts} == {Outcome.UNKNOWN}
        await app.aclose()
