"""Every stream, full and incremental: nothing lost, nothing invented, whatever happens on the way."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from functools import partial
from typing import Any, cast

from oploop.apps.conformance.cases import Bench, Raw, StreamCase, Suite, run
from oploop.apps.paging import MOST
from oploop.apps.sandbox import Fault, Sandbox
from oploop.records import EXTRACTED_AT, RAW, VERSION, Batch, Deletes, ReadOptions, Stream

#: Seconds in which a reader that reads on would do so.
PAUSE = 0.05
#: Batches after which a read is broken off to see what it leaves open.
MOST_STOPS = 6
#: Records that people change, or take away, while a stream is read: at each page one.
MEDDLED = 12


class Reading(Suite):
    """Streams over a sandbox that holds `StreamCase.count` records."""

    def test_a_full_read_brings_every_record_with_its_columns(self) -> None:
        async def work() -> None:
            for case in self.streams:
                async with self.bench() as bench:
                    raw = await _filled(bench, case)
                    await raw.read(bench.app)
                    expected = _keys(case, raw.stream)
                    assert expected <= set(raw.live()), f"{case.stream}: lost {expected - set(raw.live())}"
                    more = set(raw.live()) - expected - await self._there_anyway(case)
                    assert not more, (
                        f"{case.stream}: records come that nobody made, or twice: {sorted(map(str, more))[:3]}"
                    )
                    for row in raw.rows.values():
                        lost = set(raw.stream.columns) - set(row)
                        assert not lost, f"{case.stream}: declared columns {lost} do not come"
                        assert isinstance(row[VERSION], int), f"{case.stream}: a row's version is {row[VERSION]!r}"
                        assert row[EXTRACTED_AT] is not None, f"{case.stream}: a row without the time of its read"
                        assert row[RAW], f"{case.stream}: a row without its record as JSON"

        run(work)

    async def _there_anyway(self, case: StreamCase) -> set[Any]:
        """The keys of what an account has before anything is loaded into it."""
        async with self.bench() as bench:
            raw = Raw(bench.app.streams[case.stream])
            await raw.read(bench.app)
            return set(raw.live())

    def test_a_second_read_with_nothing_new_brings_nothing_lost(self) -> None:
        async def work() -> None:
            for case in self.streams:
                async with self.bench() as bench:
                    raw = await _filled(bench, case)
                    await raw.read(bench.app)
                    before = set(raw.live())
                    bench.sandbox.advance(raw.stream.lag + 1)
                    await raw.read(bench.app)
                    assert set(raw.live()) == before, f"{case.stream}: a second read changed what is there"

        run(work)

    def test_a_read_may_be_broken_off_after_any_batch(self) -> None:
        async def work() -> None:
            for case in self.streams:
                async with self.bench() as bench:
                    whole = await _filled(bench, case)
                    await whole.read(bench.app)
                    for stop in range(1, len(whole.batches) + 1):
                        part = Raw(whole.stream)
                        await part.read(bench.app, stop_after=stop)
                        await part.read(bench.app)
                        lost = set(whole.live()) - set(part.live())
                        assert not lost, f"{case.stream}: broken off after batch {stop}, {len(lost)} records are lost"

        run(work)

    def test_a_read_asks_for_few_pages_ahead_and_for_none_once_it_is_broken_off(self) -> None:
        async def work() -> None:
            for case in [c for c in self.streams if c.calls is not None][:1]:
                async with self.bench() as bench:
                    raw, wire = await _filled(bench, case), bench.app.transport
                    if wire is None:
                        continue
                    before = asyncio.all_tasks()
                    reading = cast("AsyncGenerator[Batch]", bench.app.read(raw.stream.name, None, ReadOptions()))
                    async with aclosing(reading):
                        await anext(reading)
                        calls = wire.calls
                        await asyncio.sleep(PAUSE)  # nobody takes what comes
                        assert wire.calls <= calls + MOST, (
                            f"{case.stream}: {wire.calls - calls} calls ahead of a reader"
                        )
                    calls = wire.calls
                    left = asyncio.all_tasks() - before
                    assert not left, f"{case.stream}: broken off, and it goes on: {left}"
                    await asyncio.sleep(PAUSE)
                    assert wire.calls == calls, f"{case.stream}: broken off, and it goes on asking"

        run(work)

    def test_a_read_that_is_broken_off_closes_what_it_read_from(self) -> None:
        """A generator that is left to be closed some time later may ask on, or hold a file or a place in the budget, until then."""

        async def work() -> None:
            for case in self.streams:
                async with self.bench() as bench:
                    whole = await _filled(bench, case)
                    await whole.read(bench.app)
                    for stop in range(1, min(len(whole.batches), MOST_STOPS) + 1):
                        with _begun_generators() as begun:
                            await Raw(whole.stream).read(bench.app, stop_after=stop)
                        left = [g.__qualname__ for g in begun if g.ag_frame is not None]
                        assert not left, (
                            f"{case.stream}: broken off after batch {stop}, and not closed: {', '.join(left)}; "
                            "take from a generator within contextlib.aclosing"
                        )

        run(work)

    def test_changes_and_deletes_come_with_the_next_read(self) -> None:
        async def work() -> None:
            for case in self.streams:
                async with self.bench() as bench:
                    raw = await _filled(bench, case)
                    await raw.read(bench.app)
                    keys = sorted(_keys(case, raw.stream), key=str)
                    before = {k: raw.live()[k] for k in keys}
                    bench.sandbox.advance(2)
                    if case.change is not None:
                        case.change(bench.sandbox, keys[0])
                    if case.delete is not None:
                        case.delete(bench.sandbox, keys[1])
                    bench.sandbox.advance(raw.stream.lag + 2)
                    await raw.read(bench.app)
                    if case.change is not None:
                        assert raw.live()[keys[0]][RAW] != before[keys[0]][RAW], (
                            f"{case.stream}: the change is not seen"
                        )
                    if case.delete is not None and raw.stream.deletes is not Deletes.NEVER:
                        assert keys[1] not in raw.live(), f"{case.stream}: the deleted record is still there"
                    lost = set(keys[2:]) - set(raw.live())
                    assert not lost, f"{case.stream}: lost {lost}"

        run(work)

    def test_a_clock_that_is_an_hour_off_hides_no_change(self) -> None:
        async def work(off: float) -> None:
            for case in self.streams:
                if case.change is None:
                    continue
                async with self.bench(ahead=off) as bench:
                    raw = await _filled(bench, case)
                    await raw.read(bench.app)
                    key = sorted(_keys(case, raw.stream), key=str)[0]
                    before = raw.live()[key]
                    bench.sandbox.advance(2)
                    case.change(bench.sandbox, key)
                    bench.sandbox.advance(raw.stream.lag + 2)
                    await raw.read(bench.app)
                    assert raw.live()[key][RAW] != before[RAW], f"{case.stream}: {off:+g} s: the change is not seen"

        for off in () if self.timed_credentials else (-3600.0, 3600.0):
            run(partial(work, off))

    def test_a_record_that_changes_while_paging_is_not_lost(self) -> None:
        async def work() -> None:
            for case in self.streams:
                if case.change is None:
                    continue
                async with self.bench() as bench:
                    raw = await _filled(bench, case)
                    keys = sorted(_keys(case, raw.stream), key=str)
                    await raw.read(bench.app, stop_after=1)
                    for key in (keys[0], keys[-1]):
                        case.change(bench.sandbox, key)
                    await raw.read(bench.app)
                    bench.sandbox.advance(raw.stream.lag + 2)
                    await raw.read(bench.app)
                    assert set(keys) <= set(raw.live()), f"{case.stream}: lost {set(keys) - set(raw.live())}"
                    fresh = Raw(raw.stream)
                    await fresh.read(bench.app)
                    for key in (keys[0], keys[-1]):
                        assert _shown(raw, key) == _shown(fresh, key), f"{case.stream}: {key} is not as it is now"

        run(work)

    def test_what_people_do_between_two_pages_pushes_no_record_out_of_sight(self) -> None:
        """A record that changes or goes moves those behind it up, where pages are counted: one of them would be passed over."""

        async def work(case: StreamCase, do: Callable[[Sandbox, Any], None]) -> None:
            async with self.bench() as bench:
                raw = await _filled(bench, case)
                keys = [_key(case, raw.stream, i) for i in range(case.count)]
                turns = iter([k for pair in zip(keys[:MEDDLED], keys[:-MEDDLED:-1], strict=False) for k in pair])

                def meddle() -> None:
                    bench.sandbox.advance(1)
                    if (key := next(turns, None)) is not None:
                        do(bench.sandbox, key)

                meanwhile = Fault(case.calls or "", "then", times=1_000, then=meddle)
                bench.sandbox.faults.append(meanwhile)
                await raw.read(bench.app)
                assert meanwhile.times < 1_000, f"{case.stream}: no call that read it was {case.calls!r}"
                bench.sandbox.faults.clear()
                bench.sandbox.advance(raw.stream.lag + 2)
                await raw.read(bench.app)
                fresh = Raw(raw.stream)
                await fresh.read(bench.app)
                lost = set(fresh.live()) - set(raw.live())
                assert not lost, f"{case.stream}: {len(lost)} records were passed over: {sorted(map(str, lost))[:3]}"
                old = [k for k, row in fresh.live().items() if raw.live()[k][RAW] != row[RAW]]
                assert not old, (
                    f"{case.stream}: {len(old)} records are not as they are now: {sorted(map(str, old))[:3]}"
                )

        for case in self.streams:
            for do in (case.change, case.delete) if case.calls is not None else ():
                if do is not None:
                    run(partial(work, case, do))

    def test_limits_and_broken_connections_lose_nothing(self) -> None:
        async def work() -> None:
            faults = [
                Fault("", "cut"),
                Fault("", "status", status=429, headers={"Retry-After": "0"}, body="{}", skip=1),
                Fault("", "status", status=503, headers={"Retry-After": "0"}, body="{}", skip=1),
            ]
            for case in self.streams:
                if case.calls is None:
                    continue
                async with self.bench() as bench:
                    raw = await _filled(bench, case)
                    for f in faults:
                        bench.sandbox.faults.append(
                            Fault(case.calls, f.action, f.status, dict(f.headers), f.body, skip=f.skip)
                        )
                    await raw.read(bench.app)
                    lost = _keys(case, raw.stream) - set(raw.live())
                    assert not lost, f"{case.stream}: lost {len(lost)} records"

        run(work)


@contextmanager
def _begun_generators() -> Iterator[list[Any]]:
    """The asynchronous generators that are begun meanwhile."""
    begun: list[Any] = []
    first, last = sys.get_asyncgen_hooks()

    def note(generator: AsyncGenerator[Any]) -> None:
        begun.append(generator)
        if first is not None:
            first(generator)

    sys.set_asyncgen_hooks(note, last)
    try:
        yield begun
    finally:
        sys.set_asyncgen_hooks(first, last)


async def _filled(bench: Bench, case: StreamCase) -> Raw:
    """The sandbox with the case's records in it, a while ago; an empty raw table."""
    bench.sandbox.load(case.kind, [case.record(i) for i in range(case.count)])
    stream = bench.app.streams[case.stream]
    bench.sandbox.advance(stream.lag + 2)
    return Raw(stream)


def _keys(case: StreamCase, stream: Stream) -> set[Any]:
    return {_key(case, stream, i) for i in range(case.count)}


def _key(case: StreamCase, stream: Stream, i: int) -> Any:
    """The key of the i-th record (the value alone where the key is one column)."""
    values = tuple(case.record(i)[k] for k in stream.primary_key)
    return values[0] if len(values) == 1 else values


def _shown(raw: Raw, key: Any) -> Any:
    return raw.live()[key][RAW]
