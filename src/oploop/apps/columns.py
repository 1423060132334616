"""Changes as Arrow columns, for apps that send sets; a list of Change is made only where somebody asks for one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, overload

from oploop.records import Change, Outcome, Receipt

if TYPE_CHECKING:
    import pyarrow as pa

    from oploop.apps.rowtexts import Member, Rows


@dataclass(frozen=True)
class Chunk:
    """Rows of a plan table in the order of sending, of one operation, with consecutive numbers.

    `rows` has `__number` and `__remote` (the app's id as text, or NULL); `keys`: the key fields and their columns;
    `fields`: (field, column of its values, column that tells whether it is sent).
    """

    rows: pa.RecordBatch
    keys: Sequence[tuple[str, str]]
    fields: Sequence[tuple[str, str, str]]
    make: Callable[[pa.RecordBatch], list[Change]]
    fields_of: Callable[[pa.RecordBatch], list[dict[str, Any]]]  #: what is sent of each row
    keys_of: Callable[[pa.RecordBatch], dict[str, list[Any]]]  #: the key fields' values, row by row
    #: (name, column of `rows`) of what a record must still hold, where the step is conditional
    guards: Sequence[tuple[str, str]] = ()
    #: The same of each row's key, and of what is sent, as columns; of the latter None where rows are unlike.
    key_members: Callable[[pa.RecordBatch], list[Member]] | None = None
    sent_members: Callable[[pa.RecordBatch], list[Member] | None] | None = None
    texts: dict[object, Rows | None] = field(default_factory=dict)  #: what was made of it, by what made it

    @cached_property
    def sent(self) -> list[dict[str, Any]]:
        return self.fields_of(self.rows)

    @cached_property
    def key_values(self) -> dict[str, list[Any]]:
        return self.keys_of(self.rows)

    @cached_property
    def remotes(self) -> list[str | None]:
        listed: list[str | None] = self.rows.column("__remote").to_pylist()
        return listed

    @cached_property
    def changes(self) -> list[Change]:
        return self.make(self.rows)

    @cached_property
    def first(self) -> int:
        return int(self.rows.column("__number")[0].as_py())


class Columns(Sequence[Change]):
    """A part of a chunk, as a sequence of its changes."""

    __slots__ = ("_start", "_stop", "chunk")

    def __init__(self, chunk: Chunk, start: int, stop: int) -> None:
        self.chunk, self._start, self._stop = chunk, start, stop

    @property
    def span(self) -> tuple[int, int]:
        """The first and the last number."""
        return self.chunk.first + self._start, self.chunk.first + self._stop - 1

    def text(self, by: object, make: Callable[[Chunk], Rows | None]) -> bytes | None:
        """The JSON text of the list of what `make`, which `by` stands for, makes of each; None where it makes nothing.

        It is called once for the whole chunk.
        """
        if by not in self.chunk.texts:
            self.chunk.texts[by] = make(self.chunk)
        rows = self.chunk.texts[by]
        return None if rows is None else rows.text(self._start, self._stop)

    @property
    def rows(self) -> pa.RecordBatch:
        """The part's rows (see Chunk)."""
        return self.chunk.rows.slice(self._start, self._stop - self._start)

    @property
    def sent(self) -> list[dict[str, Any]]:
        """What is sent of each, as `Change.fields`. For whoever needs no more of them than that, and the next two."""
        return self.chunk.sent[self._start : self._stop]

    @property
    def remotes(self) -> list[str | None]:
        """The app's id of each."""
        return self.chunk.remotes[self._start : self._stop]

    def key(self, name: str) -> list[Any]:
        """The value of each for a field of the key."""
        return self.chunk.key_values[name][self._start : self._stop]

    def __len__(self) -> int:
        return self._stop - self._start

    def __iter__(self) -> Iterator[Change]:
        return iter(self.chunk.changes[self._start : self._stop])

    @overload
    def __getitem__(self, at: int) -> Change: ...
    @overload
    def __getitem__(self, at: slice) -> Columns: ...
    def __getitem__(self, at: int | slice) -> Change | Columns:
        places = range(self._start, self._stop)[at]
        if isinstance(places, int):
            return self.chunk.changes[places]
        if places.step != 1:
            raise ValueError("a part of changes has them all")
        return Columns(self.chunk, places.start, places.stop)


@dataclass(frozen=True, slots=True)
class Taken(Sequence[Receipt]):
    """The receipts of a step of which the app took each change, without one object a change.

    `ids_from`: the key field whose value, as text, is the id of each record that had none.
    """

    changes: Sequence[Change]
    version: int | None = None
    ids_from: str | None = None
    _listed: list[Receipt] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.changes)

    @overload
    def __getitem__(self, at: int) -> Receipt: ...
    @overload
    def __getitem__(self, at: slice) -> list[Receipt]: ...
    def __getitem__(self, at: int | slice) -> Receipt | list[Receipt]:
        if not self._listed:
            self._listed.extend(self._receipt(c) for c in self.changes)
        return self._listed[at]

    def _receipt(self, change: Change) -> Receipt:
        remote = change.remote_id
        if remote is None and self.ids_from is not None:
            remote = str(change.key[self.ids_from])
        return Receipt(change.number, Outcome.OK, remote, None, self.version)


def rows_of(columns: Sequence[tuple[str, list[Any]]], count: int) -> list[dict[str, Any]]:
    """So many rows of named columns, each as a dict of its own; of two columns of one name the later counts."""
    if not columns:
        return [{} for _ in range(count)]
    names = [name for name, _ in columns]
    return [dict(zip(names, row, strict=True)) for row in zip(*(values for _, values in columns), strict=True)]


def span(changes: Sequence[Change]) -> tuple[int, int]:
    """The first and the last number of a step's changes."""
    if isinstance(changes, Columns):
        return changes.span
    numbers = [c.number for c in changes]
    return min(numbers), max(numbers)
