"""Credentials and declarations."""

from __future__ import annotations

from collections.abc import AsyncIterator
from fnmatch import fnmatchcase
from typing import Any

from oploop.apps.conformance.cases import Suite, refusal, run
from oploop.apps.sandbox import Fault
from oploop.errors import FixConfig
from oploop.records import Batch, Column, Op, ReadOptions, Replay


class Checking(Suite):
    """`check` says who we are, or which key is wrong; what is declared fits together."""

    def test_good_credentials_say_whose_account_it_is(self) -> None:
        async def work() -> None:
            async with self.bench() as bench:
                account = await bench.app.check()
                assert account.line, "check does not say whose account it is"

        run(work)

    def test_each_wrong_credential_is_named(self) -> None:
        async def work() -> None:
            for key, value in self.wrong_credentials.items():
                wrong: dict[str, Any] = {key: value}
                async with self.bench(**wrong) as bench:
                    said = await refusal(bench.app.check())
                    assert isinstance(said, FixConfig), f"{key} is wrong, and check said {said!r}"
                    assert key in str(said), f"{key} is wrong, and the message does not name it: {said}"
                    assert value not in str(said), f"the message repeats the credential {key}"

        run(work)

    def test_what_is_no_api_is_said_to_be_none(self) -> None:
        async def work() -> None:
            for action in ("html", "truncate", "empty") if self.http else ():
                async with self.bench() as bench:
                    bench.sandbox.faults.append(Fault(".*", action, times=99))
                    said = await refusal(bench.app.check())
                    assert isinstance(said, FixConfig), f"{action}: check said {said!r}"

        run(work)

    def test_all_that_is_declared_is_tried(self) -> None:
        async def work() -> None:
            async with self.bench() as bench:
                app = bench.app
                self._all_tried("stream", list(app.streams), {c.stream for c in self.streams})
                written = [name for name, obj in app.objects.items() if obj.operations]
                self._all_tried("object", written, {c.object for c in self.objects})

        run(work)

    def _all_tried(self, what: str, declared: list[str], cases: set[str]) -> None:
        left = [n for n in declared if n not in cases and not any(fnmatchcase(n, e) for e in self.elsewhere)]
        assert not left, f"no case tries the {what}s {', '.join(left)}: add some, or name them in `elsewhere`"

    def test_declarations_fit_together(self) -> None:
        async def work() -> None:
            async with self.bench() as bench:
                app = bench.app
                for stream in app.streams.values():
                    missing = set(stream.primary_key) - set(stream.columns)
                    assert not missing, f"{stream.name}: key columns {missing} are no columns"
                for name, obj in app.objects.items():
                    assert obj.operations or obj.stream, f"{name} can be neither written nor referred to"
                    assert obj.stream is None or obj.stream in app.streams, f"{name}: no stream {obj.stream!r}"
                    for field_name, field in (await app.describe(name)).items():
                        if isinstance(field.source, Column) and obj.stream is not None:
                            columns = app.streams[obj.stream].columns
                            assert field.source.name in columns, f"{name}.{field_name}: no column {field.source.name}"
                    for op, operation in obj.operations.items():
                        assert operation.batch >= 1, f"{name} {op}: batch"
                        assert operation.replay is not Replay.KEY or operation.ttl, f"{name} {op}: a key without ttl"
                        assert operation.replay is not Replay.LOOKUP or op is not Op.UPDATE or obj.stream, (
                            f"{name} {op}: cannot be looked up"
                        )

        run(work)

    def test_credentials_that_expire_in_mid_run_stop_it_and_are_named(self) -> None:
        async def work() -> None:
            for case in self.streams:
                if case.calls is None:
                    continue
                async with self.bench() as bench:
                    bench.sandbox.load(case.kind, [case.record(i) for i in range(case.count)])
                    bench.sandbox.faults.append(Fault(case.calls, "status", status=401, body="{}", times=99))
                    said = await refusal(_drain(bench.app.read(case.stream, None, ReadOptions())))
                    assert isinstance(said, FixConfig), f"{case.stream}: a 401 in mid-read was {said!r}"
                    assert self.names_credential(said), f"{case.stream}: a 401 in mid-read names no credential: {said}"

        run(work)


async def _drain(batches: AsyncIterator[Batch]) -> None:
    async for _ in batches:
        pass
