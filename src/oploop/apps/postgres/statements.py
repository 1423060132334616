"""One set-based statement for a batch: staged rows into a table, and which of them it took.

Rows are staged in a temporary table: `n` the change's number, `k0..` the texts that find its row, `c0..` the values,
`m0..` whether a value is sent (only where not all rows send it), `g0..` what columns must still hold. A statement's answer
has a row (n, id, taken) for each change that is not simply done: its id where the database made it (THERE for a row that is
there, and was left alone as it is no longer as it was read), and whether the table took it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from oploop.apps.postgres.catalog import PgColumn, Table
from oploop.records import ColumnType, Op

STAGE = "pg_temp.oploop_stage"
DONE = "pg_temp.oploop_done"
BAD = "pg_temp.oploop_bad"
#: For the transaction, pages out of order cost hardly more than those in order, as on solid state; 1.1 is what "Planner Cost Constants"
#: in PostgreSQL's manual names for it. By the server's default of 4, which thinks of a disk that turns, 1% of a million rows are
#: looked for through the whole table: 260 ms in place of 46. A server that says less by itself is left alone.
BY_INDEX = "SELECT set_config('random_page_cost', LEAST(current_setting('random_page_cost')::float8, 1.1)::text, true)"
#: In place of an id: the row is there, and not as it was read.
THERE = "there"

#: Types whose values are compared as jsonb: whatever the settings, what is read of them is what `to_jsonb` makes of them.
AS_JSONB = frozenset(("jsonb", "_text", "_varchar", "_int2", "_int4", "_int8", "_bool", "_uuid"))
#: In place of what a column must still hold: nobody can tell by what was read.
UNSURE = "#"

#: Rows that are tried at once where some of a batch are bad, before each is tried alone.
CHUNK = 100


@dataclass(frozen=True, slots=True)
class Shape:
    """What a batch stages. `find`: the columns by which rows are found; `values`: those that are written; `partial`:
    of them those that not every row sends; `keep_null`: of them those whose NULL, in an upsert, means "not sent"; `guards`: of
    them those that must still hold what they were read with, for the row to be updated."""

    table: Table
    op: Op
    find: tuple[PgColumn, ...]
    values: tuple[PgColumn, ...] = ()
    partial: frozenset[str] = field(default_factory=frozenset)
    keep_null: frozenset[str] = field(default_factory=frozenset)
    guards: tuple[PgColumn, ...] = ()

    @property
    def id_known(self) -> bool:
        """Whether a new row's id is a staged value as it is; else the database tells it."""
        key = self.table.key_columns
        plain = len(key) == 1 and key[0].of.name in ("int2", "int4", "int8", "text", "varchar")
        return plain and key[0].name in {v.name for v in self.values}

    @property
    def reshaped(self) -> bool:
        """Whether a trigger may make another row of a new one, with another key."""
        return self.table.reshaped and self.op in (Op.CREATE, Op.UPSERT)

    def stage_columns(self) -> list[tuple[str, str]]:
        """(name, type) of the staging table's columns in order."""
        columns = [("n", "int8")] + [(f"k{i}", "text") for i in range(len(self.find))]
        columns += [(f"c{i}", v.kind.stage) for i, v in enumerate(self.values)]
        columns += [(f"m{i}", "bool") for i, v in enumerate(self.values) if v.name in self.partial]
        return columns + [(f"g{i}", g.kind.stage) for i, g in enumerate(self.guards)]

    def unchanged(self) -> str:
        """The condition that the row still holds what was read of the columns that are to be set."""
        at = {v.name: i for i, v in enumerate(self.values)}
        tests = []
        for i, g in enumerate(self.guards):
            test = f"{g.kind.read.format(f't.{g.sql}')} IS NOT DISTINCT FROM s.g{i}"
            if g.kind.column is ColumnType.JSON:
                now, then = f"NULLIF(to_jsonb(t.{g.sql}), 'null')", f"NULLIF(s.g{i}, '{UNSURE}')::jsonb"
                test = f"(s.g{i} IS NOT DISTINCT FROM '{UNSURE}' OR {now} IS NOT DISTINCT FROM {then})"
            tests.append(f"(NOT s.m{at[g.name]} OR {test})" if g.name in self.partial else test)
        return " AND ".join(tests) or "true"

    def same(self, other: str = "t") -> str:
        """The condition that a row of the table is the one that a staged row is about."""
        return " AND ".join(f"{other}.{c.sql} = {found(c, i)}" for i, c in enumerate(self.find))


def found(column: PgColumn, i: int) -> str:
    """A staged text of a key as a value of its column's type."""
    return column.kind.write.format(f"s.k{i}")


def make_stage(shape: Shape) -> str:
    columns = ", ".join(f"{name} {kind}" for name, kind in shape.stage_columns())
    return f"CREATE TEMP TABLE oploop_stage ({columns}) ON COMMIT DROP"


def copy_stage() -> str:
    return f"COPY {STAGE} FROM STDIN (FORMAT binary)"


def copy_csv() -> str:
    return f"COPY {STAGE} FROM STDIN (FORMAT csv)"


@dataclass(frozen=True, slots=True)
class Statement:
    """`do` changes the table, in a CTE; `answer` selects (n, id, taken) from it."""

    do: str
    answer: str

    def __str__(self) -> str:
        return f"{self.do} {self.answer}"


def statement(shape: Shape, rows: str = "TRUE", *, alone: bool = False) -> Statement:
    """The statement for the staged rows for which `rows`, a condition over `s`, holds; `alone`: it holds for one.

    Of new rows of a table in which a trigger may change them the answer has them all, and in a fourth column whether the row
    was `found` by the key that was staged: of several that were not it tells no ids.
    """
    match shape.op:
        case Op.UPDATE:
            return _update(shape, rows)
        case Op.REMOVE:
            return _remove(shape, rows)
        case _:
            return _insert(shape, rows, alone)


def quick(shape: Shape) -> str | None:
    """The insert of rows of which none stands in the table yet, and of which nothing has to be answered; None where there is none.

    `ON CONFLICT` and `RETURNING` take the server as long as the insert itself.
    """
    if shape.op not in (Op.CREATE, Op.UPSERT) or not shape.id_known:
        return None
    return _into(shape, "TRUE")


#: Types whose values `COPY` reads as `quick` would have cast them.
_PLAIN = ("bool", "int2", "int4", "int8", "float8", "text", "varchar", "date", "timestamptz")


def straight(shape: Shape) -> str | None:
    """`COPY` of the values, in order, into the table itself: what `quick` does, in half the server's time. None where it could
    do anything else, or where there is no `quick`."""
    table = shape.table
    if quick(shape) is None or table.relkind not in ("r", "p") or table.ruled or table.reshaped:
        return None
    if any(v.of.kind != "b" or v.type not in _PLAIN for v in shape.values):
        return None
    return f"COPY {table.sql} ({', '.join(v.sql for v in shape.values)}) FROM STDIN (FORMAT csv)"


def kept(shape: Shape) -> str:
    """How many of the staged rows are in the table by the key, and the id, that were staged."""
    at = {v.name: (v, f"s.c{i}") for i, v in enumerate(shape.values)}
    same = [shape.same()]
    if shape.id_known:
        v, staged = at[shape.table.key_columns[0].name]
        same.append(f"t.{v.sql} = {v.kind.write.format(staged)}")
    return f"SELECT count(*) FROM {STAGE} AS s JOIN {shape.table.sql} AS t ON {' AND '.join(same)}"


def _into(shape: Shape, rows: str) -> str:
    columns = ", ".join(v.sql for v in shape.values)
    values = ", ".join(v.kind.write.format(f"s.c{i}") for i, v in enumerate(shape.values))
    return f"INSERT INTO {shape.table.sql} AS t ({columns}) SELECT {values} FROM {STAGE} AS s WHERE {rows}"


def _update(shape: Shape, rows: str) -> Statement:
    sets = []
    for i, v in enumerate(shape.values):
        value = v.kind.write.format(f"s.c{i}")
        sets.append(
            f"{v.sql} = " + (f"CASE WHEN s.m{i} THEN {value} ELSE t.{v.sql} END" if v.name in shape.partial else value)
        )
    do = (
        f"WITH done AS (UPDATE {shape.table.sql} AS t SET {', '.join(sets)} FROM {STAGE} AS s "
        f"WHERE {shape.same()} AND {shape.unchanged()} AND {rows} RETURNING s.n)"
    )
    there = "NULL::text"
    if shape.guards:
        there = f"CASE WHEN EXISTS (SELECT 1 FROM {shape.table.sql} AS t WHERE {shape.same()}) THEN '{THERE}' END"
    return Statement(
        do,
        f"SELECT s.n, {there} AS id, false AS taken FROM {STAGE} AS s WHERE {rows} AND s.n NOT IN (SELECT n FROM done)",
    )


def _remove(shape: Shape, rows: str) -> Statement:
    """A row that is not there is as it was wanted, so there is nothing to tell."""
    do = f"WITH done AS (DELETE FROM {shape.table.sql} AS t USING {STAGE} AS s WHERE {shape.same()} AND {rows} RETURNING 1)"
    return Statement(do, "SELECT NULL::int8 AS n, NULL::text AS id, true AS taken WHERE false")


def _insert(shape: Shape, rows: str, alone: bool) -> Statement:
    conflict = _on_conflict(shape) if shape.op is Op.UPSERT else ""
    returned = ", ".join(f"t.{c.sql} AS r{i}" for i, c in enumerate(shape.find))
    made_id = f", {shape.table.id_sql('t')} AS id" if shape.table.key else ", NULL::text AS id"
    do = f"WITH done AS ({_into(shape, rows)} {conflict}RETURNING {returned}{made_id})"
    # fewer than were staged: a trigger kept some out; as many, but not to be found: a trigger changed their key
    short = f"(SELECT count(*) FROM done) < (SELECT count(*) FROM {STAGE} AS s WHERE {rows})"
    same = " AND ".join(f"d.r{i} = {found(c, i)}" for i, c in enumerate(shape.find))
    if shape.reshaped:
        answer = f"SELECT s.n, d.id, d.r0 IS NOT NULL OR NOT {short} AS taken, COALESCE({same}, false) AS found "
        answer += f"FROM {STAGE} AS s LEFT JOIN done AS d ON {'true' if alone else same} WHERE {rows}"
    elif shape.id_known:
        answer = f"SELECT s.n, NULL::text AS id, false AS taken FROM {STAGE} AS s WHERE {rows} AND NOT EXISTS (SELECT 1 FROM done AS d WHERE {same}) AND {short}"
    else:
        answer = f"SELECT s.n, d.id, d.r0 IS NOT NULL OR NOT {short} AS taken FROM {STAGE} AS s LEFT JOIN done AS d ON {same} WHERE {rows}"
    return Statement(do, answer)


def _on_conflict(shape: Shape) -> str:
    keys = {c.name for c in shape.find}
    sets = []
    for v in shape.values:
        if v.name not in keys:
            new = f"EXCLUDED.{v.sql}"
            sets.append(f"{v.sql} = " + (f"COALESCE({new}, t.{v.sql})" if v.name in shape.keep_null else new))
    if not sets:  # nothing but the key is sent; yet the row must be returned
        sets = [f"{shape.find[0].sql} = EXCLUDED.{shape.find[0].sql}"]
    return f"ON CONFLICT ({', '.join(c.sql for c in shape.find)}) DO UPDATE SET {', '.join(sets)} "


def look_up(shape: Shape) -> str:
    """(n, id) of staged rows that are in the table."""
    return f"SELECT s.n, {shape.table.id_sql('t')} FROM {STAGE} AS s JOIN {shape.table.sql} AS t ON {shape.same()}"


def make_careful() -> str:
    """Tables for what a careful delivery answers."""
    return (
        "CREATE TEMP TABLE oploop_done (n int8, id text, taken bool, found bool) ON COMMIT DROP; "
        "CREATE TEMP TABLE oploop_bad (n int8, message text, detail text) ON COMMIT DROP; "
        f"CREATE INDEX ON {STAGE} (n)"
    )


def careful(shape: Shape, numbers: Sequence[int]) -> str:
    """A block for the server that delivers a batch of which some rows are bad: each chunk at once, the rows of one that
    is refused each alone, as are all of which a trigger may make others. Fills `oploop_done` and `oploop_bad`; what is no fault
    of the rows stops it."""
    chunk = 1 if shape.reshaped else CHUNK
    some = statement(shape, "s.n BETWEEN oploop_low AND oploop_high", alone=shape.reshaped)
    insert = f"{some.do} INSERT INTO {DONE} (n, id, taken{', found' if shape.reshaped else ''}) {some.answer}"
    bounds = [(part[0], part[-1]) for part in (numbers[i : i + chunk] for i in range(0, len(numbers), chunk))]
    lows, highs = (",".join(str(b[side]) for b in bounds) for side in (0, 1))
    body = f"""
DECLARE
  oploop_low int8; oploop_high int8; oploop_lows int8[] := ARRAY[{lows}]; oploop_highs int8[] := ARRAY[{highs}];
  oploop_n int8; oploop_state text; oploop_message text; oploop_detail text;
BEGIN
  FOR i IN 1 .. array_length(oploop_lows, 1) LOOP
    oploop_low := oploop_lows[i]; oploop_high := oploop_highs[i];
    BEGIN
      {insert};
    EXCEPTION WHEN OTHERS THEN
      FOR oploop_n IN SELECT s.n FROM {STAGE} AS s WHERE s.n BETWEEN oploop_lows[i] AND oploop_highs[i] ORDER BY 1 LOOP
        oploop_low := oploop_n; oploop_high := oploop_n;
        BEGIN
          {insert};
        EXCEPTION WHEN OTHERS THEN
          GET STACKED DIAGNOSTICS oploop_state = RETURNED_SQLSTATE, oploop_message = MESSAGE_TEXT,
            oploop_detail = PG_EXCEPTION_DETAIL;
          IF left(oploop_state, 2) IN ('08', '40', '53', '55', '57', '58', 'XX') THEN
            RAISE;
          END IF;
          INSERT INTO {BAD} VALUES (oploop_n, oploop_message, oploop_detail);
        END;
      END LOOP;
    END;
  END LOOP;
END"""
    tag = "$oploop$"
    while tag in body:
        tag = tag[:-1] + "_$"
    return f"DO {tag}{body} {tag}"


__all__ = [
    "BAD",
    "DONE",
    "STAGE",
    "THERE",
    "Shape",
    "Statement",
    "careful",
    "copy_stage",
    "kept",
    "look_up",
    "make_careful",
    "make_stage",
    "quick",
    "statement",
    "straight",
]
