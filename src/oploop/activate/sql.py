"""The diff as one statement: model rows, the app's rows, what we sent and what the app stored, side by side.

Columns of the plan table that it makes (one row for each model row that is not the same):

    __number   order of sending, from 1; NULL where nothing is to be sent
    __key      the key's canonical text; k0, k1 ... the key's values in the app's types
    __remote   the app's id, where the record is known
    __status   create | update | archive | remove (sent), kept | held | gone | missing | parked | left | seen | waiting (for a
               record that this run makes)
    __left     whether the record's row has left the model
    __bad      which rule holds the row (an index into `Diff.rules`), 0 for none
    __value    the value that broke the rule, as text
    w0, w1 ..  wanted values; b0, b1 .. what the app holds; c0, c1 .. whether the field is to be sent;
    d0, d1 ..  whether somebody changed the field in the app since we sent it, and it differs (it is sent all the same
               where c says so: `conflict: ours`); o0 .. whether it was never sent before
    __why      JSON of the sync's `explain` columns
    __q0 ..    of a reference to the object itself: the key of the row whose record it waits for
    __stamp    the record's stamp as it was read, where updates are conditional by one
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from oploop.activate import keys, references
from oploop.activate.bound import BoundField, BoundSync
from oploop.activate.jsontext import after_json, json_object
from oploop.activate.mapping import MODEL
from oploop.activate.refbind import RAWT
from oploop.activate.references import RefKnown
from oploop.activate.rules import Rule, bad_of
from oploop.activate.states import state_column
from oploop.activate.waiting import noted
from oploop.records import DELETED, EXTRACTED_AT, VERSION, Canonical
from oploop.warehouse.base import Warehouse, literal, quote, quote_table
from oploop.warehouse.forms import canonical

#: Reasons for which one field of a record is parked, by its value: the others of the record are sent.
BY_FIELD = "('undone', 'tug-of-war')"


@dataclass(frozen=True, slots=True)
class Known:
    """What the warehouse has about a sync's target, so that the statement joins only what is there.

    `vouched`: a complete read that began (our clock) at or before this time plus the stream's lag has seen every
    write acknowledged before it; None when there was no complete read. `lag`: the stream's, in seconds.
    `state`: the relation that holds the sync's state, one row a record; `names`: the sync's, and those it had before.
    """

    has_state: bool
    has_records: bool
    has_parked: bool
    state_fields: frozenset[str]
    key_unique: bool
    vouched: datetime | None
    lag: float = 0.0
    state: str = ""
    names: tuple[str, ...] = ()
    parked_fields: bool = False  #: `oploop.parked` tells fields, which that of an earlier release does not
    undone: frozenset[str] = frozenset()  #: labels of fields that are parked in some record (see `BY_FIELD`)
    refs: Mapping[int, RefKnown] = field(default_factory=dict)  #: of the fields that are references, by position
    has_removed: bool = False  #: records of the object were removed by us
    appended: bool = False  #: an append sync has marked or sent its first rows


@dataclass(frozen=True, slots=True)
class Rest:
    """The table of rows that are not simply the same, with what the app holds of each (see `sameness`); how many they are.

    `missing`: the app has no record by the key of some of them."""

    table: str
    rows: int
    missing: bool


def model_select(bound: BoundSync, *, keys_as_text: bool = True) -> str:
    """The sync's view of its model: keys, wanted values, checks; before anything of the app is known. Without `keys_as_text` a
    native key is a number in `__key` and `__p0` too."""
    native = native_key(bound)
    texts = [k.wanted for k in bound.keys] if keys_as_text or native is None else [native[0]]
    cols = [f"{_joined(texts)} AS __key", f"{native[0] if native else _joined(texts)} AS __join"]
    for i, k in enumerate(bound.keys):
        cols += [f"{texts[i]} AS __p{i}", f"{k.value} AS k{i}"]
    for i, f in enumerate(bound.fields):
        if f.ref is not None:
            cols += references.model_columns(f, i)
        elif not f.in_place:
            cols.append(f"{f.wanted} AS w{i}")
            if not f.fits:
                cols.append(f"{f.source} AS __s{i}")
        if f.unmapped is not None:
            cols.append(f"{f.unmapped} AS __u{i}")
    cols += [f"({c.sql}) AS __x{j}" for j, c in enumerate(bound.checks)]
    if bound.order:
        cols.append(f"row_number() OVER (ORDER BY {', '.join(bound.order)}) AS __rank")
    why = json_object([(e, f"{MODEL}.{quote(e)}", None) for e in bound.explain]) if bound.explain else "NULL"
    cols.append(f"{why} AS __why")
    where = f" WHERE {bound.where}" if bound.where else ""
    return f"SELECT {', '.join(cols)} FROM {quote_table(bound.model_table)} AS {MODEL}{where}"


def app_select(bound: BoundSync, *, with_key: bool = False, with_values: bool = True, ids_as_text: bool = True) -> str:
    """The app's records as last read, deleted ones too. `with_key`: the canonical text of their keys as well; `with_values`:
    the mapped fields' values (binding them takes engines longer than a small sync's comparison). `ids_as_text`: else
    `__remote` is of the raw table's type."""
    assert bound.raw_table is not None
    native = native_key(bound)
    remote = f"{RAWT}.{quote(bound.id_column)}"
    cols = [
        f"{native[1] if native else _joined([k.now for k in bound.keys])} AS __join",
        f"{f'CAST({remote} AS VARCHAR)' if ids_as_text else remote} AS __remote",
        f"{RAWT}.{VERSION} AS __version",
        f"{RAWT}.{EXTRACTED_AT} AS __read_at",
        f"{RAWT}.{DELETED} AS __deleted",
    ]
    if with_key:
        cols.append(f"{_joined([k.now for k in bound.keys])} AS __akey")
    if with_values:
        cols += [f"{f.now or f.nothing} AS n{i}" for i, f in enumerate(bound.fields)]
        cols += [f"{bound.stamped} AS __stamp"] if bound.stamp is not None else []
    return f"SELECT {', '.join(cols)} FROM {quote_table(bound.raw_table)} AS {RAWT}"


def held_columns(bound: BoundSync) -> list[str]:
    """What is taken of the app's record: columns of `app_select`."""
    stamp = ["__stamp"] if bound.stamp is not None else []
    return ["__version", "__read_at", *(f"n{i}" for i in range(len(bound.fields))), *stamp]


def native_key(bound: BoundSync) -> tuple[str, str] | None:
    """What to join on instead of the key's canonical text: a single whole number, over MODEL and over RAWT."""
    return bound.keys[0].native if len(bound.keys) == 1 else None


def _joined(parts: Sequence[str]) -> str:
    """One text for a key of several fields; NULL when any is."""
    return parts[0] if len(parts) == 1 else "(" + " || chr(31) || ".join(parts) + ")"


def plan_columns(bound: BoundSync, value: str) -> str:
    """The columns of the plan table but the number; `value`: of the rule that the row broke."""
    cols = [
        "__key",
        *(f"k{i}" for i in range(len(bound.keys))),
        "__remote",
        "__status",
        "__bad",
        value,
        "__why",
        "__left",
    ]
    cols += ["__rank"] if bound.order else []
    cols += [f"__q{i}" for i in references.own_waits(bound)]
    cols += ["__stamp"] if bound.stamp is not None else []
    return ", ".join(cols + [f"{p}{i}" for i in range(len(bound.fields)) for p in ("w", "b", "c", "d", "o")])


#: Rows of a sync's own order that are sent together, whatever is done with them.
RANKED = 1000
#: In which order changes are sent: nothing is taken away before what is new or moved has been delivered.
_ORDER = "CASE __status WHEN 'create' THEN 1 WHEN 'update' THEN 2 WHEN 'archive' THEN 3 ELSE 4 END"


def diff_select(
    bound: BoundSync,
    warehouse: Warehouse,
    known: Known,
    rules: Sequence[Rule],
    only: str | None,
    left: Sequence[str] = (),
    rest: Rest | None = None,
) -> str:
    """The statement. `only`: just the row with this canonical key; `left`: CTEs that end in `left_rows`; `rest`: the rows to
    look at, if those that the app holds already are known."""
    keep = f" WHERE __key = {literal(only)}" if only is not None else ""
    base = _base(bound, warehouse, known, rest)
    if bound.recreates:
        base = _reborn(bound, base)
    parts = [f"base AS ({base}{'' if left else keep})"]
    parts.append(f"compared AS ({compared(bound, warehouse, known, 'base', lists=True)}{keep if left else ''})")
    parts += [f"decided AS ({_decided(bound, warehouse, known)})", f"judged AS ({_judged(bound, rules, known)})", *left]
    return _finish(bound, known, rules, parts, left=bool(left), rest=rest)


def append_select(bound: BoundSync, known: Known, rules: Sequence[Rule], parts: Sequence[str], only: str | None) -> str:
    """The statement of an append sync; `parts`: CTEs that end in `every`."""
    keep = f" WHERE __key = {literal(only)}" if only is not None else ""
    return _finish(bound, known, rules, [*parts, f"judged AS (SELECT * FROM every{keep})"], left=False)


def _finish(
    bound: BoundSync, known: Known, rules: Sequence[Rule], parts: Sequence[str], *, left: bool, rest: Rest | None = None
) -> str:
    """The statement from its CTEs: the model before them, parked changes and the numbers behind."""
    ctes = [f"model AS ({model_select(bound) if rest is None else f'SELECT * FROM {rest.table}'})"]
    ctes.append(f"twice AS ({repeated('model')})")
    found = f"SELECT {plan_columns(bound, broken(rules))} FROM ({_parked(bound, known, 'judged')}) AS t WHERE __status <> 'same'"
    if left:
        more = plan_columns(bound, "__value")
        found += f" UNION ALL SELECT {more} FROM ({_parked(bound, known, 'left_rows')}) AS t WHERE __status <> 'same'"
    sent = "__status IN ('create', 'update', 'archive', 'remove')"
    order = order_of(bound, "__key, __remote")
    number = f"CASE WHEN {sent} THEN row_number() OVER (PARTITION BY {sent} ORDER BY {order}) END"
    return f"WITH {', '.join([*ctes, *parts])} SELECT {number} AS __number, {plan_columns(bound, '__value')} FROM ({found}) AS t"


def order_of(bound: BoundSync, key: str, *, alike: bool = False) -> str:
    """In which order changes are sent: by the sync's own, in thousands, so that calls of each kind stay full; then by key.
    `alike`: all are of one kind."""
    first, then = (
        (f"CAST(floor(__rank / {RANKED:.1f}) AS BIGINT) NULLS LAST, ", "__rank, ") if bound.order else ("", "")
    )
    return f"{first}{then}{key}" if alike else f"{first}{_ORDER}, {then}{key}"


def repeated(model: str) -> str:
    """The keys, `dkey`, that are in more than one row of the model."""
    return f"SELECT __join AS dkey FROM {model} WHERE __join IS NOT NULL GROUP BY 1 HAVING count(*) > 1"


def _reborn(bound: BoundSync, base: str) -> str:
    """Records that were deleted in the app, taken for ones that never were: their rows make new ones."""
    n = range(len(bound.fields))
    hidden = ["__remote", *(f"{p}{i}" for i in n for p in ("n", "s", "t"))]
    shown = [f"CASE WHEN __dead THEN NULL ELSE {c} END AS {c}" for c in hidden]
    shown += [f"(__known{i} AND NOT __dead) AS __known{i}" for i in n]
    return f"SELECT * REPLACE ({', '.join([*shown, 'FALSE AS __dead'])}) FROM ({base}) AS t"


def broken(rules: Sequence[Rule]) -> str:
    """The column `__value`: of the rule that a row broke."""
    arms = [f"WHEN {n} THEN CAST({r.value} AS VARCHAR)" for n, r in enumerate(rules, 1) if r.value is not None]
    return f"(CASE __bad {' '.join(arms)} END) AS __value" if arms else "NULL::VARCHAR AS __value"


def _base(bound: BoundSync, warehouse: Warehouse, known: Known, rest: Rest | None) -> str:
    """The model's rows beside the app's, and the record's state."""
    n = range(len(bound.fields))
    joins = "FROM model m LEFT JOIN twice ON twice.dkey = m.__join"
    if bound.blind:
        app = "NULL::BIGINT AS __version, NULL::TIMESTAMPTZ AS __read_at, FALSE AS __dead, 0 AS __hits"
        nows = [f"NULL::{warehouse.sql_type(bound.fields[i].field.type)} AS n{i}" for i in n]
        remote = "s.remote_id AS __remote" if known.has_state else "NULL::VARCHAR AS __remote"
        state_key = "m.__key"
        if known.has_records:
            joins += f" LEFT JOIN oploop.records rec ON {_same_record(bound)}"
            remote = f"COALESCE(rec.remote_id, {'s.remote_id' if known.has_state else 'NULL'}) AS __remote"
    else:
        held = _held(bound, known, rest)
        joins += held.joins
        state_key, nows = held.remote, list(held.nows)
        app, remote = f"COALESCE({held.gone}, FALSE) AS __dead, {held.hits} AS __hits", f"{held.remote} AS __remote"
    state = "NULL::TIMESTAMPTZ AS __acked, NULL::BIGINT AS __receipt"
    if known.has_state:
        its = known.state
        if rest is not None and not rest.missing:
            its = f"(SELECT * FROM {its} AS f WHERE remote_id IN (SELECT a__remote FROM {rest.table}))"
        joins += f" LEFT JOIN {its} s ON s.remote_id = {state_key}"
        state = "s.acked_at AS __acked, s.receipt_version AS __receipt"
    joins += references.joins(bound, known.refs)
    values = references.base_columns(bound, warehouse, known.refs)
    values += [state_values(bound, warehouse, known, i) for i in n]
    if known.undone:
        joins += f" LEFT JOIN ({_undone(bound, known)}) und ON und.key = m.__key"
        values += [f"und.u{i} AS __u_{i}" for i, f in enumerate(bound.fields) if f.label in known.undone]
    return (
        f"SELECT m.*, twice.dkey IS NOT NULL AS __twice, {remote}, {app}, {', '.join([*nows, state, *values])} {joins}"
    )


@dataclass(frozen=True, slots=True)
class _Held:
    """What the app holds of the model's row `m`, as expressions over `joins`; `remote`: the record's id, also of one that we
    made and no read shows by this key; `gone`: it was deleted."""

    joins: str
    remote: str
    hits: str
    gone: str
    nows: Sequence[str]


def _held(bound: BoundSync, known: Known, rest: Rest | None) -> _Held:
    cols = held_columns(bound)
    a = "a." if rest is None else "m.a"
    there, hits, plain = f"{a}__remote", f"COALESCE({a}__hits, 0)", [f"{a}{c} AS {c}" for c in cols]
    joins = f" LEFT JOIN ({live(bound, known)}) a ON a.__join = m.__join" if rest is None else ""
    if rest is not None and not rest.missing:
        return _Held(joins, there, hits, "FALSE", plain)
    ours = " AND " + _not_removed(bound, known, "archived too") if known.has_removed else ""
    away = app_select(bound, with_values=False)
    dead = f"SELECT DISTINCT __join FROM ({away}) AS t WHERE __deleted AND __join IS NOT NULL{ours}"
    joins += f" LEFT JOIN ({dead}) dead ON dead.__join = m.__join"
    if not known.has_records:
        return _Held(joins, there, hits, f"{there} IS NULL AND dead.__join IS NOT NULL", plain)
    # a record that we made and the read does not show yet, or whose key somebody changed in the app
    # one equality, as a condition on the left side alone would make engines try each pair of rows
    nobody = f"CASE WHEN {there} IS NULL THEN m.__key END"
    joins += f" LEFT JOIN oploop.records rec ON {_same_record(bound, nobody)}"
    its = app_select(bound)
    if rest is not None:
        known_by = keys.in_form(bound, "canonical_key")
        made = f"SELECT remote_id FROM oploop.records WHERE {known_by} IN (SELECT __key FROM {rest.table} WHERE a__remote IS NULL)"
        its = f"SELECT * FROM ({its}) AS t WHERE __remote IN ({made})"
    joins += f" LEFT JOIN ({its}) a2 ON a2.__remote = rec.remote_id"
    absent = "FALSE"
    if known.has_state and known.vouched is not None:  # a complete read must have shown it, and did not
        acked = "COALESCE(s.acked_at, rec.known_since)"  # another sync made it, this one never wrote it
        absent = f"(a2.__remote IS NULL AND {vouched(acked, known.vouched)})"
    gone = (
        f"{there} IS NULL AND (a2.__deleted IS TRUE OR {absent} OR (rec.remote_id IS NULL AND dead.__join IS NOT NULL))"
    )
    # a NULL of the live row must not be filled from the other
    nows = [f"CASE WHEN {there} IS NOT NULL THEN {a}{c} ELSE a2.{c} END AS {c}" for c in cols]
    return _Held(joins, f"COALESCE({there}, rec.remote_id)", hits, gone, nows)


def _same_record(bound: BoundSync, key: str = "m.__key") -> str:
    """The join of a row to the record that we made for its key."""
    return (
        f"rec.app = {literal(bound.sync.app)} AND rec.object = {literal(bound.sync.object)} "
        f"AND rec.key_fields = {literal(bound.key_names)} AND {keys.in_form(bound, 'rec.canonical_key')} = {key}"
    )


def live(bound: BoundSync, known: Known, *, ids_as_text: bool = True) -> str:
    """Live app records, one a key; `__hits` counts how many have the key (more than one: ambiguous)."""
    records = app_select(bound, ids_as_text=ids_as_text)
    live = f"SELECT * FROM ({records}) AS t WHERE NOT __deleted AND __join IS NOT NULL"
    if known.has_removed:  # a read of before we removed it still shows it
        live += " AND " + _not_removed(bound, known, "until a read shows it again")
    if known.key_unique:
        return f"SELECT *, 1 AS __hits FROM ({live})"
    return (
        f"SELECT *, count(*) OVER (PARTITION BY __join) AS __hits FROM ({live}) "
        "QUALIFY row_number() OVER (PARTITION BY __join ORDER BY __remote) = 1"
    )


def _not_removed(bound: BoundSync, known: Known, which: str) -> str:
    """Whether the record `t` is none that we removed: ever, or so recently that what was read of it is no news."""
    test = f"z.app = {literal(bound.sync.app)} AND z.object = {literal(bound.sync.object)} AND z.remote_id = t.__remote"
    if which.startswith("until"):
        test += f" AND z.op = 'remove' AND {not_news_to('z.removed_at', 't.__read_at', known.lag)}"
    return f"NOT EXISTS (SELECT 1 FROM oploop.removed z WHERE {test})"


def not_news_to(at: str, read_at: str, lag: float) -> str:
    """Whether a read is too old to tell what became of what was done at an instant."""
    return f"COALESCE({read_at} <= {at} + INTERVAL '{lag:f} seconds', TRUE)"


def state_values(bound: BoundSync, warehouse: Warehouse, known: Known, i: int) -> str:
    """What we sent of a field, what the app then stored, and when: typed, NULL where it was never sent."""
    name, sql_type = bound.fields[i].field.name, warehouse.sql_type(bound.fields[i].field.type)
    if name not in known.state_fields:
        return f"NULL::{sql_type} AS s{i}, NULL::{sql_type} AS t{i}, FALSE AS __known{i}"
    sent, stored, at = (f"s.{state_column(name, p)}" for p in ("sent", "stored", "at"))
    return f"CAST({sent} AS {sql_type}) AS s{i}, CAST({stored} AS {sql_type}) AS t{i}, {at} IS NOT NULL AS __known{i}"


def superseded(known: Known) -> str:
    """Whether the app's row, as read, is news to the last acknowledgement of that record (design: §5.2)."""
    patient = f"__read_at > __acked + INTERVAL '{known.lag:f} seconds'"
    by_read = (
        f"CASE WHEN __receipt IS NULL THEN {patient} ELSE __version >= __receipt AND __read_at > __acked END IS TRUE"
    )
    if known.vouched is not None:
        by_read += f" OR {vouched('__acked', known.vouched)}"
    return f"COALESCE(__acked IS NULL OR {by_read}, FALSE)"


def vouched(acked: str, vouched: datetime) -> str:
    return f"{acked} < TIMESTAMPTZ {literal(vouched.isoformat())}"


def compared(bound: BoundSync, warehouse: Warehouse, known: Known, base: str, *, lists: bool) -> str:
    """`b`: what the app holds as far as can be known; `lists`: wanted lists that depend on it."""
    cols = [f"{base}.*"]
    for i, f in enumerate(bound.fields):
        before = f"CASE WHEN __known{i} AND NOT {superseded(known)} THEN t{i} ELSE n{i} END"
        if bound.blind or f.now is None:
            before = f"t{i}"
        cols.append(f"{before} AS b{i}")
        if f.in_place and lists:
            cols.append(f"{warehouse.list_merge(before, f.add, f.remove)} AS w{i}")
    return f"SELECT {', '.join(cols)} FROM {base}"


def _undone(bound: BoundSync, known: Known) -> str:
    """Per key and field the value, as JSON text, that is not sent: an undo took it back, or people change it back."""
    picks = [
        f"any_value(wanted) FILTER (WHERE field = {literal(f.label)}) AS u{i}"
        for i, f in enumerate(bound.fields)
        if f.label in known.undone
    ]
    return (
        f"SELECT {keys.in_form(bound, 'key')} AS key, {', '.join(picks)} FROM oploop.parked WHERE reason IN {BY_FIELD} "
        f"AND field IS NOT NULL AND {_parked_here(bound, known)} GROUP BY 1"
    )


def _parked_here(bound: BoundSync, known: Known) -> str:
    names = ", ".join(map(literal, known.names))
    return f"sync IN ({names}) AND app = {literal(bound.sync.app)} AND object = {literal(bound.sync.object)}"


def _wants_back(bound: BoundSync, warehouse: Warehouse, i: int) -> str:
    """Whether the model wants just the value that is parked; of a list that is added to, any."""
    f = bound.fields[i]
    if f.in_place:
        return f"__u_{i} IS NOT NULL"
    taken = noted(f"('{{\"v\":' || __u_{i} || '}}')", "v", f.field.type, warehouse.sql_type(f.field.type))
    return f"(__u_{i} IS NOT NULL AND w{i} IS NOT DISTINCT FROM {taken})"


def _decided(bound: BoundSync, warehouse: Warehouse, known: Known) -> str:
    """Per field: send it (c), somebody changed it (d), never sent before (o), parked (e)."""
    cols = ["compared.*"]
    for i, f in enumerate(bound.fields):
        w, b, s, t = (comparable(f"{p}{i}", f.field.canonical) for p in ("w", "b", "s", "t"))
        unlike = differs(f, i)
        drift = f"__known{i} AND {b} IS DISTINCT FROM {t}"
        moved = f"{w} IS DISTINCT FROM {s}"
        if f.in_place:  # what the sync itself wants is the additions, not the list that they are added to
            moved = f"{warehouse.list_merge(f's{i}', f.add, f.remove)} IS DISTINCT FROM s{i}"
        in_drift = {"ours": "TRUE", "hold": "FALSE"}.get(f.conflict, moved)
        send = (
            f"({unlike}) AND (__remote IS NULL OR NOT __known{i} OR CASE WHEN {drift} THEN {in_drift} ELSE {moved} END)"
        )
        if f.label in known.undone:
            back = f"(__remote IS NOT NULL AND {_wants_back(bound, warehouse, i)})"
            cols.append(f"COALESCE({send} AND {back}, FALSE) AS e{i}")
            send = f"{send} AND NOT {back}"
        cols.append(f"COALESCE({send}, FALSE) AS c{i}")
        theirs = "" if f.conflict == "ours" else f" AND NOT ({in_drift})"
        cols.append(f"COALESCE(({unlike}) AND {drift}{theirs}, FALSE) AS d{i}")
        cols.append(f"NOT __known{i} AS o{i}")
    return f"SELECT {', '.join(cols)} FROM compared"


def differs(f: BoundField, i: int, held: str = "b") -> str:
    """Whether the model wants something of a field that the app does not hold; never NULL. `held`: the columns of that."""
    w, b = (comparable(f"{p}{i}", f.field.canonical) for p in ("w", held))
    tests = [f"{w} IS DISTINCT FROM {b}"]
    if f.ref is not None:
        tests.append(f"(w{i} IS NOT NULL OR {references.may_be_null(f, i)})")
    elif f.on_null != "clear":
        tests.append(f"w{i} IS NOT NULL")
    if f.if_empty:
        tests.append(f"{held}{i} IS NULL")
    if f.only_create:
        tests.append("__remote IS NULL")
    return " AND ".join(tests)


def comparable(expr: str, form: Canonical) -> str:
    return expr if form is Canonical.EXACT else canonical(expr, form)


def waiting_arm(bound: BoundSync) -> str:
    """The arm of the status for rows that refer to a record which this run makes."""
    waits = " OR ".join(f"__h{i}" for i, f in enumerate(bound.fields) if f.ref is not None and f.ref.on_miss == "hold")
    return f"WHEN {waits} THEN 'waiting' " if waits else ""


def _judged(bound: BoundSync, rules: Sequence[Rule], known: Known) -> str:
    bad = bad_of(rules)
    any_sent = " OR ".join(f"c{i}" for i in range(len(bound.fields))) or "FALSE"
    any_kept = " OR ".join(f"d{i}" for i in range(len(bound.fields))) or "FALSE"
    create = "'create'" if bound.create_op is not None else "'missing'"
    back = [f"e{i}" for i, f in enumerate(bound.fields) if f.label in known.undone]
    back += [f"d{i}" for i, f in enumerate(bound.fields) if f.conflict == "hold"]
    undone = f"WHEN {' OR '.join(back)} THEN 'parked' " if back else ""
    update = f"WHEN {any_sent} THEN 'update' {undone}WHEN {any_kept} THEN 'kept'" if bound.update_op is not None else ""
    waiting = waiting_arm(bound)
    more = "".join(f", {column}" for column in references.waited_for(bound))
    return (
        f"SELECT *, CASE WHEN __bad > 0 THEN 'held' WHEN __dead THEN 'gone' {waiting}WHEN __remote IS NULL THEN {create} "
        f"{update} ELSE 'same' END AS __status, FALSE AS __left{more} FROM (SELECT *, {bad} AS __bad FROM decided) AS t"
    )


def _parked(bound: BoundSync, known: Known, rows: str) -> str:
    """Changes that are parked and would be the same again are not sent again."""
    if not known.has_parked:
        return f"SELECT * FROM {rows}"
    after = after_json(bound)
    column = "field IS NULL AND " if known.parked_fields else ""
    whole = f"SELECT * FROM oploop.parked WHERE {column}{_parked_here(bound, known)}"
    same = f"{keys.in_form(bound, 'p.key')} = j.__key AND j.__status IN ('create', 'update', 'archive', 'remove') AND (p.wanted IS NULL OR p.wanted = {after})"
    return (
        "SELECT j.* REPLACE (CASE WHEN p.key IS NOT NULL THEN 'parked' ELSE j.__status END AS __status) "
        f"FROM {rows} j LEFT JOIN ({whole}) p ON {same}"
    )
