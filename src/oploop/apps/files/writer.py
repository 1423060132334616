"""Exporting: each step is one file (and one for each partition), under a name that only the step gives.

A file appears whole or not at all: stores of objects take it in one put; elsewhere it is written under a hidden name and
renamed. A step that is sent again writes the same bytes to the same name.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from oploop.apps.arrow import TIMESTAMP
from oploop.apps.base import micros
from oploop.apps.columns import Columns, Taken, span
from oploop.apps.files.config import OURS, PLACES, ObjectSpec
from oploop.apps.files.formats import written
from oploop.apps.storage import Store
from oploop.apps.transport import LostAnswer
from oploop.errors import FixConfig
from oploop.records import Change, FieldType, Op, Receipt, Step
from oploop.runtime import Runtime

NULL = "__null__"  #: a partition's name where its field is NULL
_TYPES: Mapping[FieldType, pa.DataType] = {
    FieldType.TEXT: pa.string(),
    FieldType.INTEGER: pa.int64(),
    FieldType.NUMBER: pa.float64(),
    FieldType.BOOLEAN: pa.bool_(),
    FieldType.DATE: pa.date32(),
    FieldType.TIMESTAMP: TIMESTAMP,
    FieldType.LIST: pa.string(),
    FieldType.JSON: pa.string(),
}
_NESTED = (FieldType.LIST, FieldType.JSON)


class FileWriter:
    """Writes the objects of one store."""

    def __init__(self, store: Store, runtime: Runtime) -> None:
        self._store, self._runtime = store, runtime

    async def send(self, spec: ObjectSpec, step: Step) -> Sequence[Receipt]:
        """See App.send. OK means that the file is there, whole."""
        await asyncio.to_thread(self._write, spec, step)
        return Taken(step.changes, micros(self._runtime.now()))

    def _write(self, spec: ObjectSpec, step: Step) -> None:
        _refuse_unsent(spec, step)
        table = table_of(spec, step)
        nested = [n for n, kind in spec.fields.items() if kind in _NESTED]
        for values, part in _partitions(spec, table):
            name = PLACES.sub(lambda m, v=values: _place(m[1], step, v), spec.path)  # type: ignore[misc]
            packed = name.endswith(".gz") and spec.made_of != "parquet"
            data = written(part, spec.made_of, packed=packed, nested=nested)
            try:
                self._put(name, data)
            except PermissionError as e:
                raise FixConfig(f"url: {self._store.shown} may not be written ({e})", mend="check the rights") from None
            except FixConfig:
                raise
            except ImportError as e:
                raise self._store.failure(e) from None
            except Exception as e:  # each filesystem has errors of its own; whether the file is there, nobody knows
                raise LostAnswer(f"writing {name} at {self._store.shown}: {type(e).__name__}: {e}") from e

    def _put(self, name: str, data: bytes) -> None:
        fs = self._store.open()
        path = f"{self._store.root}/{name}"
        folder, _, last = path.rpartition("/")
        kinds = (fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol
        if not {"file", "local", "sftp", "ssh"} & set(kinds):
            fs.pipe_file(path, data)  # one put: whole or not at all
            return
        fs.makedirs(folder, exist_ok=True)
        hidden = f"{folder}/.{last}.part"
        with fs.open(hidden, "wb") as target:
            target.write(data)
            if {"file", "local"} & set(kinds):
                target.flush()
                os.fsync(target.fileno())
        if {"file", "local"} & set(kinds):
            os.replace(hidden, path)
        else:
            fs.mv(hidden, path)


def _place(name: str, step: Step, values: Mapping[str, str]) -> str:
    match name:
        case "step":
            first, last = span(step.changes)
            return f"{step.id}-{first}-{last}"
        case "sync":
            return quote(step.sync, safe="")
        case "date":
            return began(step).date().isoformat()
        case _:
            return values[name]


def began(step: Step) -> datetime:
    """When a step was made, as its id tells (a ULID), so that it is the same however often it is sent."""
    from ulid import ULID

    try:
        return ULID.from_str(step.id[:26]).datetime
    except ValueError:
        return datetime.fromtimestamp(0, UTC)


def table_of(spec: ObjectSpec, step: Step) -> pa.Table:
    """A step's rows: all declared fields, NULL where they are not sent, and `_op`, what became of the row."""
    found = _from_columns(step.changes) if isinstance(step.changes, Columns) else _from_changes(spec, step.changes)
    n = len(step.changes)
    arrays = [
        _typed(found[name], kind) if name in found else pa.nulls(n, _TYPES[kind]) for name, kind in spec.fields.items()
    ]
    fields = [pa.field(name, _TYPES[kind]) for name, kind in spec.fields.items()]
    arrays.append(pa.repeat(pa.scalar(step.op.value), n))
    return pa.Table.from_arrays(arrays, schema=pa.schema([*fields, pa.field("_op", pa.string())]))


def _from_columns(changes: Columns) -> dict[str, pa.Array]:
    rows = changes.rows
    found = {name: rows.column(column) for name, column in changes.chunk.keys}
    for name, values, sent in changes.chunk.fields:
        column = rows.column(values)
        if sent is not None:
            column = pc.if_else(rows.column(sent), column, pa.scalar(None, column.type))
        found.setdefault(name, column)
    return found


def _from_changes(spec: ObjectSpec, changes: Sequence[Change]) -> dict[str, pa.Array]:
    found = {}
    for name, kind in spec.fields.items():
        values = [c.fields.get(name, c.key.get(name)) for c in changes]
        if kind in _NESTED:
            values = [None if v is None else orjson.dumps(v).decode() for v in values]
        found[name] = pa.array(values, None if kind is FieldType.TIMESTAMP else _TYPES[kind])
    return found


def _typed(column: pa.Array, kind: FieldType) -> pa.Array:
    return column if column.type == _TYPES[kind] else column.cast(_TYPES[kind])


def _refuse_unsent(spec: ObjectSpec, step: Step) -> None:
    """FixConfig where files are parted by a field that a change need not send: its row would go into another part's file."""
    loose = [n for n in parted_by(spec) if step.op is not Op.CREATE and n not in step.changes[0].key]
    if loose:
        raise FixConfig(
            f"path parts the files of {step.object} by {loose[0]!r}, which a row sends only when it changes",
            mend=f"put {loose[0]} into the sync's key too, or use mode: append",
        )


def parted_by(spec: ObjectSpec) -> list[str]:
    """The fields that a path names."""
    return [n for n in dict.fromkeys(PLACES.findall(spec.path)) if n not in OURS]


def _partitions(spec: ObjectSpec, table: pa.Table) -> Iterator[tuple[dict[str, str], pa.Table]]:
    """The rows by what the path names of their fields: (the names, the rows)."""
    names = parted_by(spec)
    if not names:
        yield {}, table
        return
    texts: list[Any] = [pc.fill_null(table[n].cast(pa.string()), NULL) for n in names]
    whole = pc.binary_join_element_wise(*texts, "\x1f")
    for value in pc.unique(whole).to_pylist():
        parts = [quote(v, safe="@+, ") or "__empty__" for v in value.split("\x1f")]
        safe = [p if p.strip(".") else p.replace(".", "%2E") for p in parts]
        yield dict(zip(names, safe, strict=True)), table.filter(pc.equal(whole, value))
