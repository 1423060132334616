"""A trace for people: one page, from what the record holds to where it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from oploop.cli import show
from oploop.cli.out import Out, columns

if TYPE_CHECKING:
    from oploop.trace import Past, SourceRows, Trace, TracedField, TracedSync


def lines(out: Out, t: Trace, now: datetime, environment: str) -> list[str]:
    """The page."""
    page = _head(out, t, now)
    for s in t.syncs:
        page += ["", *_sync(out, s)]
    if not t.syncs:
        page += ["", f"no sync writes {t.app}.{t.object}: all its values are the app's own"]
    for s in t.syncs:
        page += _origins(out, s)
    if t.sources:
        page += ["", out.bold("source rows")]
        for source in t.sources:
            page += _source(out, source)
    page += ["", *_history(out, t.history, now)]
    return page


def _head(out: Out, t: Trace, now: datetime) -> list[str]:
    name = f"{t.app}.{t.object} {t.remote_id or '(not in the app)'}"
    state = [f"read {show.ago(t.read_at, now)}"] if t.read_at is not None else []
    if t.read_at is None and t.remote_id is not None:
        state.append("no read has shown it")
    if t.deleted:
        state.append(out.style("deleted in the app", fg="red"))
    head = [f"{out.bold(name)}   {out.dim(' · '.join(state))}".rstrip()]
    if t.about:
        head.append("  " + " · ".join(show.value(v, 70) for v in t.about.values()))
    return head


def _sync(out: Out, s: TracedSync) -> list[str]:
    """The sync, the model's row that it stands on, and the fields side by side."""
    key = ", ".join(f"{k} {show.value(v)}" for k, v in s.key.items() if v is not None)
    page = [f"{out.bold('sync ' + s.sync)}   {s.model}{'   ' + key if key else ''}", f"  {show.clean(s.says)}"]
    if s.explain:
        page.append("  because  " + " · ".join(f"{k} {show.value(v, 60)}" for k, v in s.explain.items()))
    rows = [_field(f) for f in s.fields]
    return [*page, *columns(rows, head=("field", "in the app", "wanted", "why"), indent=2)]


def _field(f: TracedField) -> tuple[str, ...]:
    """The wanted value is "same" where it is what the app holds."""
    same = f.wanted == f.now and f.wanted is not None
    return (
        f.field,
        show.value(f.now, 72 if same else 44),
        "same" if same else show.value(f.wanted, 44),
        show.clean(f.why),
    )


def _origins(out: Out, s: TracedSync) -> list[str]:
    """Which raw columns the fields are computed from."""
    tables: dict[str, dict[str, set[str]]] = {}
    for f in s.fields:
        for table, names in f.sources.items():
            at = tables.setdefault(table, {"columns": set(), "fields": set()})
            at["columns"] |= set(names)
            at["fields"].add(f.field)
    if not tables:
        return []
    every = {f.field for f in s.fields if f.sources}
    rows = []
    for table, at in sorted(tables.items()):
        only = "" if at["fields"] == every else f"only {', '.join(sorted(at['fields']))}"
        rows.append((table, ", ".join(sorted(at["columns"])), out.dim(only)))
    through = list(dict.fromkeys(m for f in s.fields for m in f.through))
    lines = ["", out.bold("computed from"), *columns(rows, indent=2)]
    return [*lines, out.dim(f"  through {', '.join(through)}")] if through else lines


def _source(out: Out, s: SourceRows) -> list[str]:
    also = f", as {s.same_as}" if s.same_as else ""
    count = show.count(s.total, "row") + (
        f", {'newest' if s.ordered else 'some'} {len(s.rows)}" if s.total > len(s.rows) else ""
    )
    title = f"  {out.bold(s.table)}   {out.dim(f'{show.value(s.by, 60)}   {count}{also}')}"
    body = columns([[show.value(v, 28) for v in row] for row in s.rows], head=[out.dim(c) for c in s.columns], indent=4)
    return [title, *body]


def _history(out: Out, history: Sequence[Past], now: datetime) -> list[str]:
    """All changes, newest first: a line for each, and one for each field below it."""
    if not history:
        return ["oploop never changed this record"]
    page = [out.bold("what oploop did")]
    for p in history:
        error = f": {show.value(p.error, 90)}" if p.error else ""
        page.append(
            f"  {show.clock(p.at, now)}  {p.op}, {p.status}{error}   {out.dim(f'sync {p.sync} · run {p.run_id}')}"
        )
        rows = [(n, f"{show.value(m['before'], 40)} → {show.value(m['after'], 72)}") for n, m in p.fields.items()]
        page += columns(rows, indent=9)
    return page
