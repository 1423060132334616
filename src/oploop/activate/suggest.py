"""A first draft of a sync: which of a model's columns are which of an object's fields."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from oploop.errors import FixConfig
from oploop.records import Field, Object, Op

#: Values of a picklist, and free fields, that a draft lists.
SHOWN = 12


@dataclass(frozen=True, slots=True)
class Draft:
    """What a sync may look like. Fields by their names in the app, to columns."""

    model: str
    target: str
    mode: str
    modes: Sequence[str]
    key: dict[str, str]
    fields: dict[str, str]
    about: Mapping[str, Field] = field(repr=False)
    free_columns: Sequence[str] = ()  #: columns that match no field
    free_fields: Sequence[str] = ()  #: fields that could be written and match no column


def draft(
    model: str,
    app: str,
    obj: Object,
    described: Mapping[str, Field],
    columns: Sequence[str],
    key: Mapping[str, str] | None = None,
    mode: str | None = None,
) -> Draft:
    """Match a model's columns to an object's fields by their names and titles.

    `key`: app field to column, if the user says it. FixConfig when no column looks like a key.
    """
    fields = _labelled(described)
    modes = modes_of(obj)
    if mode is not None and mode not in modes:
        raise FixConfig(f"{app}.{obj.name} does not take mode {mode!r}", mend=f"it takes: {', '.join(modes)}")
    if key and mode is None and "append" in modes and "update" not in modes and key.keys() - described.keys():
        mode = "append"
    own = mode == "append"  # its key may be the model's own columns
    chosen = dict(key) if key else _key(app, obj, fields, columns)
    for name, column in chosen.items():
        if column not in columns or (name not in described and not (own and name == column)):
            what = f"column {column!r} in {model}" if column not in columns else f"field {name!r} in {app}.{obj.name}"
            raise FixConfig(f"there is no {what}", mend=_how_to_say(fields, modes))
    taken = {described[n].name for n in chosen if n in described}
    open_ = {n: f for n, f in fields.items() if not f.read_only and f.name not in taken}
    matched = {n: c for n, f in open_.items() if (c := _column_of(n, f, columns)) is not None}
    used = {*chosen.values(), *matched.values()}
    return Draft(
        model,
        f"{app}.{obj.name}",
        mode or next(iter(modes), "upsert"),
        modes,
        chosen,
        matched,
        fields,
        [c for c in columns if c not in used],
        [n for n in open_ if n not in matched],
    )


def _labelled(described: Mapping[str, Field]) -> dict[str, Field]:
    """Each field once: a custom one by its title where that stands for it, any other by its name."""
    found: dict[str, tuple[str, Field]] = {}
    for label, f in described.items():
        best = f.title if f.custom and f.title in described else f.name if f.name in described else label
        if label == best or f.name not in found:
            found[f.name] = (label, f)
    return dict(found.values())


def modes_of(obj: Object) -> list[str]:
    """The modes that an object takes; the one that does the least harm first."""
    ops = obj.operations.keys()
    fits = {
        "update": Op.UPDATE in ops,
        "upsert": bool({Op.UPSERT} & ops) or {Op.CREATE, Op.UPDATE} <= ops,
        "create": bool({Op.CREATE, Op.UPSERT} & ops),
        "mirror": Op.REMOVE in ops and bool({Op.UPSERT, Op.UPDATE} & ops),
        "append": Op.CREATE in ops,
    }
    return [mode for mode, fit in fits.items() if fit]


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _column_of(label: str, f: Field, columns: Sequence[str]) -> str | None:
    names = {_plain(n) for n in (label, f.name, f.title or "") if n}
    names |= {n.removesuffix("c") for n in names if f.custom and f.name.endswith("__c")}
    return next((c for c in columns if _plain(c) in names), None)


def _key(app: str, obj: Object, fields: Mapping[str, Field], columns: Sequence[str]) -> dict[str, str]:
    """The first field that may identify a record and that a column is named after."""
    able = {n: f for n, f in fields.items() if f.key}
    for name, f in sorted(able.items(), key=lambda nf: nf[1].name == obj.id_column):
        column = _column_of(name, f, columns)
        if column is not None and f.name != obj.id_column:
            return {name: column}
    one = re.sub(r"ies$", "y", obj.name.rpartition(".")[2]).removesuffix("s")
    for name, f in able.items():
        if f.name == obj.id_column:
            wanted = {_plain(f"{one}_id"), _plain(f"{app}_id"), _plain(f"{app}_{one}_id"), _plain(name)}
            column = next((c for c in columns if _plain(c) in wanted), None)
            if column is not None:
                return {name: column}
    raise FixConfig(
        f"no column looks like a key of {app}.{obj.name}: {', '.join(able) or 'it has no key field'}",
        mend=_how_to_say(fields, modes_of(obj)),
    )


def _how_to_say(fields: Mapping[str, Field], modes: Sequence[str]) -> str:
    """How to name the key, of an object that is appended to by the model's own columns, too."""
    ways = ["--key FIELD=COLUMN"] if any(f.key for f in fields.values()) else []
    ways += ["--key COLUMN --mode append, of the columns that tell rows apart"] if "append" in modes else []
    return f"say which: {', or '.join(ways or ['--key FIELD=COLUMN'])}"


def as_yaml(d: Draft) -> str:
    """The draft as a sync's file, with what a person needs to choose as comments."""
    others = ", ".join(m for m in d.modes if m != d.mode)
    lines = [
        "# yaml-language-server: $schema=../.schema/sync.json",
        "# A first draft: look at each line, then `oploop plan`.",
        f"model: {_word(d.model)}",
        f"to: {_word(d.target)}",
        f"mode: {d.mode}" + (f"   # also: {others}" if others else ""),
        f"key: {_key_text(d.key)}",
        "fields:" if d.fields else "fields: {}   # no column is named like a field",
    ]
    lines += [f"  {_word(n)}: {_word(c)}{_note(d.about[n])}" for n, c in d.fields.items()]
    if d.free_columns:
        lines += ["# columns that are named like no field:", *(f"#   {_word(c)}" for c in d.free_columns)]
    if d.free_fields:
        lines.append("# other fields:")
        lines += [f"#   {_word(n)}: ...{_note(d.about[n])}" for n in d.free_fields[:SHOWN]]
        more = len(d.free_fields) - SHOWN
        lines += [f"#   and {more} more: oploop apps {d.target.replace('.', ' ', 1)}"] if more > 0 else []
    return "\n".join(lines) + "\n"


def _key_text(key: Mapping[str, str]) -> str:
    """A list where the names are equal, else a map."""
    if all(n == c for n, c in key.items()):
        return f"[{', '.join(map(_word, key))}]"
    return f"{{{', '.join(f'{_word(n)}: {_word(c)}' for n, c in key.items())}}}"


def _note(f: Field) -> str:
    """What a person must know of a field to write it: its type, its list of values."""
    words = [f.type.value]
    if f.required:
        words.append("needed for a new record")
    if f.enum is not None:
        words.append("one of " + ", ".join(f.enum[:SHOWN]) + (", ..." if len(f.enum) > SHOWN else ""))
    elif f.max_length is not None:
        words.append(f"up to {f.max_length:,} characters")
    return "   # " + " ".join("; ".join(words).split())


def _word(text: str) -> str:
    """A text as YAML takes it: plain where that is safe."""
    plain = re.fullmatch(r"[A-Za-z_][\w.]*", text) and text.lower() not in (
        "null",
        "true",
        "false",
        "yes",
        "no",
        "on",
        "off",
        "y",
        "n",
    )
    return text if plain else json.dumps(text, ensure_ascii=False)


__all__ = ["Draft", "as_yaml", "draft", "modes_of"]
