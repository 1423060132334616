"""What a resource yields as Arrow: records, Arrow tables and data frames, with types that its hints or its values tell.

A column without a hint gets its type from the first values that are not NULL, and keeps it as long as the values fit; a
column that holds now a number and now a text is JSON from then on. `known` is kept in the cursor.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from oploop.apps.arrow import TIMESTAMP, empty_table, table_from_records
from oploop.apps.base import micros
from oploop.apps.dlt.source import KEY
from oploop.errors import FixData
from oploop.records import DELETED, EXTRACTED_AT, META_COLUMNS, RAW, VERSION, ColumnType, Stream


class Rows:
    """Items of one read, on their way into tables."""

    def __init__(
        self, stream: Stream, mark: str | None, began: datetime, exclude: Iterable[str], known: Mapping[str, str]
    ) -> None:
        """`mark`: the column that says that a row is gone, where there is one."""
        self._stream, self._mark, self._began, self._exclude = stream, mark, began, frozenset(exclude)
        self.known: dict[str, str] = dict(known)  #: column: ColumnType, of those that have no hint
        self._waiting: Any = None  #: a table that came behind records

    def take(self, items: Iterator[Any], least: int) -> pa.Table | None:
        """The next table of at least so many records, or as it came; None at the end."""
        if self._waiting is not None:
            table, self._waiting = self._waiting, None
            return self._from_table(table)
        records: list[dict[str, Any]] = []
        for item in items:
            found = _plain(item)
            if isinstance(found, dict):
                records.append(found)
                if len(records) >= least:
                    break
            elif records:
                self._waiting = found
                break
            else:
                return self._from_table(found)
        return self._from_records(records) if records else None

    def nothing(self) -> pa.Table:
        """No rows."""
        return empty_table(self._stream, self._exclude)

    def _from_records(self, records: list[dict[str, Any]]) -> pa.Table:
        if self._exclude:
            records = [{k: v for k, v in r.items() if k not in self._exclude} for r in records]
        times: set[str] = set()
        texts = [_dumped(r, times) for r in records]
        plain = [orjson.loads(t) for t in texts]  # dates, decimals, bytes are texts now
        kinds = self._kinds(plain, times)
        gone = None if self._mark is None else [r.get(self._mark) not in (None, False) for r in plain]
        if KEY in self._stream.columns:
            for record, text in zip(plain, texts, strict=True):
                record[KEY] = hashlib.blake2b(text, digest_size=16).hexdigest()
        stream = replace(self._stream, columns={**kinds, **self._stream.columns})
        for record in plain:  # a column without any value yet has no type: it comes with its first value
            for name in [n for n in record if n not in stream.columns and n not in META_COLUMNS]:
                del record[name]
        table = table_from_records(
            stream, plain, versions=micros(self._began), extracted_at=self._began, deleted=gone, exclude=()
        )
        return table.set_column(table.column_names.index(RAW), table.schema.field(RAW), pa.array(texts, pa.string()))

    def _kinds(self, records: Sequence[Mapping[str, Any]], times: set[str]) -> dict[str, ColumnType]:
        """The types of the columns that have no hint, with what these records teach."""
        for name in sorted(set().union(*records) - self._stream.columns.keys() - set(META_COLUMNS)):
            found = ColumnType.TIMESTAMP if name in times else _kind_of([r.get(name) for r in records])
            if found is not None:
                self.known[name] = _both(self.known.get(name), found)
        return {name: ColumnType(kind) for name, kind in self.known.items() if name not in self._exclude}

    def _from_table(self, table: pa.Table) -> pa.Table:
        """An Arrow table as it is, with our columns; `_raw` is empty, as there is no record that was sent as JSON."""
        kept = [n for n in table.column_names if n not in self._exclude and n not in META_COLUMNS]
        n, gone = table.num_rows, pa.repeat(pa.scalar(False), table.num_rows)
        if self._mark in table.column_names:
            told = table[self._mark]
            gone = pc.fill_null(told, False) if pa.types.is_boolean(told.type) else pc.is_valid(told)
        table = table.select(kept)
        if KEY in self._stream.columns:
            keys = [hashlib.blake2b(_dumped(r, set()), digest_size=16).hexdigest() for r in table.to_pylist()]
            table = table.append_column(KEY, pa.array(keys, pa.string()))
        added = [
            (pa.field(RAW, pa.string(), metadata={b"oploop": b"json"}), pa.nulls(n, pa.string())),
            (pa.field(EXTRACTED_AT, TIMESTAMP), pa.repeat(pa.scalar(self._began, TIMESTAMP), n)),
            (pa.field(VERSION, pa.int64()), pa.repeat(pa.scalar(micros(self._began)), n)),
            (pa.field(DELETED, pa.bool_()), gone),
        ]
        for field, values in added:
            table = table.append_column(field, values)
        return table


def _plain(item: Any) -> Any:
    """A record as a dict, anything columnar as an Arrow table."""
    if isinstance(item, dict):
        return item
    if isinstance(item, pa.Table):
        return item
    if isinstance(item, pa.RecordBatch):
        return pa.Table.from_batches([item])
    if hasattr(item, "model_dump"):
        return item.model_dump()
    if type(item).__module__.startswith("pandas.") and type(item).__name__ == "DataFrame":
        return pa.Table.from_pandas(item, preserve_index=False)
    raise FixData(f"a resource gives {type(item).__name__}, which is no record", mend="let it yield dicts or tables")


def _dumped(record: Mapping[str, Any], times: set[str]) -> bytes:
    """A record as JSON. Names of its fields that are instants are added to `times`."""
    times.update(k for k, v in record.items() if isinstance(v, datetime))
    return orjson.dumps(record, default=_other, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_NAIVE_UTC)


def _other(value: Any) -> Any:
    """A value that JSON does not have."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, (set, frozenset, tuple)):
        return list(value)
    return str(value)


def _kind_of(values: Sequence[Any]) -> ColumnType | None:
    """The one type that all values have; JSON when there is none, None when all are NULL."""
    types = set(map(type, values)) - {type(None)}
    if not types:
        return None
    if types <= {int, float}:
        return ColumnType.NUMBER if float in types else ColumnType.INTEGER
    return {frozenset({bool}): ColumnType.BOOLEAN, frozenset({str}): ColumnType.TEXT}.get(
        frozenset(types), ColumnType.JSON
    )


def _both(known: str | None, found: ColumnType) -> str:
    """The type that a column has from now on."""
    numbers = {ColumnType.INTEGER.value, ColumnType.NUMBER.value}
    if known is None or known == found.value:
        return found.value
    return ColumnType.NUMBER.value if {known, found.value} <= numbers else ColumnType.JSON.value
