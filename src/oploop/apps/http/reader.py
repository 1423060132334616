"""Reading a list page by page, from the newest record that was seen or whole."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from oploop.apps.arrow import empty_table, table_from_records
from oploop.apps.base import micros
from oploop.apps.documents import at, zulu
from oploop.apps.http.config import Paging, StreamSpec
from oploop.apps.paging import ahead
from oploop.apps.transport import Answer, Transport
from oploop.errors import FixData, RetryLater
from oploop.records import Batch, ColumnType, Cursor, ReadOptions, Stream
from oploop.runtime import Runtime

#: Seconds by which a read goes back before the newest record: what was written in the same instant comes too.
OVERLAP = 1.0
PAGES = 1_000_000
#: How often the pages of one instant are read from their first on, since records went from among them meanwhile.
MOVES = 20
#: The years 1 to 9999, in seconds since 1970, less a day for the zones of time.
FIRST, LAST = -62_135_510_400, 253_402_214_400


class ListReader:
    """Reads the streams of one API."""

    def __init__(self, transport: Transport, runtime: Runtime) -> None:
        self._transport, self._runtime = transport, runtime

    async def read(
        self, stream: Stream, spec: StreamSpec, cursor: Cursor | None, options: ReadOptions
    ) -> AsyncIterator[Batch]:
        """See App.read. Without `since` each read is a whole one, and the cursor tells nothing."""
        newest = (cursor or {}).get("since")
        start = newest if newest is not None else (options.since.timestamp() if options.since else None)
        asked: float | None = None  # the app's clock when the read began
        async with ahead(self._pages(spec, start)) as pages:
            async for records, answer, began in pages:
                if asked is None:
                    asked = (answer.date_micros() or 0) / 1_000_000 or began.timestamp()
                since = spec.since.column if spec.since is not None else None
                times = [_seconds(r.get(since), spec, since) for r in records] if since is not None else []
                newest = max([t for t in (*times, newest) if t is not None], default=None)
                yield Batch(stream.name, self.table(stream, spec, records, answer, began, options.exclude))
        if spec.since is not None and asked is not None:
            # a record that was changed after its page had gone by is of after the begin, whatever a later page shows
            newest = asked if newest is None else min(newest, asked)
        told = {"since": newest} if spec.since is not None and newest is not None else {}
        yield Batch(stream.name, empty_table(stream, options.exclude), told, complete=True)

    def table(
        self,
        stream: Stream,
        spec: StreamSpec,
        records: Sequence[dict[str, Any]],
        answer: Answer,
        began: datetime,
        exclude: frozenset[str] = frozenset(),
        *,
        fetched: int | None = None,
    ) -> Any:
        """Records as rows. Without a column that tells their version they are known as of the answer; `fetched`: as of when they
        are known that were asked for by their ids, microseconds since 1970."""
        now = (answer.date_micros() or 0) if fetched is None else fetched
        versions = [now] * len(records)
        if spec.version is not None:
            own = [_seconds(r.get(spec.version), spec, spec.version) for r in records]
            versions = [max(round((s or 0.0) * 1_000_000), fetched or 0) for s in own]
        gone = [bool(r.get(spec.deleted)) for r in records] if spec.deleted is not None else None
        return table_from_records(stream, records, versions=versions, extracted_at=began, deleted=gone, exclude=exclude)

    async def _pages(
        self, spec: StreamSpec, since: float | None
    ) -> AsyncGenerator[tuple[list[dict[str, Any]], Answer, datetime]]:
        place = _Place(since - OVERLAP if since is not None else None, _first(spec.paging))
        places, moves = {place.mark}, 0
        before: tuple[_Place, list[Any]] | None = None  # the last page, where nothing but its number leads to this one
        for _ in range(PAGES):
            began = self._runtime.now()
            body, records, answer = await self._page(spec, place)
            yield records, answer, began
            if before is not None and _keys(spec, (await self._page(spec, before[0]))[1]) != before[1]:
                moves += 1  # it shows others now: a record had gone from before this one, which passed another over
                if moves > MOVES:
                    raise RetryLater(f"GET {spec.path}: records of one instant keep changing", mend="run again later")
                place, places, before = _Place(place.since, _first(spec.paging)), set(), None
                continue
            following = place.following(spec, body, records)
            if following is None:
                return
            if following.mark in places:
                raise FixData(f"GET {spec.path}: the next page was read before", mend="check `paging`")
            places.add(following.mark)
            counted = _counted_within(spec) and following.since == place.since
            before = (place, _keys(spec, records)) if counted else None
            place = following

    async def _page(self, spec: StreamSpec, place: _Place) -> tuple[Any, list[dict[str, Any]], Answer]:
        """The document, its records, and the answer that it is."""
        answer = await self._transport.request("GET", place.path or spec.path, params=place.params(spec))
        body = answer.json()
        records = at(body, spec.records)
        if not isinstance(records, list) or not all(isinstance(r, dict) for r in records):
            where = f"at {spec.records!r} " if spec.records else ""
            raise FixData(f"GET {spec.path}: there is no list of records {where}in the answer", mend="check `records`")
        return body, records, answer


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a page begins: records from the instant `since` on (seconds since 1970; None: all), and of them those behind `turn`, the
    parameters of its number, offset or cursor; or at `path`, an address that an answer gave. `seen`: records from `since` up to here."""

    since: float | None
    turn: Mapping[str, Any]
    path: str | None = None
    seen: int = 0

    @property
    def mark(self) -> Any:
        return self.path, self.since, tuple(sorted(self.turn.items(), key=str))

    def params(self, spec: StreamSpec) -> dict[str, Any]:
        if self.path is not None:
            return {}
        fixed: dict[str, Any] = {k: str(v).lower() if isinstance(v, bool) else v for k, v in spec.params.items()}
        if spec.since is not None and self.since is not None:
            fixed[spec.since.param] = _asked(self.since, spec.since.format)
        return {**fixed, **self.turn}

    def following(self, spec: StreamSpec, body: Any, records: Sequence[dict[str, Any]]) -> _Place | None:
        """The place of the next page; None after the last one. In a list that is sorted it is that of the newest record, as soon as
        that is of a later instant."""
        seen = self.seen + len(records)
        told = _next(spec.paging, self.turn, body, len(records), seen)
        if told is None:
            return None
        newest = _last(records, spec)
        if newest is not None and (self.since is None or newest > self.since):
            return _Place(newest, _first(spec.paging))
        path, turn = told
        return _Place(self.since, turn, path or self.path, seen)


def _sorted(spec: StreamSpec) -> bool:
    """Whether the block says that records come in the order of their times."""
    return spec.since is not None and spec.since.sorted


def _counted_within(spec: StreamSpec) -> bool:
    """Whether the pages of one instant are counted, maybe behind their addresses."""
    return _sorted(spec) and spec.paging is not None and spec.paging.cursor is None


def _keys(spec: StreamSpec, records: Sequence[dict[str, Any]]) -> list[Any]:
    return [[r.get(k) for k in spec.key] for r in records]


def _last(records: Sequence[dict[str, Any]], spec: StreamSpec) -> float | None:
    """The newest record's time, where the block says that records come in the order of it; FixData where they do not."""
    if spec.since is None or not _sorted(spec) or not records:
        return None
    column = spec.since.column
    times = [_seconds(r.get(column), spec, column) for r in records]
    if None in times or times != sorted(times, key=lambda t: t or 0.0):
        raise FixData(
            f"GET {spec.path}: the records do not come in the order of {column}", mend="remove `since.sorted`"
        )
    return times[-1]


def _first(paging: Paging | None) -> dict[str, Any]:
    """The parameters of the first page."""
    turn: dict[str, Any] = {}
    if paging is not None:
        if paging.size is not None and paging.size_param is not None:
            turn[paging.size_param] = paging.size
        if paging.page is not None:
            turn[paging.page] = paging.first
        if paging.offset is not None:
            turn[paging.offset] = 0
    return turn


def _next(
    paging: Paging | None, turn: Mapping[str, Any], body: Any, got: int, seen: int
) -> tuple[str | None, dict[str, Any]] | None:
    """(the next page's address if it has one of its own, its parameters); None after the last page."""
    if paging is None:
        return None
    if paging.link is not None:
        address = at(body, paging.link)
        return (str(address), {}) if address else None
    if paging.cursor is not None and paging.param is not None:
        following = at(body, paging.cursor)
        if isinstance(following, (list, dict)):
            raise FixData(f"the answer's {paging.cursor!r} is no cursor", mend="check `paging.cursor`")
        return (None, {**turn, paging.param: following}) if following not in (None, "", False) else None
    if got == 0:  # not at a shorter page: an app may give less than was asked for
        return None
    if paging.page is not None:
        return None, {**turn, paging.page: turn[paging.page] + 1}
    assert paging.offset is not None
    return None, {**turn, paging.offset: seen}


def _seconds(value: Any, spec: StreamSpec, column: str) -> float | None:
    """An instant of a record as seconds since 1970; None where it is none, or of no year that a calendar has."""
    seconds = _number(value, spec, column)
    return seconds if seconds is not None and FIRST <= seconds <= LAST else None


def _number(value: Any, spec: StreamSpec, column: str) -> float | None:
    try:
        match spec.columns[column]:
            case ColumnType.UNIX:
                return float(value)
            case ColumnType.UNIX_MS:
                return float(value) / 1000
            case _:
                at_ = datetime.fromisoformat(str(value))
                return micros(at_ if at_.tzinfo else at_.replace(tzinfo=UTC)) / 1_000_000
    except (TypeError, ValueError, OverflowError):
        return None


def _asked(seconds: float, form: str) -> str:
    if form == "unix":
        return str(int(seconds))
    return zulu(datetime.fromtimestamp(seconds, UTC), "milliseconds")
