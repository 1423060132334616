"""The nouns that travel through the loop. Plain data; no behaviour that touches the world.

app ─read─▶ Batch ─load─▶ raw table ─model─▶ model table ─validate─▶ valid rows ─diff─▶ Change ─plan─▶ Step ─deliver─▶ Receipt
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import pyarrow as pa

#: A stream's position, as its reader wrote it: a JSON object that only the reader understands.
Cursor: TypeAlias = dict[str, Any]

#: sqlglot's name of the dialect in which syncs' SQL, and all of ours, is written; a warehouse translates it (decision 0017).
DIALECT = "duckdb"

#: Columns that oploop adds to each raw table.
RAW = "_raw"  #: the record as the app sent it (less excluded fields), JSON text
EXTRACTED_AT = "_extracted_at"  #: our clock: when the request that brought the record began
VERSION = "_version"  #: the app's clock: the instant, in microseconds since 1970, as of which the record is known so
DELETED = "_deleted"  #: the app says that the record is gone
META_COLUMNS = (RAW, EXTRACTED_AT, VERSION, DELETED)


@dataclass(frozen=True, slots=True)
class Batch:
    """Records of one stream, in the order in which the app gave them.

    `table` has the stream's columns and the four META_COLUMNS; a later row of a key supersedes an earlier one
    of the same version. `cursor` may be stored once this batch and all before it are in the raw table (None: no
    safe point here). `complete`: the reader has caught up; for a stream whose deletes show by absence only, every
    live record has now been seen since the read began. `keys_only`: the rows tell just that records with these keys are
    there; they change nothing, and one that is not known yet makes the next read a whole one. `pause`: what comes next takes
    long, so that all that has come may be merged meanwhile.
    """

    stream: str
    table: pa.Table
    cursor: Cursor | None = None
    complete: bool = False
    keys_only: bool = False
    pause: bool = False


class Op(StrEnum):
    """What a change does to a record of an app."""

    CREATE = "create"
    UPDATE = "update"
    UPSERT = "upsert"  # the app decides which of the two; used where it can only upsert
    ARCHIVE = "archive"  # taken out of sight; the app keeps it
    REMOVE = "remove"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that a check found. `stop` halts the sync; otherwise the `rows` are held."""

    sync: str
    check: str
    message: str
    rows: int = 0
    field: str | None = None
    stop: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """One record's difference. `key` maps the sync's key fields to their values; `number` orders a sync's changes.

    `fields` has only what is to be sent (app field -> wanted value). `remote_id` is the app's own id, None for
    a record that the app does not hold yet. `once`: those of a new record's fields that must not replace what a record of that
    key should hold after all (`only: create`), for apps that can tell. `as_read`: what the record must still hold for a conditional
    step to change it, by the app's names: its stamp, or the former values of fields (see Condition).
    """

    number: int
    op: Op
    key: Mapping[str, Any]
    fields: Mapping[str, Any]
    remote_id: str | None = None
    once: frozenset[str] = frozenset()
    as_read: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Step:
    """One API call of a plan: a batch of changes of one operation on one object.

    `id` names the journalled intent: idempotency keys are made from it (f"{id}:{change.number}"), never from
    the content, so that a replay of this step is known as such while a later equal change is a new one. `conditional`: a record
    that is no longer as it was read (`Change.as_read`) is to be left alone; its receipt is Outcome.CHANGED.
    """

    id: str
    sync: str
    object: str
    op: Op
    changes: Sequence[Change]
    conditional: bool = False
    #: Keeps a word with the journalled intent, on disk when it returns: what `App.settle` can ask by after a crash (a job's id).
    note: Callable[[str], Awaitable[None]] | None = field(default=None, compare=False, repr=False)


class Outcome(StrEnum):
    """What became of one change, as far as the answer tells."""

    OK = "ok"  #: the app acknowledged it
    REJECTED = "rejected"  #: the app refused this record; sending it again unchanged would be refused again
    RETRY = "retry"  #: not done, and a later try may succeed (lock, limit)
    DEFERRED = "deferred"  #: not done, as the quota is used up; the next run sends it
    CHANGED = "changed"  #: not done, as the record is no longer as it was read
    UNKNOWN = "unknown"  #: the answer was lost: it may or may not have been done


@dataclass(frozen=True, slots=True)
class Receipt:
    """What the app answered for one change of a step.

    `version`: the app's clock in microseconds since 1970 at (or just before) which the write was done, if known:
    the record's new version when the answer tells it, else the answer's `Date` header.
    """

    number: int
    outcome: Outcome
    remote_id: str | None = None
    error: str | None = None
    version: int | None = None


class FieldType(StrEnum):
    """Types of the fields of an app's objects; the warehouse maps them to SQL types."""

    TEXT = "text"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    DATE = "date"
    TIMESTAMP = "timestamp"
    LIST = "list"  #: a set of texts whose order does not matter (tags)
    JSON = "json"


class Canonical(StrEnum):
    """Forms under which an app takes two values of a field for the same."""

    EXACT = "exact"
    LOWER = "lower"  #: case and outer blanks do not matter (e-mail)
    TRIM = "trim"  #: outer blanks do not matter
    NUMBER = "number"  #: 12, "12" and 12.0 are the same
    MOMENT = "moment"  #: a day is its first instant in UTC, and an instant the same in each zone and type
    ID_15_18 = "id_15_18"  #: an id of 15 characters, and the same with 3 more that check them


@dataclass(frozen=True, slots=True)
class Column:
    """A field's present value stands in a column of the raw table."""

    name: str


@dataclass(frozen=True, slots=True)
class JsonPath:
    """A field's present value stands at `path` in a JSON column of the raw table."""

    column: str
    path: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class JsonEntry:
    """A field's present value is `entry[value]` of the entry whose `entry[key]` equals `equals`, in a JSON column
    that holds a list of objects: [{"id": 360, "value": "gold"}, ...].
    """

    column: str
    equals: str | int
    key: str = "id"
    value: str = "value"


FieldSource: TypeAlias = Column | JsonPath | JsonEntry


@dataclass(frozen=True, slots=True)
class Field:
    """A field of an object as the app itself describes it.

    `source` says where its present value stands in the object's stream; None: it cannot be read back.
    `key`: it may identify a record. `enum`: the only values that are taken. `max_length` counts characters.
    """

    name: str
    type: FieldType
    title: str | None = None
    source: FieldSource | None = None
    key: bool = False
    required: bool = False  #: needed on create
    read_only: bool = False
    max_length: int | None = None
    enum: tuple[str, ...] | None = None
    canonical: Canonical = Canonical.EXACT
    nullable: bool = True  #: can be cleared by sending null
    #: What is replaced, in this order, in values that a template puts in: they must not be taken for the app's markup.
    escape: tuple[tuple[str, str], ...] = ()
    description: str = ""
    custom: bool = False  #: of this account alone: it may be renamed, retyped or deleted there at any time


class Replay(StrEnum):
    """What may be done with a change whose outcome is unknown (design: unknown outcomes)."""

    SAFE = "safe"  #: sending it again does no harm
    KEY = "key"  #: sending it again with the same idempotency key does no harm (for `ttl` seconds)
    LOOKUP = "lookup"  #: look the record up by a unique field after `settle` seconds, then decide
    NEVER = "never"  #: stays unknown until a person decides


@dataclass(frozen=True, slots=True)
class Condition:
    """How an app takes updates of records only while they are as they were read.

    `stamp`: the field of a record, as the app sends it, that tells its state (the time of its last change, a version): it is sent
    back with the change. None: the app compares the values that fields had. `operation`: how such updates go, where they cannot
    go as the others do (singly).
    """

    stamp: str | None = None
    operation: Operation | None = None


@dataclass(frozen=True, slots=True)
class Pace:
    """A limit that counts for each value of a field (a channel): `calls` in any `window` seconds."""

    field: str
    calls: int
    window: float


class CallKind(StrEnum):
    """How a step's records go to the app; how long that takes differs."""

    SINGLE = "single"  #: one record by itself
    BATCH = "batch"  #: several in one call
    JOB = "job"  #: by the way for many (`Operation.large`)


@dataclass(frozen=True, slots=True)
class CallTime:
    """What steps of a kind took: the means of their seconds (less the wait for the budget) and of their API calls."""

    seconds: float
    calls: float
    steps: int = 1


@dataclass(frozen=True, slots=True)
class Operation:
    """How an object takes one operation. `batch`: records a call at the most; `single_up_to`: up to so many
    records, single calls are used because they cost no more; `calls`: API calls a batch costs (a bulk job is
    submitted and then asked for: 2); `in_flight`: batches under way at once; `keys` (upsert only): the fields by which
    the app itself finds the record; `condition` (update only): how it takes conditional ones; `large`: how more than `large_from` records are taken, where that takes fewer calls (a
    bulk job); `seconds`: how long a step is taken to last until deliveries have shown it; `pace`: a limit beside the
    account's; `finishes`: with Replay.KEY, also a call of a run that died may be made once more."""

    batch: int = 1
    single_up_to: int = 1
    calls: int = 1
    in_flight: int = 4
    replay: Replay = Replay.NEVER
    ttl: float | None = None
    settle: float | None = None
    keys: tuple[str, ...] = ()
    large: Operation | None = None
    large_from: int = 0
    condition: Condition | None = None
    seconds: float | None = None
    pace: Pace | None = None
    finishes: bool = True

    def by_a_later_run(self, op: Op) -> bool:
        """Whether a later run may send such a change again although this one may have been done.

        A key that names this intent does not help then, except that an update or an upsert sets the same values again.
        """
        return self.replay is Replay.SAFE or (self.replay is Replay.KEY and op is not Op.CREATE)


@dataclass(frozen=True, slots=True)
class Object:
    """What can be written in an app.

    `stream` is the stream that shows its records (None: cannot be read, its syncs are blind); `id_column` is the
    raw column with the app's own id; `dynamic` maps a prefix to a template field for names that users make up
    ("metadata." -> text up to 500 characters); a dynamic field's source has the name's rest as last path element.
    """

    name: str
    operations: Mapping[Op, Operation]
    stream: str | None = None
    id_column: str = "id"
    fields: Mapping[str, Field] = field(default_factory=dict)
    dynamic: Mapping[str, Field] = field(default_factory=dict)
    lookup_batch: int = 100  #: records a fetch by key brings in one call
    description: str = ""
    unique: tuple[frozenset[str], ...] = ()  #: the sets of fields that identify a record, if not each key field does


class ColumnType(StrEnum):
    """Types of a stream's columns, by how the API writes them."""

    TEXT = "text"
    INTEGER = "integer"  #: 64 bits
    NUMBER = "number"  #: double
    BOOLEAN = "boolean"
    TIMESTAMP = "timestamp"  #: ISO 8601 text
    UNIX = "unix"  #: seconds since 1970, becomes a UTC timestamp
    UNIX_MS = "unix_ms"  #: milliseconds since 1970, becomes a UTC timestamp
    DATE = "date"  #: ISO date text
    JSON = "json"  #: nested values, kept as JSON


class Deletes(StrEnum):
    """How a stream shows that a record is gone."""

    MARKED = "marked"  #: by records (or events) that say so
    ABSENCE = "absence"  #: only by absence from a complete read; each read is a full one
    NEVER = "never"  #: records are never deleted (a log)


@dataclass(frozen=True, slots=True)
class Stream:
    """What can be read from an app. `lag`: seconds after a write until a read that begins then shows it for sure."""

    name: str
    primary_key: tuple[str, ...]
    columns: Mapping[str, ColumnType]
    incremental: bool = True
    deletes: Deletes = Deletes.MARKED
    lag: float = 0.0
    description: str = ""


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """What the user says of one stream: nothing older than `since`; `exclude` these fields (from `_raw` too).

    `fetched`: since the last complete read some records came by key that it did not show. A reader that tells what is gone by what
    it showed before has to list all keys then.
    """

    since: datetime | None = None
    exclude: frozenset[str] = frozenset()
    fetched: bool = False


@dataclass(frozen=True, slots=True)
class Notice:
    """What people are told of a run: a title and lines of plain text, without any app's markup."""

    title: str
    lines: Sequence[str] = ()
