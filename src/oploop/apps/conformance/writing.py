"""Every object in every operation that it declares: batches, bad records, refusals, lost answers, and what stands there afterwards."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from oploop.apps.conformance.cases import Bench, ObjectCase, Suite, alike, readable, refusal, run, value_in
from oploop.apps.sandbox import Fault
from oploop.errors import FixConfig, OploopError
from oploop.records import Change, Field, JsonPath, Op, Outcome, Receipt, Replay, Step

#: So many records at the most are written where an object takes larger batches.
MOST = 2_600
#: Answers that are none of the API's: without anything done, and to what was done.
GARBLED = [
    Fault("", "html"),
    Fault("", "truncate"),
    *(
        Fault("", "say", status=200, body=body)
        for body in ("", "<html>", "[]", "{}", "null", "5", '"ok"', "[null]", "[[]]")
    ),
    Fault("", "say", status=200, body="{}", headers={"Content-Encoding": "gzip"}),
    Fault("", "say", status=303, body="", headers={"Location": "/there"}),
    Fault("", "say", status=502, body="<html>"),
]


#: What calls meet: cut off before and after they were done, refused for now, failed, and not there.
FAILING = [
    Fault("", "cut"),
    Fault("", "lose"),
    Fault("", "status", status=429, headers={"Retry-After": "0"}, body="{}"),
    Fault("", "status", status=500, body="{}"),
    Fault("", "say", status=500, body="{}"),
    Fault("", "status", status=404, body="{}", times=9),
]


class Writing(Suite):
    """Objects over an empty sandbox."""

    async def _makers(self) -> AsyncGenerator[tuple[Bench, ObjectCase, Op]]:
        """A bench of its own for each object of which records can be made, and the operation by which they are."""
        for case in self.objects:
            async with self.bench() as bench:
                op = await _making(bench, case)
                if op is not None:
                    yield bench, case, op

    def test_what_was_written_can_be_read_back(self) -> None:
        async def work() -> None:
            for case in self.objects:
                async with self.bench() as bench:
                    ids = await _make(bench, case, 3)
                    if await _making(bench, case) is not None:
                        await _check_back(bench, case, {i: case.fields(n) for n, i in enumerate(ids)})
                    if case.changed is not None and Op.UPDATE in bench.app.objects[case.object].operations:
                        await _change(bench, case, ids)
                        await _check_back(bench, case, {i: case.changed(n) for n, i in enumerate(ids)})

        run(work)

    def test_each_way_of_making_records_makes_them_and_the_same_again_makes_no_others(self) -> None:
        async def work() -> None:
            for case in self.objects:
                for op in (Op.CREATE, Op.UPSERT):
                    async with self.bench() as bench:
                        await bench.app.describe(case.object)
                        operation = bench.app.objects[case.object].operations.get(op)
                        if operation is None or (operation.keys and not set(case.key) <= set(operation.keys)):
                            continue
                        before, records = case.stored(bench.sandbox), [{"fields": case.fields(n)} for n in range(3)]
                        again = op is Op.UPSERT and readable(bench.app.objects[case.object])
                        for _ in range(2 if again else 1):
                            receipts = await bench.deliver(case, op, records)
                            bad = [r for r in receipts.values() if r.outcome is not Outcome.OK]
                            assert not bad, f"{case.object} {op}: {bad[0]}"
                            made = case.stored(bench.sandbox) - before
                            assert made == 3, f"{case.object} {op}: {made} records stand there for 3"
                        sent = {_id(r): case.fields(n) for n, (_, r) in enumerate(sorted(receipts.items()))}
                        await _check_back(bench, case, sent)

        run(work)

    def test_the_largest_batch_and_one_more(self) -> None:
        async def work() -> None:
            async for bench, case, op in self._makers():
                size = min(MOST, bench.app.objects[case.object].operations[op].batch + 1)
                before = case.stored(bench.sandbox)
                receipts = await bench.deliver(case, op, [{"fields": case.fields(n)} for n in range(size)])
                assert len(receipts) == size, f"{case.object}: {size} changes, {len(receipts)} receipts"
                bad = [r for r in receipts.values() if r.outcome is not Outcome.OK]
                assert not bad, f"{case.object}: {bad[0]}"
                made = case.stored(bench.sandbox) - before
                assert made == size, f"{case.object}: {size} were sent, {made} records stand there"

        run(work)

    def test_the_largest_batch_and_one_more_is_changed_and_removed(self) -> None:
        async def work() -> None:
            async for bench, case, _ in self._makers():
                operations = bench.app.objects[case.object].operations
                able = [
                    op for op in (Op.UPDATE, Op.ARCHIVE, Op.REMOVE) if op in operations and operations[op].batch > 1
                ]
                if case.changed is None:
                    able = [op for op in able if op is not Op.UPDATE]
                able = able if Op.REMOVE not in able else [op for op in able if op is not Op.ARCHIVE]
                if not able:
                    continue
                ids = await _make(bench, case, min(MOST, max(operations[op].batch for op in able) + 1))
                for op in able:
                    fields = case.changed if op is Op.UPDATE and case.changed is not None else lambda _: {}
                    changes = [{"fields": fields(n), "remote_id": i, "key": case.fields(n)} for n, i in enumerate(ids)]
                    receipts = await bench.deliver(case, op, changes)
                    assert len(receipts) == len(ids), (
                        f"{case.object} {op}: {len(ids)} changes, {len(receipts)} receipts"
                    )
                    bad = [r for r in receipts.values() if r.outcome is not Outcome.OK]
                    assert not bad, f"{case.object} {op}: {bad[0]}"

        run(work)

    def test_a_key_of_the_models_own_is_not_the_apps(self) -> None:
        """An append's rows may be told apart by columns of which the app knows nothing."""

        async def work() -> None:
            for case in self.objects:
                async with self.bench() as bench:
                    if Op.CREATE not in bench.app.objects[case.object].operations:
                        continue
                    before = case.stored(bench.sandbox)
                    change = Change(1, Op.CREATE, {"row of the model": "7"}, case.fields(0))
                    step = Step(bench.app.runtime.new_id(), "conformance", case.object, Op.CREATE, [change])
                    try:
                        receipts = await bench.send(step)
                    except FixConfig:
                        continue  # it needs a key that it knows, and says so
                    assert receipts[1].outcome is Outcome.OK, f"{case.object}: {receipts[1]}"
                    made = case.stored(bench.sandbox) - before
                    assert made == 1, f"{case.object}: one was sent, {made} records stand there"

        run(work)

    def test_one_bad_record_stops_no_other(self) -> None:
        async def work() -> None:
            for case in self.objects:
                async with self.bench() as bench:
                    op, records = await _trial(bench, case, 7)
                    if case.bad is None or op is None:
                        continue
                    records[3]["fields"] = {**records[3]["fields"], **case.bad}
                    receipts = list((await bench.deliver(case, op, records)).values())
                    outcomes = [r.outcome for r in sorted(receipts, key=lambda r: r.number)]
                    expected = [Outcome.OK] * 3 + [Outcome.REJECTED] + [Outcome.OK] * 3
                    assert outcomes == expected, f"{case.object}: {outcomes}"
                    [refused] = [r for r in receipts if r.outcome is Outcome.REJECTED]
                    assert refused.error, f"{case.object}: a refusal without the app's words"

        run(work)

    def test_credentials_that_expire_before_a_write_stop_it_and_are_named(self) -> None:
        async def work() -> None:
            async for bench, case, op in self._makers():
                if case.calls is None:
                    continue
                before = case.stored(bench.sandbox)
                size = min(4, bench.app.objects[case.object].operations[op].batch)
                new = enumerate(map(case.fields, range(size)), 1)
                changes = [Change(n, op, {k: f.get(k) for k in case.key}, f) for n, f in new]
                step = Step(bench.app.runtime.new_id(), "conformance", case.object, op, changes)
                fault = Fault(case.calls, "status", status=401, body="{}", times=99)
                bench.sandbox.faults.append(fault)
                said = await refusal(bench.app.send(step))
                _was_met(fault, 99, case)
                assert isinstance(said, FixConfig), f"{case.object}: a 401 to a write was {said!r}"
                assert self.names_credential(said), f"{case.object}: a 401 to a write names no credential: {said}"
                made = case.stored(bench.sandbox) - before
                assert not made, f"{case.object}: {made} records were made without credentials"

        run(work)

    def test_a_limit_delays_and_doubles_nothing(self) -> None:
        async def work() -> None:
            for case in self.objects:
                async with self.bench() as bench:
                    op, records = await _trial(bench, case, 4)
                    if op is None or case.calls is None:
                        continue
                    before = case.stored(bench.sandbox)
                    fault = Fault(case.calls, "status", status=429, headers={"Retry-After": "0"}, body="{}", times=2)
                    bench.sandbox.faults.append(fault)
                    receipts = await bench.deliver(case, op, records)
                    _was_met(fault, 2, case)
                    assert [r.outcome for r in receipts.values()] == [Outcome.OK] * 4, f"{case.object}: {receipts}"
                    made, wanted = case.stored(bench.sandbox) - before, 0 if op is Op.UPDATE else 4
                    assert made == wanted, (
                        f"{case.object}: after two refusals for now {made} records stand there, not {wanted}"
                    )

        run(work)

    def test_a_lost_answer_is_unknown_or_done_once(self) -> None:
        async def work() -> None:
            async for bench, case, op in self._makers():
                if case.calls is None:
                    continue
                before = case.stored(bench.sandbox)
                fault = Fault(case.calls, "lose")
                bench.sandbox.faults.append(fault)
                receipts = await bench.deliver(case, op, [{"fields": case.fields(n)} for n in range(2)])
                _was_met(fault, 1, case)
                made = case.stored(bench.sandbox) - before
                known = sum(r.outcome is Outcome.OK for r in receipts.values())
                assert made <= 2, f"{case.object}: an answer was lost, and {made} records stand there for 2"
                assert known <= made, f"{case.object}: {known} acknowledged, {made} made"
                replay = bench.app.objects[case.object].operations[op].replay
                if replay in (Replay.LOOKUP, Replay.NEVER):
                    missing = 2 - made
                    unsaid = sum(r.outcome in (Outcome.REJECTED, Outcome.RETRY) for r in receipts.values())
                    assert unsaid <= missing, f"{case.object}: done, and said to be not"

        run(work)

    def test_an_answer_to_a_write_that_is_none_of_the_apis_is_no_receipt(self) -> None:
        """Done or not: what comes back is HTML, cut off, or JSON of another shape. Nothing is told as sent that was not, nor as
        not sent that may have been, nor made twice."""

        async def work(fault: Fault) -> None:
            async for bench, case, op in self._makers():
                if case.calls is None:
                    continue
                before, garbled = case.stored(bench.sandbox), replace(fault, match=case.calls)
                bench.sandbox.faults.append(garbled)
                records = [{"fields": case.fields(n)} for n in range(2)]
                try:
                    receipts = list((await bench.deliver(case, op, records)).values())
                except OploopError as e:  # the engine stops there, and takes the changes for not sent
                    receipts = [Receipt(n, Outcome.RETRY, error=str(e)) for n in (1, 2)]
                except (LookupError, TypeError, ValueError, AttributeError) as e:  # it goes on with what nobody knows
                    receipts = [Receipt(n, Outcome.UNKNOWN, error=repr(e)) for n in (1, 2)]
                _was_met(garbled, 1, case)
                said = f"{case.object}: {fault.action} {fault.body!r}"
                made = case.stored(bench.sandbox) - before
                known = sum(r.outcome is Outcome.OK for r in receipts)
                assert made <= 2, f"{said}, and {made} records stand there for 2"
                assert known <= made, f"{said}: {known} acknowledged, {made} made"
                unsaid = sum(r.outcome in (Outcome.REJECTED, Outcome.RETRY) for r in receipts)
                if bench.app.objects[case.object].operations[op].replay in (Replay.LOOKUP, Replay.NEVER):
                    assert unsaid <= 2 - made, f"{said}: done, and said to be not: {receipts}"

        for fault in GARBLED if self.http else ():
            run(partial(work, fault))

    def test_an_update_that_is_told_as_sent_stands_there_whatever_its_call_met(self) -> None:
        async def work(fault: Fault) -> None:
            for case in [c for c in self.objects if c.calls is not None]:
                if case.changed is None:
                    continue
                async with self.bench() as bench:
                    ids = await _make(bench, case, 3)
                    if not ids or Op.UPDATE not in bench.app.objects[case.object].operations:
                        continue
                    met = replace(fault, match="^(POST|PUT|PATCH|DELETE) ")
                    bench.sandbox.faults.append(met)
                    records = [
                        {"fields": case.changed(n), "remote_id": i, "key": case.fields(n)} for n, i in enumerate(ids)
                    ]
                    try:
                        receipts = await bench.deliver(case, Op.UPDATE, records)
                    except (OploopError, LookupError, TypeError, ValueError, AttributeError):
                        receipts = {}  # the engine stops there, and takes them for not sent, or for unknown
                    _was_met(met, fault.times, case)
                    bench.sandbox.faults.clear()
                    told = [r.outcome is Outcome.OK for _, r in sorted(receipts.items())]
                    sent = {i: case.changed(n) for n, (i, ok) in enumerate(zip(ids, told, strict=False)) if ok}
                    await _check_back(bench, case, sent)

        for fault in (*FAILING, *GARBLED):
            run(partial(work, fault))

    def test_what_an_answer_does_not_attest_is_not_sent(self) -> None:
        """Success is said to each write, of nothing, and nothing is done: by `{}`, by no words at all, and in the vendor's own ones."""

        async def tried(bench: Bench, case: ObjectCase, op: Op, records: list[dict[str, Any]], body: str) -> None:
            hollow = Fault("^(POST|PUT|PATCH|DELETE) ", "status", status=200, body=body, times=99)
            bench.sandbox.faults[:] = [hollow]
            try:
                receipts = list((await bench.deliver(case, op, records)).values())
            except (OploopError, LookupError, TypeError, ValueError, AttributeError):
                receipts = []  # the engine stops there, and takes them for not sent, or for unknown
            _was_met(hollow, 99, case)
            sent = [r for r in receipts if r.outcome is Outcome.OK]
            assert not sent, f"{case.object} {op}: the answer was {body!r}, nothing was done, and it is told as sent"

        async def work() -> None:
            for case in [c for c in self.objects if c.calls is not None]:
                for op in [op for op in Op if op not in case.silent]:
                    async with self.bench() as bench:
                        records = await _to_write(bench, case, op)
                        await bench.app.check()  # tokens are asked for by a POST too
                        for body in ("{}", "", *case.nothing) if records else ():
                            await tried(bench, case, op, records, body)

        run(work)

    def test_a_step_with_an_idempotency_key_is_done_once(self) -> None:
        async def work() -> None:
            async for bench, case, op in self._makers():
                if bench.app.objects[case.object].operations[op].replay is not Replay.KEY:
                    continue
                before = case.stored(bench.sandbox)
                again = await _twice(bench, case, op)
                assert case.stored(bench.sandbox) - before == 1, f"{case.object}: the same step made two records"
                assert again.outcome is Outcome.OK, f"{case.object}: the same step again was {again}"

        run(work)

    def test_removing_and_archiving_are_done_and_may_be_said_twice(self) -> None:
        async def work() -> None:
            for case in self.objects:
                for op in (Op.REMOVE, Op.ARCHIVE):
                    async with self.bench() as bench:
                        if op not in bench.app.objects[case.object].operations or await _making(bench, case) is None:
                            continue
                        ids = await _make(bench, case, 3)
                        gone = [{"fields": {}, "remote_id": i, "key": case.fields(n)} for n, i in enumerate(ids[:2])]
                        for _ in range(2):
                            receipts = await bench.deliver(case, op, gone)
                            bad = [r for r in receipts.values() if r.outcome is not Outcome.OK]
                            assert not bad, f"{case.object} {op}: {bad[0]}"
                        if readable(bench.app.objects[case.object]):
                            assert set(await _rows(bench, case, ids)) == {ids[2]}, f"{case.object} {op}: not gone"

        run(work)


def _was_met(fault: Fault, times: int, case: ObjectCase) -> None:
    """A fault that no call met proves nothing."""
    assert fault.times < times, f"{case.object}: no call that wrote it was {case.calls!r}"


async def _making(bench: Bench, case: ObjectCase) -> Op | None:
    """The operation that makes records of the case: the one whose key the app itself knows, where it has one."""
    await bench.app.describe(case.object)  # an app may learn its operations from the account
    operations = bench.app.objects[case.object].operations
    upsert = operations.get(Op.UPSERT)
    if upsert is not None and (Op.CREATE not in operations or set(case.key) <= set(upsert.keys)):
        return Op.UPSERT
    return Op.CREATE if Op.CREATE in operations else None


async def _trial(bench: Bench, case: ObjectCase, count: int) -> tuple[Op | None, list[dict[str, Any]]]:
    """An operation to try, and records for it: new ones, or changes of those that are there."""
    op = await _making(bench, case)
    if op is not None:
        return op, [{"fields": case.fields(n)} for n in range(count)]
    ids = await _make(bench, case, count)
    if not ids or case.changed is None:
        return None, []
    return Op.UPDATE, [{"fields": case.changed(n), "remote_id": i, "key": case.fields(n)} for n, i in enumerate(ids)]


async def _to_write(bench: Bench, case: ObjectCase, op: Op) -> list[dict[str, Any]]:
    """Two records for an operation: new ones, or what is to become of those that are there; none where the object has it not."""
    await bench.app.describe(case.object)
    operation = bench.app.objects[case.object].operations.get(op)
    if operation is None or (operation.keys and not set(case.key) <= set(operation.keys)):
        return []
    if op in (Op.CREATE, Op.UPSERT):
        return [{"fields": case.fields(n)} for n in range(2)]
    if op is Op.UPDATE and case.changed is None:
        return []
    changed = case.changed if op is Op.UPDATE and case.changed is not None else lambda _: {}
    ids = await _make(bench, case, 2)
    return [{"fields": changed(n), "remote_id": i, "key": case.fields(n)} for n, i in enumerate(ids)]


async def _make(bench: Bench, case: ObjectCase, count: int) -> list[str]:
    op = await _making(bench, case)
    if op is None:
        return case.existing(bench.sandbox, count) if case.existing is not None else []
    receipts = await bench.deliver(case, op, [{"fields": case.fields(n)} for n in range(count)])
    bad = [r for r in receipts.values() if r.outcome is not Outcome.OK]
    assert not bad, f"{case.object}: {bad[0]}"
    return [_id(receipts[n]) for n in sorted(receipts)]


async def _change(bench: Bench, case: ObjectCase, ids: list[str]) -> None:
    assert case.changed is not None
    changes = [{"fields": case.changed(n), "remote_id": i, "key": case.fields(n)} for n, i in enumerate(ids)]
    receipts = await bench.deliver(case, Op.UPDATE, changes)
    assert all(r.outcome is Outcome.OK for r in receipts.values()), f"{case.object}: {receipts}"


async def _twice(bench: Bench, case: ObjectCase, op: Op) -> Receipt:
    fields = case.fields(0)
    change = Change(1, op, {k: fields.get(k) for k in case.key}, fields)
    step = Step(bench.app.runtime.new_id(), "conformance", case.object, op, [change])
    await bench.send(step)
    return (await bench.send(step))[1]


def _id(receipt: Receipt) -> str:
    return receipt.remote_id or ""


async def _rows(bench: Bench, case: ObjectCase, ids: list[str]) -> dict[str, dict[str, Any]]:
    """The live records with these ids, as the app shows them now."""
    obj = bench.app.objects[case.object]
    table = (await bench.app.fetch(case.object, ids)).table
    return {str(r[obj.id_column]): r for r in table.to_pylist() if not r["_deleted"]}


async def _check_back(bench: Bench, case: ObjectCase, expected: Mapping[str, Mapping[str, Any]]) -> None:
    obj = bench.app.objects[case.object]
    if not readable(obj) or not expected:
        return
    assert all(expected), f"{case.object}: a new record's id was not told"
    described = await bench.app.describe(case.object)
    rows = await _rows(bench, case, list(expected))
    for remote_id, fields in expected.items():
        for name, sent in fields.items():
            field = described.get(name) or _dynamic(bench, case, name)
            if field is not None and field.source is not None:
                held = value_in(rows[remote_id], field.source)
                assert alike(sent, held, field.type), f"{case.object}.{name}: {sent!r} was sent, {held!r} stands there"


def _dynamic(bench: Bench, case: ObjectCase, name: str) -> Field | None:
    for prefix, template in bench.app.objects[case.object].dynamic.items():
        if name.startswith(prefix) and isinstance(template.source, JsonPath):
            path = (*template.source.path, name.removeprefix(prefix))
            return replace(template, name=name, source=JsonPath(template.source.column, path))
    return None
