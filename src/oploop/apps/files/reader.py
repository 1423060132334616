"""Reading files: each once, and again when it changes. Rows of a changed file take the place of its old ones.

The cursor: {"files": {name: [mark, rows]}, "kinds": {column: type}, "of": text, "missing": {name: mark}}. `of` names what must
be the same for it to mean anything: the root and what is said of the stream. `missing`: files that are listed and cannot be
opened, as a link that leads nowhere: tried each time, and told once. The cursor is kept after every few files, so a read that
is cut off goes on from there.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import datetime
from hashlib import blake2b
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from oploop.apps.arrow import column_field, empty_table, table_from_records, with_meta
from oploop.apps.base import micros
from oploop.apps.blocking import in_a_thread
from oploop.apps.files.config import FILE, ROW, StreamSpec
from oploop.apps.formats import records_of, tables_of, typed
from oploop.apps.jsonrows import written
from oploop.apps.kinds import Kinds
from oploop.apps.notes import GONE, Notes
from oploop.apps.storage import File, Store, matching
from oploop.errors import FixConfig, FixData
from oploop.records import Batch, Cursor, ReadOptions, Stream
from oploop.runtime import Runtime

SAFE_EVERY = 20  #: files after which the cursor is kept


class FileReader:
    """Reads the streams of one store. `notes`: files that were left out, and why."""

    def __init__(self, store: Store, runtime: Runtime) -> None:
        self._store, self._runtime = store, runtime
        self.notes = Notes()

    async def read(
        self, stream: Stream, spec: StreamSpec, cursor: Cursor | None, options: ReadOptions
    ) -> AsyncGenerator[Batch]:
        """See App.read."""
        for name in stream.primary_key:
            if name in options.exclude:
                raise FixConfig(f"{stream.name}: {name} identifies a row, so it cannot be excluded")
        reading = _Reading(self._store, stream, spec, options, self._runtime.now(), self.notes)
        async with aclosing(in_a_thread(reading.batches(cursor), "files")) as batches:
            async for batch in batches:
                yield batch


class _Reading:
    """One read. Everything blocks."""

    def __init__(
        self, store: Store, stream: Stream, spec: StreamSpec, options: ReadOptions, began: datetime, notes: Notes
    ) -> None:
        self._store, self._stream, self._spec, self._options = store, stream, spec, options
        self._began, self._notes = began, notes
        self._kinds = Kinds(stream.columns, {})
        self._of = blake2b(f"{store.url} {spec.model_dump_json()}".encode(), digest_size=12).hexdigest()
        self._known: dict[str, list[Any]] = {}
        self._missing: dict[str, str] = {}

    def batches(self, cursor: Cursor | None) -> Generator[Batch]:
        """The read's batches in order; the last is complete."""
        if cursor is not None and cursor["of"] == self._of:
            self._known, self._missing = dict(cursor["files"]), dict(cursor.get("missing", {}))
            self._kinds = Kinds(self._stream.columns, cursor["kinds"])
        files = self._store.files(matching(self._spec.files))
        yield from self._without({f.name for f in files})
        done = 0
        for file in sorted(files, key=lambda f: (f.modified or 0.0, f.name)):
            mark, before = self._known.get(file.name, (None, 0))
            if mark == file.mark or not self._wanted(file):
                continue
            rows = 0
            try:
                for table in self._rows(file):
                    rows += table.num_rows
                    yield Batch(self._stream.name, table)
            except FileNotFoundError:
                if self._missing.get(file.name) != file.mark:
                    self._notes.add(file.name, "", {GONE: 1})
                self._missing[file.name] = file.mark
                continue
            if not self._spec.key:
                yield from self._gone(file.name, rows + 1, before)
            self._known[file.name] = [file.mark, rows]
            self._missing.pop(file.name, None)
            done += 1
            if done % SAFE_EVERY == 0:
                yield Batch(self._stream.name, self._nothing(), self._position())
        yield Batch(self._stream.name, self._nothing(), self._position(), complete=True)

    def _position(self) -> Cursor:
        found = {"of": self._of, "files": dict(self._known), "kinds": dict(self._kinds.known)}
        return {**found, "missing": dict(self._missing)} if self._missing else found

    def _without(self, there: set[str]) -> Iterator[Batch]:
        """What becomes of the rows of files that are listed no more."""
        self._missing = {name: mark for name, mark in self._missing.items() if name in there}
        for name in self._known.keys() - there:
            _, rows = self._known.pop(name)
            if self._spec.on_gone == "delete":
                yield from self._gone(name, 1, rows)

    def _wanted(self, file: File) -> bool:
        since = self._options.since
        return since is None or file.modified is None or file.modified >= since.timestamp()

    def _nothing(self) -> pa.Table:
        return empty_table(self._stream, self._options.exclude)

    def _rows(self, file: File) -> Iterator[pa.Table]:
        """A file's rows in the stream's columns and oploop's own. FileNotFoundError when it is gone by now."""
        spec, number = self._spec, 1
        with self._store.opened(file) as source:
            if spec.made_of == "jsonl":
                found = (
                    self._from_records(file, part, number) for part in records_of(source, file.name, spec.encoding)
                )
            else:
                tables = tables_of(source, spec.made_of, file.name, delimiter=spec.delimiter, encoding=spec.encoding)
                found = (self._from_table(file, table, number) for table in tables if table.num_rows)
            for table in found:  # which asks for `number` as it stands then
                yield self._keyed(file, table, number)
                number += table.num_rows

    def _keyed(self, file: File, table: pa.Table, first: int) -> pa.Table:
        """The table, if each row has its key."""
        for name in self._spec.key:
            if name in table.column_names and table[name].null_count:
                row = first + pc.index(table[name].is_null(), True).as_py()
                raise FixData(
                    f"{file.name}: row {row} has no {name!r}, which is the key, or not of its type",
                    mend="mend the row, or name another `key`",
                )
        return table

    def _version(self, file: File) -> int:
        """Of rows with a key of their own, those of the file that was modified last win; else those that were read last."""
        if self._spec.key and file.modified is not None:
            return min(round(file.modified * 1e6), micros(self._began))
        return micros(self._began)

    def _from_records(self, file: File, records: Sequence[dict[str, Any]], first: int) -> pa.Table:
        kinds = self._kinds.learn(records)
        raw = [written({k: v for k, v in r.items() if k not in self._options.exclude}) for r in records]
        records = [dict(r) for r in records]
        self._kinds.prune(records)
        for number, record in enumerate(records, first):
            record[FILE] = file.name
            if not self._spec.key:
                record[ROW] = number
        return table_from_records(
            replace(self._stream, columns={**self._stream.columns, **kinds}),
            records,
            versions=self._version(file),
            extracted_at=self._began,
            exclude=self._options.exclude,
            raw=raw,
        )

    def _from_table(self, file: File, table: pa.Table, first: int) -> pa.Table:
        n = table.num_rows
        found, raw = typed(table, self._stream.columns, self._options.exclude | {FILE, ROW})
        for name in self._spec.key:
            if name not in found.column_names:
                raise FixData(f"{file.name} has no column {name!r}, which is the key", mend="mend the file or `key`")
        given = {FILE: pa.repeat(pa.scalar(file.name), n)}
        if not self._spec.key:
            given[ROW] = pa.array(range(first, first + n), pa.int64())
        for name, kind in self._stream.columns.items():
            if name not in self._options.exclude and name not in found.column_names and name not in given:
                found = found.append_column(column_field(name, kind), pa.nulls(n, column_field(name, kind).type))
        for at, (name, values) in enumerate(given.items()):
            found = found.add_column(at, name, values)
        return with_meta(found, raw=raw, versions=self._version(file), extracted_at=self._began)

    def _gone(self, name: str, first: int, last: int) -> Iterator[Batch]:
        """Rows that a file has no more, as bare deleted ones."""
        for start in range(first, last + 1, 50_000):
            numbers = range(start, min(start + 50_000, last + 1))
            keys = [{FILE: name, ROW: number} for number in numbers]
            table = table_from_records(
                replace(self._stream, columns={FILE: self._stream.columns[FILE], ROW: self._stream.columns[ROW]}),
                keys,
                versions=micros(self._began),
                extracted_at=self._began,
                deleted=[True] * len(keys),
            )
            yield Batch(self._stream.name, table)
