"""A plan in a file: reviewed today, applied later, sending only what is still equal.

The file is JSON, readable by its owner only, since it holds people's data:
{"format": 2, "project", "environment", "saved_at", "syncs": {name: {"object", "changes": [[key, op, before, after], ...]}}},
where `before` and `after` are the JSON texts of what the app holds and of what is to be sent, exactly as the diff writes them:
who looked at a plan has not looked at what somebody wrote since, least of all into a record that is to be removed.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from oploop.activate import diff as d
from oploop.activate.jsontext import after_json, before_json
from oploop.activate.plan import SyncPlan
from oploop.errors import FixConfig
from oploop.warehouse.base import Warehouse, quote_table

FORMAT = 2
#: What stands of each change.
COLUMNS = ("key", "op", "before", "after")


@dataclass(frozen=True, slots=True)
class SavedPlan:
    """A plan read back from its file. `syncs`: name -> rows of (key, op, before, after)."""

    project: str
    environment: str
    saved_at: datetime
    syncs: dict[str, list[list[str]]]


def save(
    path: Path, project: str, environment: str, now: datetime, plans: list[SyncPlan], warehouse: Warehouse
) -> None:
    """Write plans to a file of mode 0600; an existing file is replaced at once or not at all."""
    if not path.name or (path.exists() and not path.is_file()):  # a device would be replaced by a file
        raise FixConfig(f"cannot write the plan to {str(path)!r}: it is no file", mend="choose another file")
    syncs: dict[str, Any] = {}
    for plan in plans:
        rows = warehouse.rows(
            f"SELECT __key, __status, {before_json(plan.bound)}, {after_json(plan.bound)} FROM {quote_table(plan.diff.table)} "
            "WHERE __number IS NOT NULL ORDER BY __number"
        )
        syncs[plan.bound.name] = {"object": plan.bound.app_object, "changes": [list(r) for r in rows]}
    data = {
        "format": FORMAT,
        "project": project,
        "environment": environment,
        "saved_at": now.isoformat(),
        "syncs": syncs,
    }
    partial = path.with_name(path.name + ".partial")
    try:
        fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(fd, "wb") as f:
            f.write(orjson.dumps(data))
        partial.replace(path)
    except OSError as e:
        raise FixConfig(f"cannot write the plan to {path}: {e.strerror}", mend="choose another file") from None


def load(path: Path) -> SavedPlan:
    """Read a saved plan; FixConfig when the file is none."""
    try:
        data = orjson.loads(path.read_bytes())
        if data["format"] != FORMAT:
            raise FixConfig(f"{path} was saved by another version of oploop", mend="plan again")
        syncs = {name: s["changes"] for name, s in data["syncs"].items()}
        for rows in syncs.values():
            if not all(len(row) == len(COLUMNS) and all(isinstance(text, str) for text in row) for row in rows):
                raise TypeError("a change is four texts")
        return SavedPlan(data["project"], data["environment"], datetime.fromisoformat(data["saved_at"]), syncs)
    except OSError as e:
        raise FixConfig(
            f"cannot read the plan {path}: {e.strerror}", mend="oploop plan --save FILE writes one"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise FixConfig(f"{path} is no saved plan", mend="oploop plan --save FILE writes one") from None


def restrict(diff_: d.Diff, warehouse: Warehouse, rows: list[list[str]]) -> tuple[d.Diff, list[str]]:
    """Keep of a fresh plan table only the changes that are equal to the saved ones; the keys of those that are not.

    Changes that came up since the plan was saved are not in the result, as nobody has looked at them.
    """
    import pyarrow as pa

    columns = [pa.array([r[i] for r in rows], pa.string()) for i in range(len(COLUMNS))]
    saved = pa.table(columns, names=list(COLUMNS))
    table = quote_table(
        diff_.table
    )  # of the fresh plan, which may stand in the warehouse; what is kept of it is temporary
    texts = f"f.before = {before_json(diff_.bound)} AND f.after = {after_json(diff_.bound)}"
    same = f"f.key = p.__key AND f.op = p.__status AND {texts}"
    warehouse.register("oploop_saved", saved)
    try:
        warehouse.execute(
            f"CREATE OR REPLACE TEMP TABLE oploop_equal AS SELECT p.* FROM {table} p WHERE p.__number IS NULL OR EXISTS "
            f"(SELECT 1 FROM oploop_saved f WHERE {same})"
        )
        lost = warehouse.rows(
            f"SELECT f.key FROM oploop_saved f WHERE NOT EXISTS (SELECT 1 FROM {table} p WHERE p.__number IS NOT NULL AND {same}) ORDER BY 1"
        )
    finally:
        warehouse.unregister("oploop_saved")
    # numbers must run without gaps: a journal row names its changes by first and last
    warehouse.execute(
        f"CREATE OR REPLACE TEMP TABLE {quote_table(diff_.name)} AS SELECT * REPLACE (CASE WHEN __number IS NOT NULL THEN row_number() OVER "
        "(PARTITION BY __number IS NOT NULL ORDER BY __number) END AS __number) FROM oploop_equal"
    )
    return d.counted(replace(diff_, table=diff_.name), warehouse), [d.show_key(r[0]) or "" for r in lost]
