"""What dbt tells of a call: the lines that it logs, and `run_results.json`. What has not the shape of it counts as not told."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from oploop.errors import FixConfig
from oploop.project.dbt import Manifest

OLDEST = 12  #: the manifest's version; v12 came with dbt 1.8
_WANTED = "use dbt-core 1.8 or a later 1.x: `pip install 'dbt-core==1.11.*'`, or name such a one: models.command"


@dataclass(frozen=True, slots=True)
class Event:
    """A line that dbt logs as JSON. `node`: the model or test it is about; `compiled`, `version`: where it tells that."""

    name: str
    level: str
    message: str
    node: str = ""
    compiled: str = ""
    version: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a model or a test. `failures`: rows that a test found."""

    status: str
    seconds: float = 0.0
    failures: int = 0
    message: str = ""

    @property
    def bad(self) -> bool:
        """It failed itself; a skipped one did not."""
        return self.status in ("error", "fail", "runtime error")


def event(line: str) -> Event | None:
    """What a line tells; None where it is none of dbt's JSON."""
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    info = found.get("info") if isinstance(found, dict) else None
    if not isinstance(info, dict):
        return None
    data = _map(found.get("data"))
    return Event(
        name=_text(info.get("name")),
        level=_text(info.get("level")),
        message=_text(info.get("msg")),
        node=_text(_map(data.get("node_info")).get("node_name")),
        compiled=_text(data.get("compiled")),
        version=_text(data.get("version")).lstrip("="),
    )


def said(events: Iterable[Event], plain: Sequence[str]) -> str:
    """dbt's own error: of the event that ends it, else of the command line's complaint."""
    errors = [e for e in events if e.level == "error"]
    for e in errors:
        if e.name in ("MainEncounteredError", "MainReportArgs"):
            return e.message
    lines = [line.strip() for line in plain if line.strip()]
    told = [line for line in lines if line[:6].lower() == "error:"] or [e.message for e in errors if e.message.strip()]
    return (told or lines[-1:] or [""])[-1].strip()


def results(path: Path) -> dict[str, Result]:
    """By dbt's ids, as in run_results.json; empty where there are none."""
    try:
        found = _map(orjson.loads(path.read_bytes())).get("results")
    except (OSError, orjson.JSONDecodeError):
        return {}
    each = [_map(r) for r in found] if isinstance(found, list) else []
    return {_text(r.get("unique_id")): _result(r) for r in each if _text(r.get("unique_id"))}


def _result(r: Mapping[str, Any]) -> Result:
    seconds, failures = r.get("execution_time"), r.get("failures")
    return Result(
        status=_text(r.get("status")),
        seconds=float(seconds) if isinstance(seconds, int | float) else 0.0,
        failures=failures if isinstance(failures, int) else 0,
        message=_text(r.get("message")),
    )


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


# -- which dbt it is ---------------------------------------------------------------------------------------------------


def check_version(manifest: Manifest) -> None:
    """FixConfig for a dbt that is too old, or of another make than dbt-core 1.x."""
    found = re.search(r"/v(\d+)\.json", manifest.schema)
    if found is None or int(found.group(1)) < OLDEST:
        raise FixConfig(f"dbt {manifest.version} is too old", mend=_WANTED)
    refused = other_make(manifest.version)
    if refused is not None:
        raise refused


def other_make(version: str) -> FixConfig | None:
    """That a dbt is none of dbt-core 1.x, by its number or by what `dbt --version` prints; None where it is one.

    dbt 2 is another program, which also goes by dbt Fusion; the client of dbt's platform builds elsewhere.
    """
    core = re.search(r"installed:\s*(\d\S*)", version)  # dbt-core's own way to say it, over several lines
    first = next((line.strip() for line in version.splitlines() if line.strip()), "")
    number = core.group(1) if core is not None else first
    if re.match(r"(dbt-core )?1\.\d", number) or not re.search(r"\d+\.\d", number):
        return None
    name = number if number.startswith("dbt") else f"dbt {number}"
    kind = " (Fusion)" if re.search(r"\b2\.\d+\.\d", number) and "usion" not in number else ""
    return FixConfig(f"{name}{kind} is none that oploop works with", mend=_WANTED)


__all__ = ["OLDEST", "Event", "Result", "check_version", "event", "other_make", "results", "said"]
