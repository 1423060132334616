"""Exporting: each step is one file (and one for each partition), under a name that only the step gives.

A step that is sent again writes the same bytes to the same name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc

from oploop.apps.base import micros
from oploop.apps.columns import Taken, span
from oploop.apps.files.config import OURS, PLACES, ObjectSpec
from oploop.apps.formats import table_of, written
from oploop.apps.storage import Store
from oploop.errors import FixConfig
from oploop.records import Op, Receipt, Step
from oploop.runtime import Runtime

NULL = "__null__"  #: a partition's name where its field is NULL


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
        table = table_of(step.changes, spec.fields)
        table = table.append_column("_op", pa.repeat(pa.scalar(step.op.value), len(table)))
        for values, part in _partitions(spec, table):
            name = PLACES.sub(lambda m, v=values: _place(m[1], step, v), spec.path)  # type: ignore[misc]
            packed = name.endswith(".gz") and spec.made_of != "parquet"
            self._store.put(name, written(part, spec.made_of, packed=packed, fields=spec.fields))


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
