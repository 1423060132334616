"""Sync files: `syncs/*.yml`, each one sync, its name the file's."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from oploop.errors import FixConfig, Place, did_you_mean, nearest
from oploop.project.nouns import (
    Adopt,
    Check,
    Conflict,
    FieldMapping,
    Limit,
    Limits,
    Mode,
    OnDeleted,
    OnLeave,
    Only,
    OnMiss,
    OnNull,
    Sync,
)
from oploop.project.sqltext import check_expression
from oploop.project.templates import template
from oploop.project.values import Read, choice, duration, flag, require, share, take, text, texts, whole
from oploop.project.yaml import Block, Items, kind, read_yaml

FOLDER = "syncs"
APPS = "oploop.apps"  #: the entry points of types of apps


def read_syncs(root: Path, apps: Collection[str], warnings: list[str]) -> dict[str, Sync]:
    """All syncs of a project by name, in the names' order. Files that look like syncs but are none are warned of."""
    syncs = {}
    for path in sorted(_files(root, warnings)):
        if path.suffix == ".yml":
            sync = read_sync(path, f"{FOLDER}/{path.name}", apps)
            syncs[sync.name] = sync
        else:
            warnings.append(f"{FOLDER}/{path.name}: is not read — rename it to {path.stem}.yml")
    return syncs


def _files(root: Path, warnings: list[str]) -> Iterator[Path]:
    folder = root / FOLDER
    if not folder.is_dir():
        if folder.exists() or folder.is_symlink():
            raise FixConfig("is no folder", mend="make it one; each sync is a file in it", place=Place(FOLDER))
        return
    try:
        entries = list(folder.iterdir())
    except OSError as e:
        raise FixConfig(
            f"cannot be read: {e.strerror}", mend="check the folder's rights", place=Place(FOLDER)
        ) from None
    for path in entries:
        if path.name.startswith("."):
            continue
        if path.is_dir() and any(path.glob("*.y*ml")):
            warnings.append(f"{FOLDER}/{path.name}: syncs in folders below {FOLDER}/ are not read — move them up")
        elif path.suffix in (".yml", ".yaml"):
            yield path  # one that is no file too: reading it says so, where passing it over would drop a sync


def read_sync(path: Path, shown: str, apps: Collection[str]) -> Sync:
    """One sync file. `apps` are the names that `to` may begin with. Raises FixConfig with file, line and mend."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", path.stem):
        raise FixConfig(
            f"{path.stem!r} cannot be a sync's name",
            mend="rename the file: letters, digits, _ and -",
            place=Place(shown),
        )
    block = read_yaml(path, shown)
    taken = take(block, SYNC_KEYS, "the sync")
    require(block, "the sync", "model", "to")
    taken["app"], taken["object"] = _target(taken.pop("to"), block.places["to"], apps)
    taken.setdefault("key", {})
    taken.setdefault("fields", ())
    if taken.get("mode") is Mode.MIRROR:
        taken.setdefault("on_leave", OnLeave.DELETE)
    sync = Sync(name=path.stem, place=Place(shown, 1), source=block, **taken)
    _fits_together(sync)
    for m in sync.fields:
        if m.ref is not None:
            _target(m.ref, sync.place_of("fields", m.field, "ref"), apps, "ref")
    return sync


def _target(to: str, place: Place, apps: Collection[str], key: str = "to") -> tuple[str, str]:
    app, dot, obj = to.partition(".")
    if not dot or not app or not obj:
        raise FixConfig(f"{key}: {to!r} is not app.object", mend=f"write it like `{key}: zendesk.tickets`", place=place)
    if app not in apps:
        mend = did_you_mean(app, apps) if apps else "oploop connect APP adds one"
        raise _misnamed(app, apps) or FixConfig(f"there is no app {app!r} in oploop.yml", mend=mend, place=place)
    return app, obj


def _misnamed(app: str, apps: Collection[str]) -> FixConfig | None:
    """The mistake is the block's and not the sync's: the sync names a type of app, and a block is called almost so."""
    near = nearest(app, apps)
    block = apps[near] if isinstance(apps, Mapping) and near is not None else None
    types = {e.name for e in entry_points(group=APPS)} if block is not None else set[str]()
    if block is None or block.type in types or app not in types:
        return None
    mend = f"did you mean {app!r}, which a sync names?"
    return FixConfig(f"there is no app of type {block.type!r}", mend=mend, place=block.place)


def _fits_together(sync: Sync) -> None:
    """What no key alone can tell."""
    if not sync.key and sync.mode is not Mode.APPEND:
        raise FixConfig("the sync has no key", mend="add `key: {app_field: column}`", place=sync.place_of("key"))
    if not sync.fields and sync.mode in (Mode.UPDATE, Mode.UPSERT):
        raise FixConfig(
            "the sync maps no field", mend="add `fields: {app_field: column}`", place=sync.place_of("fields")
        )


# -- readers of a sync's values -----------------------------------------------------------------------------------


def expression(value: Any, place: Place, name: str) -> str:
    if isinstance(value, bool):
        value = str(value).lower()
    sql = text(value, place, name)
    check_expression(sql, place, name)
    return sql


def model_name(value: Any, place: Place, name: str) -> str:
    model = text(value, place, name)
    if not re.fullmatch(r"\w+(\.\w+){0,2}", model):
        raise FixConfig(f"{model!r} is no model's name", mend="write it like `model: mart.account_health`", place=place)
    return model


def columns(value: Any, place: Place, name: str) -> dict[str, str]:
    """A key: a map of app field to column; a list or a text where the two have one name."""
    found: dict[str, str] = {}
    for label, inner, at in _pairs(value, place, name):
        if label in found:
            raise FixConfig(f"{label!r} stands twice in {name}", mend="remove one of them", place=at)
        found[label] = text(inner, at, f"{name}.{label}")
    return found


def _pairs(value: Any, place: Place, name: str) -> Iterator[tuple[str, Any, Place]]:
    """(app field, what it is mapped to, place) of a map, a list of names and maps, or a name alone."""
    if isinstance(value, str):
        label = text(value, place, name)
        yield label, label, place
    elif isinstance(value, Block):
        for label, inner in value.items():
            yield label, inner, value.places[label]
    elif isinstance(value, Items):
        for item, at in zip(value, value.places, strict=True):
            if isinstance(item, (Items, Block)) and not item:
                raise FixConfig(f"an item of {name} is empty", mend="remove it", place=at)
            yield from _pairs(item if isinstance(item, Block) else text(item, at, f"an item of {name}"), at, name)
    else:
        raise FixConfig(
            f"{name} holds {kind(value)} where a map belongs",
            mend=f"write `{name}: {{app_field: column}}`",
            place=place,
        )


def fields(value: Any, place: Place, name: str) -> tuple[FieldMapping, ...]:
    found: dict[str, FieldMapping] = {}
    for label, inner, at in _pairs(value, place, name):
        if not label.strip():
            raise FixConfig("a field has no name", mend="write `app_field: column`", place=at)
        if label in found:
            raise FixConfig(f"field {label!r} is mapped twice", mend="remove one of them", place=at)
        found[label] = _mapping(label, inner, at)
    return tuple(found.values())


def _mapping(label: str, value: Any, place: Place) -> FieldMapping:
    if isinstance(value, Block):
        taken = take(value, FIELD_KEYS, f"field {label!r}")
        given = set(taken)
        if "set" in taken:
            taken["set_"] = taken.pop("set")
        _one_source(label, given, place)
        return FieldMapping(label, **taken)
    if isinstance(value, (bool, int, float)):
        raise FixConfig(
            f"field {label!r} is mapped to {kind(value)}, not to a column",
            mend=f"for a constant write {{value: {str(value).lower()}}}",
            place=place,
        )
    return FieldMapping(label, column=text(value, place, f"field {label!r}"))


def _one_source(label: str, given: set[str], place: Place) -> None:
    """A field has one source; `ref`, `map` and the like change what comes from it."""
    sources: list[str] = [k for k in ("column", "sql", "template", "value", "set") if k in given]
    if given & {"add", "remove"}:
        sources.append("add/remove")
    what = f"field {label!r}"
    if len(sources) > 1:
        raise FixConfig(f"{what} has {' and '.join(sources)}", mend="keep one of them", place=place)
    if not sources:
        need = (
            "add `column: ...`, whose values are looked up"
            if "ref" in given
            else "add one of column, sql, template, value, set, add, remove"
        )
        raise FixConfig(f"{what} has no source", mend=need, place=place)
    if ("ref" in given) != ("by" in given):
        raise FixConfig(
            f"{what} needs ref and by together", mend="write {ref: app.object, by: its_field, column: ...}", place=place
        )
    if "on_miss" in given and "ref" not in given:
        raise FixConfig(f"{what} has on_miss without ref", mend="remove on_miss", place=place)
    if given & {"ref", "map"} and sources[0] not in ("column", "sql", "value"):
        raise FixConfig(f"{what}: ref and map do not fit {sources[0]}", mend="use column or sql", place=place)


def constant(value: Any, place: Place, name: str) -> Any:
    """A constant: text, number, truth value, null, or a list of such."""
    if isinstance(value, Block):
        raise FixConfig(f"{name} holds a map where a constant belongs", mend="quote this", place=place)
    if isinstance(value, Items):
        return [constant(v, p, name) for v, p in zip(value, value.places, strict=True)]
    return value


def words_map(value: Any, place: Place, name: str) -> dict[str, Any]:
    if not isinstance(value, Block) or not value:
        raise FixConfig(
            f"{name} holds {kind(value)} where a map belongs",
            mend="write `map: {low: At Risk, high: Healthy}`",
            place=place,
        )
    return {k: constant(v, value.places[k], f"{name}.{k}") for k, v in value.items()}


def checks(value: Any, place: Place, name: str) -> tuple[Check, ...]:
    if isinstance(value, (str, Block)):
        return (_check(value, place),)
    if not isinstance(value, Items):
        raise FixConfig(
            f"{name} holds {kind(value)} where a list belongs",
            mend="write each check as `- score between 0 and 100`",
            place=place,
        )
    return tuple(_check(v, p) for v, p in zip(value, value.places, strict=True))


def _check(value: Any, place: Place) -> Check:
    if isinstance(value, Block):
        taken = take(value, CHECK_KEYS, "a check")
        require(value, "a check", "sql")
        return Check(**taken)
    return Check(expression(value, place, "a check"))


def limit(value: Any, place: Place, name: str) -> Limit:
    """A share (`20%`), a count (`100`), or a list of one of each."""
    limit: dict[str, Any] = {}
    items = value if isinstance(value, Items) else [value]
    for item in items:
        which = "share" if isinstance(item, str) else "count"
        if which in limit:
            raise FixConfig(
                f"{name} has two of a kind", mend=f"write `{name}: [20%, 10000]`: one share, one count", place=place
            )
        if isinstance(item, float):
            raise FixConfig(
                f"{name} is neither a share nor a count", mend=f"write `{name}: 20%` or `{name}: 100`", place=place
            )
        limit[which] = share(item, place, name) if which == "share" else whole(item, place, name)
    if not limit:
        raise FixConfig(f"{name} is empty", mend=f"write `{name}: [20%, 10000]`", place=place)
    return Limit(**limit)


def part(value: Any, place: Place, name: str) -> Limit:
    """A share."""
    return Limit(share(value, place, name))


def limits(value: Any, place: Place, name: str) -> Limits:
    if not isinstance(value, Block):
        raise FixConfig(
            f"{name} holds {kind(value)} where a map belongs",
            mend="write `limits: {changes: 20%, held: 10%}`",
            place=place,
        )
    return Limits(**take(value, LIMIT_KEYS, name))


_CRON_PART = r"(\*|\d{1,2}(-\d{1,2})?)(/\d{1,2})?"
_CRON_FIELD = re.compile(rf"{_CRON_PART}(,{_CRON_PART})*")
_CRON_MOST = (59, 23, 31, 12, 7)


def when(value: Any, place: Place, name: str) -> str:
    """`models`, `manual`, or a cron expression of five fields."""
    when = text(value, place, name)
    if when in ("models", "manual"):
        return when
    parts = when.split()
    fits = len(parts) == len(_CRON_MOST) and all(
        _cron_field(p, most) for p, most in zip(parts, _CRON_MOST, strict=True)
    )
    if not fits:
        raise FixConfig(
            f"when cannot be {when!r}", mend='write models, manual, or a cron time like "*/15 * * * *"', place=place
        )
    return when


def _cron_field(part: str, most: int) -> bool:
    return bool(_CRON_FIELD.fullmatch(part)) and all(int(n) <= most for n in re.findall(r"\d+", part))


_ORDER = re.compile(r'(\w+|"[^"]+")(\s+(asc|desc))?', re.IGNORECASE)


def order(value: Any, place: Place, name: str) -> tuple[str, ...]:
    """Columns of the model, each with `desc` or not; one text may hold several, with commas."""
    written = [value] if isinstance(value, str) else texts(value, place, name)
    parts = [p.strip() for each in written for p in each.split(",")]
    for part in parts:
        if not _ORDER.fullmatch(part):
            raise FixConfig(f"order_by cannot be {part!r}", mend="write columns: `order_by: spend desc`", place=place)
    return tuple(parts)


SYNC_KEYS: dict[str, Read] = {
    "model": model_name,
    "to": text,
    "owner": text,
    "description": text,
    "tags": texts,
    "enabled": flag,
    "mode": choice(Mode),
    "key": columns,
    "fields": fields,
    "where": expression,
    "on_null": choice(OnNull),
    "on_leave": choice(OnLeave),
    "on_deleted": choice(OnDeleted),
    "adopt": choice(Adopt),
    "conflict": choice(Conflict),
    "limits": limits,
    "checks": checks,
    "explain": texts,
    "when": when,
    "order_by": order,
    "max_read_age": duration,
    "canary": whole,
    "at_most_once": flag,
}
FIELD_KEYS: dict[str, Read] = {
    "column": text,
    "value": constant,
    "sql": expression,
    "template": template,
    "ref": text,
    "by": text,
    "on_miss": choice(OnMiss),
    "map": words_map,
    "add": texts,
    "remove": texts,
    "set": texts,
    "if_empty": flag,
    "only": choice(Only),
    "on_null": choice(OnNull),
    "conflict": choice(Conflict),
}
CHECK_KEYS: dict[str, Read] = {"sql": expression, "stop": flag, "name": text}
LIMIT_KEYS: dict[str, Read] = {"changes": limit, "held": limit, "removes": limit, "rows": limit, "nulls": part}
