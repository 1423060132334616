"""What a resource yields as Arrow: records, Arrow tables and data frames, with types that its hints or its values tell.

A column without a hint gets the type of its values (see apps/kinds.py).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import replace
from datetime import datetime
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from oploop.apps.arrow import table_from_records, with_meta
from oploop.apps.base import micros
from oploop.apps.dlt.source import KEY
from oploop.apps.kinds import Kinds
from oploop.errors import FixData
from oploop.records import META_COLUMNS, Stream

_OPTIONS = orjson.OPT_NON_STR_KEYS | orjson.OPT_NAIVE_UTC


class Rows:
    """Items of one read, on their way into tables."""

    def __init__(
        self, stream: Stream, mark: str | None, began: datetime, exclude: Iterable[str], known: Mapping[str, str]
    ) -> None:
        """`mark`: the column that says that a row is gone, where there is one; `known`: the types of columns without a hint."""
        self._stream, self._mark, self._began, self._exclude = stream, mark, began, frozenset(exclude)
        self.kinds = Kinds(stream.columns, known)
        self._waiting: Any = None  #: a table that came behind records

    def tables(self, items: Generator[Any], least: int) -> Generator[pa.Table]:
        """Tables of at least so many records, but for the last, or as they came; `items` is closed in the end."""
        with closing(items):
            while (table := self._take(items, least)) is not None:
                yield table

    def _take(self, items: Iterator[Any], least: int) -> pa.Table | None:
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

    def _from_records(self, records: list[dict[str, Any]]) -> pa.Table:
        if self._exclude:
            records = [{k: v for k, v in r.items() if k not in self._exclude} for r in records]
        times: set[str] = set()
        texts = [_dumped(r, times) for r in records]
        plain = [orjson.loads(t) for t in texts]  # dates, decimals, bytes are texts now
        kinds = self.kinds.learn(plain, times)
        self.kinds.prune(plain)
        gone = None if self._mark is None else [r.get(self._mark) not in (None, False) for r in plain]
        if KEY in self._stream.columns:
            for record, text in zip(plain, texts, strict=True):
                record[KEY] = hashlib.blake2b(text, digest_size=16).hexdigest()
        kinds = {n: k for n, k in kinds.items() if n not in self._exclude}
        stream = replace(self._stream, columns={**kinds, **self._stream.columns})
        at, out = self._began, self._exclude
        return table_from_records(
            stream, plain, versions=micros(at), extracted_at=at, deleted=gone, exclude=out, raw=texts
        )

    def _from_table(self, table: pa.Table) -> pa.Table:
        """An Arrow table as it is, with our columns; `_raw` is empty, as there is no record that was sent as JSON."""
        kept = [n for n in table.column_names if n not in self._exclude and n not in META_COLUMNS]
        raw, gone = pa.nulls(table.num_rows, pa.string()), pa.repeat(pa.scalar(False), table.num_rows)
        if self._mark in table.column_names:
            told = table[self._mark]
            gone = pc.fill_null(told, False) if pa.types.is_boolean(told.type) else pc.is_valid(told)
        table = table.select(kept)
        if KEY in self._stream.columns:
            keys = [hashlib.blake2b(_dumped(r, set()), digest_size=16).hexdigest() for r in table.to_pylist()]
            table = table.append_column(KEY, pa.array(keys, pa.string()))
        return with_meta(table, raw=raw, versions=micros(self._began), extracted_at=self._began, deleted=gone)


def _plain(item: Any) -> Any:
    """A record as a dict, anything columnar as an Arrow table."""
    if isinstance(item, dict | pa.Table):
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
    with suppress(orjson.JSONEncodeError):
        return orjson.dumps(record, default=_other, option=_OPTIONS)
    try:
        return orjson.dumps(_sayable(record), default=_other, option=_OPTIONS)
    except (orjson.JSONEncodeError, RecursionError) as e:
        raise FixData(f"a record cannot be written as JSON: {e}", mend="let the resource yield plain values") from None


def _sayable(value: Any) -> Any:
    """A value with what JSON does not carry as text: whole numbers beyond 64 bits, and lone surrogates (as "?")."""
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return str(value)
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, Mapping):
        return {_sayable(k): _sayable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_sayable(v) for v in value]
    return value


def _other(value: Any) -> Any:
    """A value that JSON does not have."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, (set, frozenset, tuple)):
        return list(value)
    return str(value)
