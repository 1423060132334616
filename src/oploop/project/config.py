"""`oploop.yml` and the whole project as typed objects."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from oploop.errors import FixConfig, Place
from oploop.project.alerts import Alert, alerts, check_apps
from oploop.project.lock import FieldsLock, read_fields_lock
from oploop.project.models import ModelsBlock, check_targets, models, unread_tests
from oploop.project.nouns import Sync
from oploop.project.secrets import Variables, looks_secret
from oploop.project.syncs import read_syncs
from oploop.project.values import Read, a_map, choice, duration, moment, require, share, take, text, texts
from oploop.project.yaml import Block, Items, kind, read_yaml

FILE = "oploop.yml"
LONGEST = 255  #: bytes that a file's name may have
ALWAYS = ("dev", "prod")  #: environments that exist without being named
_NAME = re.compile(r"[a-z][a-z0-9_]*")


class WarehouseType(StrEnum):
    """Kinds of warehouses."""

    DUCKDB = "duckdb"
    POSTGRES = "postgres"


@dataclass(frozen=True, slots=True)
class WarehouseBlock:
    """Where the data is kept: `database`, the absolute path of a file, or a server's `dsn`, as written."""

    type: WarehouseType
    database: Path
    place: Place | None = None
    dsn: str | None = field(default=None, repr=False)
    variables: Variables | None = field(default=None, repr=False, compare=False)

    @property
    def server(self) -> bool:
        """Whether it is a server, which many processes may use at once."""
        return self.dsn is not None

    def address(self) -> str:
        """The server's address with its secrets; FixConfig, with the place, when a variable is not set."""
        assert self.dsn is not None
        return self.variables.fill(self.dsn, self.place) if self.variables is not None else self.dsn


@dataclass(frozen=True, slots=True)
class StreamBlock:
    """How one stream is read: from when on (aware UTC), without which fields, how often at most (seconds)."""

    since: datetime | None = None
    exclude: tuple[str, ...] = ()
    every: float | None = None
    place: Place | None = None


@dataclass(frozen=True, slots=True)
class Budget:
    """How much of the account's quota oploop may use: a share of its rate, and a share of the day's to leave over."""

    share: float = 1.0
    keep_daily: float = 0.0


@dataclass(frozen=True, slots=True)
class HttpBlock:
    """How an account's requests go out, as written: `${VAR}` is filled in when the app is made. `timeout` in seconds."""

    places: Mapping[str, Place]
    proxy: str | None = field(default=None, repr=False)  # may hold a password
    ca: str | None = None
    timeout: float | None = None


@dataclass(frozen=True, slots=True)
class TableBlock:
    """A table into which another tool loads a stream: `key`, `version` and `deleted` are its columns.

    `columns`: names in the app to names in the table, where these differ by more than case and underscores. `lag`:
    seconds after which a change in the app is surely in the table.
    """

    table: str
    key: str
    version: str
    place: Place
    deleted: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    lag: float = 86_400.0


@dataclass(frozen=True, slots=True)
class AppBlock:
    """An app as the project names it. `options` are its own keys, as written: `${VAR}` is filled in by validate_block."""

    name: str
    type: str
    options: Block = field(repr=False)  # may hold a secret that was written down
    read: dict[str, StreamBlock]
    budget: Budget
    place: Place
    root: Path
    variables: Variables = field(repr=False, compare=False)
    tables: dict[str, TableBlock] = field(default_factory=dict)  #: streams that another tool loads
    http: HttpBlock | None = None

    def place_named(self, text: str) -> Place:
        """The line of the key that a message names, one with a secret before others; else of the whole block."""
        words = set(re.findall(r"\w+", text))
        named = sorted((k for k in self.options.places if k in words), key=lambda k: "${" not in str(self.options[k]))
        return self.options.places[named[0]] if named else self.place


@dataclass(frozen=True, slots=True)
class Environment:
    """A named version of the models."""

    name: str
    description: str | None = None


@dataclass(frozen=True, slots=True)
class Retention:
    """For how many seconds the ledger keeps what it tells; None: for ever."""

    changes: float | None = None
    held: float | None = None
    runs: float | None = None


@dataclass(frozen=True, slots=True)
class Project:
    """The user's folder. All paths are absolute."""

    name: str
    root: Path
    warehouse: WarehouseBlock
    models: ModelsBlock
    apps: dict[str, AppBlock]
    environments: dict[str, Environment]
    syncs: dict[str, Sync]
    warnings: list[str]
    retention: Retention = Retention()
    alerts: tuple[Alert, ...] = ()
    locked: FieldsLock = field(default_factory=dict)

    @property
    def state_dir(self) -> Path:
        """Where oploop keeps its state; made by whoever writes it first."""
        return self.root / ".oploop"


def find_project(start: Path) -> Path:
    """The folder with `oploop.yml`: `start` or the nearest above it. FixConfig when there is none."""
    folder = Path(os.path.abspath(start))
    for each in (folder, *folder.parents):
        if os.path.isfile(each / FILE):
            return each
    raise FixConfig(f"no {FILE} in {folder} or above it", mend=_begin(folder))


def _begin(folder: Path) -> str:
    """How there comes to be a project in a folder."""
    other = Path(FILE).with_suffix(".yaml").name
    if os.path.isfile(folder / other):
        return f"rename {other} to {FILE}"
    return "run `oploop init` to make a project, or `oploop demo` to see one work"


def load_project(folder: Path, env: Mapping[str, str] | None = None) -> Project:
    """Read a project's files. `env` is where `${VAR}` is looked up first (default: the process's), then `.env`.

    Needs no secret and no network, and writes nothing. Raises FixConfig with file, line and mend.
    """
    root = Path(os.path.abspath(folder))
    if not os.path.isfile(root / FILE):
        raise FixConfig(f"no {FILE} in {root}", mend=_begin(root))
    variables = Variables(root, env)
    block = read_yaml(root / FILE, FILE)
    taken = take(block, PROJECT_KEYS, FILE)
    require(block, FILE, "name")
    named = taken.get("apps", Block(block.place))
    apps = {n: _app(n, b, named.places[n], root, variables) for n, b in named.items()}
    warnings = [w for app in apps.values() for w in looks_secret(app.name, app.options)]
    if isinstance(block.get("warehouse"), Block):
        warnings += looks_secret("warehouse", block["warehouse"])
    syncs = read_syncs(root, apps, warnings)
    check_apps(taken.get("alerts", ()), apps)
    where = {**{n: Environment(n) for n in ALWAYS}, **taken.get("environments", {})}
    built_by = models(taken.get("models"), block.places.get("models", block.place), root, variables)
    check_targets(built_by, where)
    warnings += unread_tests(built_by)
    return Project(
        name=taken["name"],
        root=root,
        warehouse=_warehouse(taken.get("warehouse"), block, root, variables),
        models=built_by,
        apps=apps,
        environments=where,
        syncs=syncs,
        warnings=warnings,
        retention=taken.get("retention", Retention()),
        alerts=taken.get("alerts", ()),
        locked=read_fields_lock(root),
    )


# -- readers of oploop.yml ----------------------------------------------------------------------------------------


def project_name(value: Any, place: Place, key: str) -> str:
    """A project's name; FixConfig when it is none."""
    name = text(value, place, key)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_. -]*", name):
        raise FixConfig(f"{name!r} is no project's name", mend="use letters, digits, _ . - and spaces", place=place)
    return name


def by_name(value: Any, place: Place, key: str) -> Block:
    """A map by names that can stand in a table's name."""
    block = a_map(value, place, key)
    for name in block:
        if not _NAME.fullmatch(name):
            raise FixConfig(
                f"{name!r} cannot be a name in {key}", mend="use small letters, digits and _", place=block.places[name]
            )
    return block


def environments(value: Any, place: Place, key: str) -> dict[str, Environment]:
    found = {}
    block = by_name(value, place, key)
    for name, inner in block.items():
        where = a_map(inner, block.places[name], name)
        found[name] = Environment(name, **take(where, ENVIRONMENT_KEYS, f"environment {name}"))
    return found


def kept(value: Any, place: Place, key: str) -> float | None:
    """How long something is kept: a time span of a day at least, or `forever`."""
    if value == "forever":
        return None
    seconds = duration(value, place, key)
    if seconds < SHORTEST:
        raise FixConfig(f"{key} is shorter than a day", mend=f"write `{key}: 90d`, or `{key}: forever`", place=place)
    return seconds


def retention(value: Any, place: Place, key: str) -> Retention:
    return Retention(**take(a_map(value, place, key), RETENTION_KEYS, key))


SHORTEST = 24 * 3600.0  #: the shortest retention, in seconds

PROJECT_KEYS: dict[str, Read] = {
    "name": project_name,
    "warehouse": a_map,
    "models": a_map,
    "apps": by_name,
    "environments": environments,
    "retention": retention,
    "alerts": alerts,
}
RETENTION_KEYS: dict[str, Read] = {"changes": kept, "held": kept, "runs": kept}
WAREHOUSE_KEYS: dict[str, Read] = {"type": choice(WarehouseType), "database": text, "dsn": text}
ENVIRONMENT_KEYS: dict[str, Read] = {"description": text}
STREAM_KEYS: dict[str, Read] = {"since": moment, "exclude": texts, "every": duration}
BUDGET_KEYS: dict[str, Read] = {"share": share, "keep_daily": share}


def _path(root: Path, written: str) -> Path:
    return Path(os.path.normpath(root / os.path.expanduser(written)))


def _warehouse(inner: Block | None, block: Block, root: Path, variables: Variables) -> WarehouseBlock:
    if inner is None:
        return WarehouseBlock(WarehouseType.DUCKDB, root / "warehouse.duckdb")
    taken = take(inner, WAREHOUSE_KEYS, "warehouse")
    if taken.get("type", WarehouseType.DUCKDB) is not WarehouseType.DUCKDB:
        return _server(taken, inner, block, root, variables)
    if "dsn" in taken:
        raise FixConfig(
            "warehouse.dsn is for a server", mend="add `type: postgres`, or remove it", place=inner.places["dsn"]
        )
    database = taken.get("database", "warehouse.duckdb")
    place = inner.places.get("database", block.places["warehouse"])
    if re.match(r":|\w{2,}:", database):
        raise FixConfig(
            f"warehouse.database is no file: {database}", mend="write `database: warehouse.duckdb`", place=place
        )
    path = _path(root, variables.fill(database, place))
    if any(len(os.fsencode(part)) > LONGEST for part in path.parts):
        mend = "write `database: warehouse.duckdb`"
        raise FixConfig(f"warehouse.database has a name of more than {LONGEST} bytes", mend=mend, place=place)
    return WarehouseBlock(taken.get("type", WarehouseType.DUCKDB), path, place)


def _server(taken: Mapping[str, Any], inner: Block, block: Block, root: Path, variables: Variables) -> WarehouseBlock:
    """A warehouse that is a server."""
    if "database" in taken:
        raise FixConfig(
            "warehouse.database is for type: duckdb", mend="name the database in dsn", place=inner.places["database"]
        )
    if "dsn" not in taken:
        raise FixConfig("warehouse has no 'dsn'", mend="add `dsn: ${WAREHOUSE_DSN}`", place=block.places["warehouse"])
    return WarehouseBlock(taken["type"], root, inner.places["dsn"], taken["dsn"], variables)


def streams(value: Any, place: Place, key: str) -> dict[str, StreamBlock]:
    """The streams to read: a list of names, or a map from name to how."""
    if isinstance(value, Block):
        return {n: _stream(n, v, value.places[n]) for n, v in value.items()}
    if isinstance(value, str):
        return {text(value, place, key): StreamBlock(place=place)}
    if not isinstance(value, Items):
        raise FixConfig(
            f"{key} holds {kind(value)} where a list belongs", mend="write `read: [customers, charges]`", place=place
        )
    found: dict[str, StreamBlock] = {}
    for item, at in zip(value, value.places, strict=True):
        named = {n: _stream(n, v, item.places[n]) for n, v in item.items()} if isinstance(item, Block) else None
        if named is None:
            named = {text(item, at, "a stream"): StreamBlock(place=at)}
        for name in named.keys() & found.keys():
            raise FixConfig(f"stream {name!r} stands twice", mend="remove one of them", place=at)
        found |= named
    return found


def _stream(name: str, value: Any, place: Place) -> StreamBlock:
    return StreamBlock(place=place, **take(a_map(value, place, name), STREAM_KEYS, f"stream {name}"))


def column_names(value: Any, place: Place, key: str) -> dict[str, str]:
    """App field to column of a table."""
    block = a_map(value, place, key)
    return {n: text(v, block.places[n], n) for n, v in block.items()}


TABLE_KEYS: dict[str, Read] = {
    "table": text,
    "key": text,
    "version": text,
    "deleted": text,
    "lag": duration,
    "columns": column_names,
}


def tables(value: Any, place: Place, key: str) -> dict[str, TableBlock]:
    """The streams that another tool loads, by name."""
    found = {}
    for name, inner in a_map(value, place, key).items():
        at = value.places[name]
        block = a_map(inner, at, name)
        taken = take(block, TABLE_KEYS, f"table {name}")
        require(block, f"table {name}", "table", "key", "version")
        found[name] = TableBlock(place=at, **taken)
    return found


def budget(value: Any, place: Place, key: str) -> Budget:
    budget = Budget(**take(a_map(value, place, key), BUDGET_KEYS, key))
    if budget.share == 0:
        raise FixConfig("a budget of 0% would let nothing through", mend="write `budget: {share: 50%}`", place=place)
    return budget


HTTP_KEYS: dict[str, Read] = {"proxy": text, "ca": text, "timeout": duration}


def http(value: Any, place: Place, key: str) -> HttpBlock:
    block = a_map(value, place, key)
    return HttpBlock(block.places, **take(block, HTTP_KEYS, key))


#: The keys that every app takes and that are read here; all others are the app's own (see validate_block).
APP_KEYS: dict[str, Read] = {"type": text, "read": streams, "budget": budget, "tables": tables, "http": http}


def _app(name: str, value: Any, place: Place, root: Path, variables: Variables) -> AppBlock:
    block = a_map(value, place, name)
    options = Block(block.place)
    taken: dict[str, Any] = {}
    for key, inner in block.items():
        if key in APP_KEYS:
            taken[key] = APP_KEYS[key](inner, block.places[key], key)
        else:
            options[key], options.places[key] = inner, block.places[key]
    for table in taken.get("tables", {}).values():
        if re.search(rf"(^|\.)(raw_{re.escape(name)}|oploop\w*)\.\w+$", table.table, re.IGNORECASE):
            mend = "name the table that the other tool fills"
            raise FixConfig(f"{table.table} is a table of oploop's own", mend=mend, place=table.place)
    return AppBlock(
        name=name,
        type=taken.get("type", name),
        options=options,
        read=taken.get("read", {}),
        budget=taken.get("budget", Budget()),
        place=place,
        root=root,
        variables=variables,
        tables=taken.get("tables", {}),
        http=taken.get("http"),
    )
