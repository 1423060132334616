"""Staged rows into a raw table: the newer version of a record wins, whatever order they come in.

Take one record's rows in the order in which they came, and apply each whose version is at least the one before: a
merge must equal that, however the rows are cut into chunks. A row that only says that the record is gone (all its other
columns NULL) marks the record and leaves its last values standing.

Sources have the columns of a Shaped table, c0, c1, ... and seq; what is selected from them here has the raw table's
columns, with its types, as r0, r1, ...
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from oploop.apps.base import micros
from oploop.extract.raw import converted
from oploop.extract.shape import SEQUENCE
from oploop.records import DELETED, EXTRACTED_AT, META_COLUMNS, RAW, VERSION, Stream
from oploop.warehouse.base import Warehouse, quote, quote_table, raw_table


@dataclass(frozen=True, slots=True)
class Merge:
    """One stream's rows on their way from `source` (a quoted name) into its raw table.

    `columns` are the source's, as raw names and types; `types` the raw table's as they stand; `excluded` columns of the
    raw table keep their values.
    """

    app: str
    stream: Stream
    columns: Sequence[tuple[str, str]]
    types: Mapping[str, str]
    source: str
    excluded: frozenset[str] = frozenset()
    fetched: bool = False  #: the rows were asked for by key, not read
    once: bool = False  #: each key comes once
    new: bool = False  #: the raw table holds none of the keys
    older: bool = True  #: some row may be older than the raw table's

    @property
    def table(self) -> str:
        return quote_table(raw_table(self.app, self.stream.name, deleted_too=True))

    @property
    def keys(self) -> str:
        return ", ".join(self.r(k) for k in self.stream.primary_key)

    @property
    def same_key(self) -> str:
        return " AND ".join(f"t.{quote(k)} = s.{self.r(k)}" for k in self.stream.primary_key)

    @property
    def bare(self) -> str:
        """Whether a row says no more than that the record is gone."""
        others = [n for n in self.types if n not in META_COLUMNS and n not in self.stream.primary_key]
        return " AND ".join([self.r(DELETED), *(f"{self.r(n)} IS NULL" for n in others)])

    def r(self, name: str) -> str:
        """What a raw column is called in a selection."""
        return f"r{list(self.types).index(name)}"

    def rows(self, only: Collection[str] = ()) -> str:
        """All source rows, in the raw table's columns and types; of these `only` some, where others would just cost time."""
        sources = {name: (f"c{i}", kind) for i, (name, kind) in enumerate(self.columns)}
        wanted = {n: kind for n, kind in self.types.items() if not only or n in only}
        values = [f"{_value(sources.get(n), kind)} AS {self.r(n)}" for n, kind in wanted.items()]
        return f"SELECT {', '.join(values)}, {SEQUENCE} FROM {self.source}"

    def winners(self) -> str:
        """For each key the row with the highest version, the last of them that came."""
        if self.once:
            return self.rows()
        order = f"PARTITION BY {self.keys} ORDER BY {self.r(VERSION)} DESC, {SEQUENCE} DESC"
        return f"SELECT * FROM ({self.rows()}) QUALIFY row_number() OVER ({order}) = 1"

    def last_values(self) -> str:
        """For each key the last row that would be applied and says more than that the record is gone."""
        before = f"PARTITION BY {self.keys} ORDER BY {SEQUENCE} ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING"
        version = self.r(VERSION)
        applied = f"SELECT *, {version} >= max({version}) OVER ({before}) AS in_order FROM ({self.rows()})"
        return (
            f"SELECT * EXCLUDE (in_order) FROM ({applied}) WHERE COALESCE(in_order, TRUE) AND NOT ({self.bare}) "
            f"QUALIFY row_number() OVER (PARTITION BY {self.keys} ORDER BY {SEQUENCE} DESC) = 1"
        )


def merge(warehouse: Warehouse, job: Merge, *, deletes: bool) -> int:
    """Merge the source into the raw table; the number of live records that it marks deleted.

    `deletes`: the source has rows that say so (without any, less has to be looked at).
    """
    if not deletes:
        if job.new and job.once:
            warehouse.execute(_append(job))
        elif job.once and not (job.older or job.excluded) and warehouse.columnar:
            # an update of some values of a column writes the column whole, and of `_raw` that takes long
            rows = job.rows(job.stream.primary_key)
            warehouse.execute(f"DELETE FROM {job.table} AS t USING ({rows}) AS s WHERE {job.same_key}")
            warehouse.execute(_append(job))
        else:
            warehouse.execute(_upsert(job, job.winners()))
        return 0
    gone = f"s.{job.r(DELETED)} AND NOT t.{quote(DELETED)} AND {_not_older(job)}"
    marked = warehouse.rows(
        f"SELECT count(*) FROM ({job.winners()}) AS s JOIN {job.table} AS t ON {job.same_key} WHERE {gone}"
    )
    warehouse.execute(_upsert(job, job.last_values()))
    warehouse.execute(_mark(job, f"SELECT * FROM ({job.winners()}) WHERE {job.bare}"))
    return int(marked[0][0])


def mark_absent(warehouse: Warehouse, app: str, stream: Stream, began: datetime) -> int:
    """Mark as deleted what a complete read that began at `began` has not shown; the number of records.

    They are known to be gone as of that moment, so that is their version, by our clock. A record that was seen (fetched by
    key) within the stream's lag before it need not be shown yet, and is left to the next read.
    """
    return warehouse.execute(
        f"UPDATE {quote_table(raw_table(app, stream.name, deleted_too=True))} SET {quote(DELETED)} = TRUE, "
        f"{quote(VERSION)} = greatest({quote(VERSION)}, ?), {quote(EXTRACTED_AT)} = ? "
        f"WHERE NOT {quote(DELETED)} AND {quote(EXTRACTED_AT)} < ?",
        [micros(began), began, began - timedelta(seconds=stream.lag)],
    )


def read_now(warehouse: Warehouse, app: str, stream: str, now: datetime) -> None:
    """Records that were read later than `now`, by a clock that has been set back since, count as read now."""
    warehouse.execute(
        f"UPDATE {quote_table(raw_table(app, stream, deleted_too=True))} SET {quote(EXTRACTED_AT)} = ? "
        f"WHERE {quote(EXTRACTED_AT)} > ?",
        [now, now],
    )


def mark_seen(warehouse: Warehouse, job: Merge) -> int:
    """Note of live records, of which the source has just the keys, that they are there; the number of them."""
    rows = job.rows((*job.stream.primary_key, EXTRACTED_AT))
    return warehouse.execute(
        f"UPDATE {job.table} AS t SET {quote(EXTRACTED_AT)} = {_seen(job)} FROM ({rows}) AS s "
        f"WHERE {job.same_key} AND NOT t.{quote(DELETED)}"
    )


def any_new(warehouse: Warehouse, job: Merge) -> bool:
    """Whether any row is of a live record that the raw table does not show as one."""
    rows = job.rows((*job.stream.primary_key, DELETED))
    live = f"SELECT count(*) FROM ({rows}) AS s WHERE NOT s.{job.r(DELETED)}"
    known = f"SELECT count(*) FROM ({rows}) AS s JOIN {job.table} AS t ON {job.same_key} WHERE NOT s.{job.r(DELETED)} AND NOT t.{quote(DELETED)}"
    return bool(warehouse.rows(f"SELECT 1 WHERE ({live}) > ({known})"))


def meets(warehouse: Warehouse, job: Merge) -> tuple[int, int]:
    """How many rows have a key that the raw table holds, and of these how many are not older, so that they might be the same;
    much cheaper to ask than which are, as `_raw` is not read."""
    rows = job.rows((*job.stream.primary_key, VERSION))
    [(known, repeats)] = warehouse.rows(
        f"SELECT count(*), count(*) FILTER (WHERE {_not_older(job)}) FROM ({rows}) AS s JOIN {job.table} AS t ON {job.same_key}"
    )
    return known, repeats


def repeated(warehouse: Warehouse, job: Merge) -> str:
    """A query for the `seq` of rows that the raw table holds already, but for the moment of which they are known.

    Only keys that come once count, since with several the order matters.
    """
    known = f"SELECT *, {job.bare} AS is_bare, count(*) OVER (PARTITION BY {job.keys}) AS times FROM ({job.rows()})"
    keys = ", ".join(f"t.{quote(k)}" for k in job.stream.primary_key)
    raw = warehouse.few(job.table, f"({keys}) IN (SELECT {job.keys} FROM ({job.rows(job.stream.primary_key)}) AS k)")
    return (
        f"SELECT s.{SEQUENCE} FROM ({known}) AS s JOIN {raw} AS t ON {job.same_key} WHERE s.times = 1 "
        f"AND {_not_older(job)} AND s.{job.r(DELETED)} = t.{quote(DELETED)} "
        f"AND (s.is_bare OR s.{job.r(RAW)} = t.{quote(RAW)})"
    )


def refresh(warehouse: Warehouse, job: Merge) -> None:
    """Note of repeated rows the moment of which they are known now."""
    rows = job.rows((*job.stream.primary_key, VERSION, EXTRACTED_AT))
    warehouse.execute(
        f"UPDATE {job.table} AS t SET {quote(VERSION)} = s.{job.r(VERSION)}, {quote(EXTRACTED_AT)} = {_seen(job)} "
        f"FROM ({rows}) AS s WHERE {job.same_key} AND {_not_older(job)}"
    )


def _value(source: tuple[str, str] | None, wanted: str) -> str:
    if source is None:
        return f"CAST(NULL AS {wanted})"
    column, kind = source
    if kind != "JSON":
        return converted(column, kind, wanted)
    as_json = f"TRY_CAST({column} AS JSON)"  # JSON travels as text
    return as_json if wanted == "JSON" else converted(as_json, "JSON", wanted)


def _not_older(job: Merge) -> str:
    return f"s.{job.r(VERSION)} >= t.{quote(VERSION)}"


def _seen(job: Merge) -> str:
    return f"greatest(t.{quote(EXTRACTED_AT)}, s.{job.r(EXTRACTED_AT)})"


def _upsert(job: Merge, selection: str) -> str:
    """Replace what is not newer, insert what is new; an older row of a live record only shows that it was seen.

    One that was fetched shows not even that: versions may be told by the second, and what stands here of the second in which
    it was fetched may be of before a write that it is asked about.
    """
    kept = {*job.stream.primary_key, *job.excluded}
    sets = ", ".join(f"{quote(n)} = s.{job.r(n)}" for n in job.types if n not in kept)
    seen = f"WHEN MATCHED AND NOT s.{job.r(DELETED)} THEN UPDATE SET {quote(EXTRACTED_AT)} = {_seen(job)} "
    return (
        f"MERGE INTO {job.table} AS t USING ({selection}) AS s ON {job.same_key} "
        f"WHEN MATCHED AND {_not_older(job)} THEN UPDATE SET {sets} "
        f"{'' if job.fetched else seen}WHEN NOT MATCHED THEN {_insert(job)}"
    )


def _mark(job: Merge, selection: str) -> str:
    marks = ", ".join(f"{quote(n)} = s.{job.r(n)}" for n in (DELETED, VERSION, EXTRACTED_AT))
    return (
        f"MERGE INTO {job.table} AS t USING ({selection}) AS s ON {job.same_key} "
        f"WHEN MATCHED AND {_not_older(job)} THEN UPDATE SET {marks} WHEN NOT MATCHED THEN {_insert(job)}"
    )


def _append(job: Merge) -> str:
    """Put rows into the raw table whose keys it does not hold."""
    names = list(map(job.r, job.types))
    return f"INSERT INTO {job.table} ({', '.join(map(quote, job.types))}) SELECT {', '.join(names)} FROM ({job.rows()}) AS s"


def _insert(job: Merge) -> str:
    return f"INSERT ({', '.join(map(quote, job.types))}) VALUES ({', '.join(f's.{job.r(n)}' for n in job.types)})"
