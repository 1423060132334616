"""Records of an API into typed Arrow columns plus `_raw`: column by column, never cell by cell in Python.

A field that the stream does not declare becomes a JSON column of its own name, so that nothing new is lost and no
later value can disagree with a type that was guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from operator import itemgetter
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
from msgspec import UNSET, Raw
from msgspec.json import Encoder

from oploop.apps.jsonrows import Columns, Records, without
from oploop.apps.jsonrows import written as record_text
from oploop.apps.jsonvalues import parsed, written
from oploop.apps.paging import at_once
from oploop.errors import FixData
from oploop.lean import arrow_alone
from oploop.records import DELETED, EXTRACTED_AT, META_COLUMNS, RAW, VERSION, ColumnType, Stream

arrow_alone()

TIMESTAMP = pa.timestamp("us", tz="UTC")

ARROW_TYPES: Mapping[ColumnType, pa.DataType] = {
    ColumnType.TEXT: pa.string(),
    ColumnType.INTEGER: pa.int64(),
    ColumnType.NUMBER: pa.float64(),
    ColumnType.BOOLEAN: pa.bool_(),
    ColumnType.TIMESTAMP: TIMESTAMP,
    ColumnType.UNIX: TIMESTAMP,
    ColumnType.UNIX_MS: TIMESTAMP,
    ColumnType.DATE: pa.date32(),
    ColumnType.JSON: pa.string(),
}

#: What tells a column from the others.
Of: TypeAlias = Callable[[pa.Table], pa.Array | pa.ChunkedArray]

#: Writes texts as lines, in half the time that joining them takes; none of them has a line break of its own.
_TEXTS, NEWLINE, NULL = Encoder(), 10, b"null"

#: Values that are made columns of in one turn: a tenth of a millisecond.
TURN = 1_500

#: Arrow field metadata that marks a text column as JSON for the warehouse.
JSON_MARK = {b"oploop": b"json"}


#: The Arrow fields of oploop's own columns.
META_FIELDS = [
    pa.field(RAW, pa.string(), metadata=JSON_MARK),
    pa.field(EXTRACTED_AT, TIMESTAMP),
    pa.field(VERSION, pa.int64()),
    pa.field(DELETED, pa.bool_()),
]


def column_field(name: str, kind: ColumnType) -> pa.Field:
    """The Arrow field of a stream's column; JSON columns are text with a mark."""
    return pa.field(name, ARROW_TYPES[kind], metadata=JSON_MARK if kind is ColumnType.JSON else None)


def records_in_turns(
    stream: Stream,
    records: Sequence[dict[str, Any]],
    *,
    versions: int | Sequence[int] | Of,
    extracted_at: datetime,
    deleted: Sequence[bool] | Of | None = None,
    exclude: Iterable[str] = (),
    texts: bool = False,
    raw: Sequence[bytes] | None = None,
) -> Generator[None, None, pa.Table]:
    """A Batch's table from records, parsed ones or (quicker) as they stand in answers (`jsonrows.Records`), in turns (see
    `paging.meanwhile`). `texts`: the API writes all values as text, and an empty one for none; `raw`: the records as the app sent
    them (JSON, less excluded fields), where they are not of the columns' form.

    `versions`: microseconds since 1970, one for all or one a record. `deleted`: which records are gone (none by default).
    Either may be a function of the table of all the stream's columns, where they tell it.
    Values that do not fit their declared type become NULL in the column and stay whole in `_raw`.
    """
    hidden = set(exclude)
    more: dict[str, Any] = {"extracted_at": extracted_at, "exclude": hidden, "texts": texts}
    if isinstance(records, Records):
        if raw is None:
            raw = without(records, hidden) if hidden else records.texts
        values = None if texts else (yield from Columns.cached(tuple(stream.columns.items())).in_turns(records))
        if values is not None:
            return (yield from columns_in_turns(stream, values, raw=raw, versions=versions, deleted=deleted, **more))
    found = list(records)
    columns = {name: _values(found, name) for name in set[str](stream.columns).union(*found)}
    if raw is None:
        shown = [{k: v for k, v in r.items() if k not in hidden} for r in found] if hidden else found
        raw = list(map(record_text, shown))
    return (yield from columns_in_turns(stream, columns, raw=raw, versions=versions, deleted=deleted, **more))


def columns_in_turns(
    stream: Stream,
    values: Mapping[str, Sequence[Any]],
    *,
    raw: Sequence[Any],
    versions: int | Sequence[int] | Of,
    extracted_at: datetime,
    deleted: Sequence[bool] | Of | None = None,
    exclude: Iterable[str] = (),
    texts: bool = False,
) -> Generator[None, None, pa.Table]:
    """The same from the values of each field, parsed ones, or JSON texts (`msgspec.Raw`). `raw`: the records' JSON, as bytes."""
    n, hidden = len(raw), set(exclude)
    told = callable(versions) or callable(deleted)  # by columns, those too that are left out in the end
    kinds = {c: k for c, k in stream.columns.items() if told or c not in hidden}
    # fields that the stream does not declare; those that are called like our own columns stand in _raw only
    for name in sorted(values.keys() - kinds.keys() - hidden - set(META_COLUMNS)):
        kinds[name] = ColumnType.JSON
    columns, made = [], 0
    for name, kind in kinds.items():
        columns.append(convert(values[name], kind, texts=texts) if name in values else pa.nulls(n, ARROW_TYPES[kind]))
        made += n
        if made >= TURN:
            made = 0
            yield
    whole = pa.Table.from_arrays(columns, schema=_schema(tuple(kinds.items()))) if told else None
    ours = [
        _joined(list(map(bytes, raw))),
        pa.repeat(pa.scalar(extracted_at, TIMESTAMP), n),
        _told(versions, pa.int64(), n, whole),
        _told(False if deleted is None else deleted, pa.bool_(), n, whole),
    ]
    shown = [(column, named) for column, named in zip(columns, kinds.items(), strict=True) if named[0] not in hidden]
    schema = _schema(tuple(named for _, named in shown), ours=True)
    return pa.Table.from_arrays([column for column, _ in shown] + ours, schema=schema)


table_from_records = at_once(records_in_turns)
table_from_columns = at_once(columns_in_turns)


@lru_cache(256)
def _schema(kinds: tuple[tuple[str, ColumnType], ...], *, ours: bool = False) -> pa.Schema:
    """The schema of columns of these kinds, with `ours` behind them."""
    return pa.schema([column_field(name, kind) for name, kind in kinds] + (META_FIELDS if ours else []))


def with_meta(
    table: pa.Table,
    *,
    raw: pa.Array | pa.ChunkedArray,
    versions: int,
    extracted_at: datetime,
    deleted: bool | pa.Array | pa.ChunkedArray = False,
) -> pa.Table:
    """A table that came as one, with oploop's own columns behind its own. `raw`: its rows as JSON, or NULL."""
    n = table.num_rows
    gone = pa.repeat(pa.scalar(deleted), n) if isinstance(deleted, bool) else deleted
    at, version = pa.scalar(extracted_at, TIMESTAMP), pa.scalar(versions, pa.int64())
    ours = [raw, pa.repeat(at, n), pa.repeat(version, n), gone]
    return pa.Table.from_arrays([*table.columns, *ours], schema=pa.schema([*table.schema, *META_FIELDS]))


def _told(what: Any, kind: pa.DataType, n: int, whole: pa.Table) -> Any:
    """A column of one value, of a list of them, or of what a function makes of the stream's columns."""
    if callable(what):
        return what(whole)
    if isinstance(what, int):
        return pa.repeat(pa.scalar(what, kind), n)
    return pa.array(what, kind)


def empty_table(stream: Stream, exclude: Iterable[str] = ()) -> pa.Table:
    """A table of the stream's columns without rows, for a last batch with nothing new."""
    return table_from_records(
        stream, [], versions=0, extracted_at=datetime.fromtimestamp(0).astimezone(), exclude=exclude
    )


def _values(records: Sequence[dict[str, Any]], name: str) -> list[Any]:
    """One field of all records; itemgetter is three times as fast as a comprehension where no record lacks it."""
    try:
        return list(map(itemgetter(name), records))
    except KeyError:
        return [r.get(name) for r in records]


def _joined(texts: Iterable[bytes | None]) -> pa.Array:
    """Texts in UTF-8 as a column."""
    try:
        return pa.array(list(texts), pa.string())
    except pa.ArrowInvalid:
        raise _no_text() from None


def _no_text() -> FixData:
    return FixData("an answer holds text that is not UTF-8", mend="check base_url, and any proxy in between")


def _json_texts(values: Sequence[Any]) -> pa.Array:
    """A JSON column from texts (`msgspec.Raw`; None or UNSET where it is missing). One with needless escapes is written anew: each
    for itself, so that a value has one text whatever stands beside it."""
    import numpy as np  # not everybody who has Arrow has records

    try:
        lines = _TEXTS.encode_lines(values)
    except TypeError:  # some are missing
        values = [v if type(v) is Raw else None for v in values]
        lines = _TEXTS.encode_lines(values)
    n, first = len(values), lines[: lines.find(b"\n") + 1]
    if lines == first * n and b"\\" not in first:  # empty lists, as often as not
        return pa.repeat(_joined([_some(first[:-1])])[0], n)
    ends = np.flatnonzero(np.frombuffer(lines, np.uint8) == NEWLINE)
    if len(ends) != n or (b"\\" in lines and (b"\\u" in lines or b"\\/" in lines)):
        return _joined(None if v is None else _some(_plain(bytes(v))) for v in values)
    offsets = np.zeros(n + 1, np.int32)
    offsets[1:] = ends - np.arange(n)
    found = pa.StringArray.from_buffers(n, pa.py_buffer(offsets), pa.py_buffer(lines.replace(b"\n", b"")))
    try:
        found.validate(full=True)
    except pa.ArrowInvalid:
        raise _no_text() from None
    missing = (np.diff(offsets) == len(NULL)).any()
    return pc.if_else(pc.not_equal(found, NULL.decode()), found, None) if missing else found


def _some(text: bytes) -> bytes | None:
    """A JSON text; None for that of none."""
    return None if text == NULL else text


def _plain(text: bytes) -> bytes:
    """A JSON text without needless escapes."""
    return written(parsed(text)) if b"\\u" in text or b"\\/" in text else text


def convert(values: Sequence[Any], kind: ColumnType, *, texts: bool = False) -> pa.Array:
    """One column from parsed JSON values; what does not fit becomes NULL. `texts`: texts are read as what they write."""
    if values and values[0] is None and values.count(None) == len(values):
        return pa.nulls(len(values), ARROW_TYPES[kind])
    how = _read if texts and kind is not ColumnType.JSON else _convert
    try:
        return how(values, kind)
    except (pa.ArrowInvalid, pa.ArrowTypeError, ValueError, TypeError, OverflowError):
        return pa.chunked_array([_convert_one(how, v, kind) for v in values]).combine_chunks()


def _convert_one(how: Callable[[Sequence[Any], ColumnType], pa.Array], value: Any, kind: ColumnType) -> pa.Array:
    """The slow way, for a column in which some value does not fit: each value alone."""
    try:
        return how([value], kind)
    except (pa.ArrowInvalid, pa.ArrowTypeError, ValueError, TypeError, OverflowError):
        return pa.nulls(1, ARROW_TYPES[kind])


def _convert(values: Sequence[Any], kind: ColumnType) -> pa.Array:
    match kind:
        case ColumnType.JSON if type(next((v for v in values if v is not None and v is not UNSET), None)) is Raw:
            return _json_texts(values)
        case ColumnType.JSON:
            return pa.array([None if v is None else written(v) for v in values], pa.string())
        case ColumnType.UNIX:
            return _instants(values, "s", 1e6)
        case ColumnType.UNIX_MS:
            return _instants(values, "ms", 1e3)
        case ColumnType.INTEGER:
            found = _numbers(values)
            return found if found.type == pa.int64() else pc.cast(found, pa.int64())
        case ColumnType.NUMBER:
            try:
                found = _numbers(values)
            except OverflowError:  # whole ones beyond 64 bits
                found = _numbers([float(v) if type(v) is int else v for v in values])
            return pc.cast(found, pa.float64(), safe=False)
        case ColumnType.TIMESTAMP:
            return _timestamps(values)
        case ColumnType.DATE:
            return pc.cast(pa.array(values, pa.string()), pa.date32())
        case ColumnType.TEXT:
            return _texts(values)
        case _:
            return pa.array(values, ARROW_TYPES[kind])


def _read(values: Sequence[Any], kind: ColumnType) -> pa.Array:
    """One column from texts; an empty one is none. Values that are no texts are taken as they are."""
    if "" in values:
        values = [None if v == "" else v for v in values]
    if kind not in (ColumnType.INTEGER, ColumnType.NUMBER, ColumnType.BOOLEAN, ColumnType.DATE):
        return _convert(values, kind)
    found = pa.array(values)
    return pc.cast(found, ARROW_TYPES[kind]) if pa.types.is_string(found.type) else _convert(values, kind)


def _numbers(values: Sequence[Any]) -> pa.Array:
    """Numbers as they are: asked for integers, Arrow would cut off fractions, and take truth values for numbers."""
    found = pa.array(values)
    if not (pa.types.is_integer(found.type) or pa.types.is_floating(found.type) or pa.types.is_null(found.type)):
        raise pa.ArrowTypeError(f"no numbers: {found.type}")
    return found


def _instants(values: Sequence[Any], unit: str, micros: float) -> pa.Array:
    """Counts of `unit` since 1970, each of so many microseconds, as timestamps; fractions are kept."""
    found = _numbers(values)
    if pa.types.is_floating(found.type):
        found, unit = pc.cast(pc.round(pc.multiply(found, micros)), pa.int64()), "us"
    return pc.cast(pc.cast(pc.cast(found, pa.int64()), pa.timestamp(unit, tz="UTC")), TIMESTAMP)


def _timestamps(values: Sequence[Any]) -> pa.Array:
    try:  # all with a zone, as APIs write them: one cast
        return pc.cast(pa.array(values, pa.string()), TIMESTAMP)
    except pa.ArrowInvalid:  # an empty text, or none of the zones that Arrow reads
        return pa.array([datetime.fromisoformat(v) if v else None for v in values], TIMESTAMP)


def instants(texts: Sequence[str | None]) -> list[int]:
    """Times as APIs write them, as microseconds since 1970, the unit of `_version`; 0 for none."""
    found: list[int] = pc.fill_null(pc.cast(_timestamps([t or None for t in texts]), pa.int64()), 0).to_pylist()
    return found


def _texts(values: Sequence[Any]) -> pa.Array:
    try:
        return pa.array(values, pa.string())
    except (pa.ArrowInvalid, pa.ArrowTypeError):  # numbers or objects among them
        return pa.array([v if v is None or type(v) is str else _as_text(v) for v in values], pa.string())


def _as_text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else written(value).decode()


__all__ = [
    "ARROW_TYPES",
    "JSON_MARK",
    "META_COLUMNS",
    "META_FIELDS",
    "TIMESTAMP",
    "Of",
    "column_field",
    "columns_in_turns",
    "convert",
    "empty_table",
    "instants",
    "records_in_turns",
    "table_from_columns",
    "table_from_records",
    "with_meta",
]
