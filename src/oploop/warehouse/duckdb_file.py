"""The file behind a DuckDB warehouse: whether it is one, who holds it, and what to tell the user when it cannot be opened."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from oploop.errors import FixConfig

MAGIC = b"DUCK"
RIGHTS = "give yourself the right to read and write it"
_PID = re.compile(r"\(PID (\d+)\)")


def prepare(path: Path, *, read_only: bool) -> None:
    """See to it that DuckDB can be asked to open `path`; raises FixConfig where it need not be asked.

    The first bytes are looked at here, since DuckDB would try to fetch an extension for a SQLite file.
    """
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except FileNotFoundError:
        if read_only:
            raise FixConfig(f"no warehouse yet at {path}", mend="run oploop extract") from None
        _make_folder(path)
        return
    except OSError as e:
        raise FixConfig(f"the warehouse {path} cannot be opened: {_reason(e)}", mend=_mend(e)) from e
    if head[8:12] != MAGIC:
        raise no_warehouse(path)


def no_warehouse(path: Path) -> FixConfig:
    """The error for a file that DuckDB did not write."""
    return FixConfig(
        f"{path} is no warehouse: it is not a DuckDB file",
        mend="name another file under warehouse.database in oploop.yml, or move this one away",
    )


def explain(path: Path, reason: str, *, holder: Callable[[], str | None], waited: float | None) -> FixConfig:
    """DuckDB's refusal to open the file, as an error with a mend."""
    pid = holding_process(reason)
    if pid is not None:
        who = holder() or describe_process(pid)
        if f"{pid}" not in who:  # what our state remembers may be of an earlier process
            who = describe_process(pid)
        after = f" (waited {waited:g} s)" if waited else ""
        return FixConfig(f"{path} is held by {who}{after}", mend="let it finish, or wait for it with --wait SECONDS")
    if "not a valid DuckDB database" in reason:
        return no_warehouse(path)
    if "version number" in reason or "newer version" in reason or "storage version" in reason:
        return FixConfig(
            f"{path} was written by a newer DuckDB than this one reads", mend="upgrade oploop's duckdb package"
        )
    if "different configuration" in reason:
        return FixConfig(f"{path} is already open in this process in another mode", mend="close it first")
    if "Corrupt" in reason or "Could not read enough bytes" in reason:
        return FixConfig(
            f"{path} is damaged: {reason}", mend="restore it from a copy, or move it away and extract anew"
        )
    denied = "Permission denied" in reason or "Read-only file system" in reason
    mend = RIGHTS if denied else "see warehouse.database in oploop.yml"
    return FixConfig(f"the warehouse {path} cannot be opened: {reason}", mend=mend)


def holding_process(reason: str) -> int | None:
    """The process id in DuckDB's message about a lock; None when it is about something else, 0 when it names none."""
    if "Could not set lock" not in reason and "being used by another process" not in reason:
        return None
    found = _PID.search(reason)
    return int(found.group(1)) if found else 0


def describe_process(pid: int) -> str:
    """A process for people: id, command line and start, as far as the machine tells."""
    if not pid:
        return "another process"
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return f"process {pid}"
    line = " ".join(Path(w).name if i == 0 else w for i, w in enumerate(os.fsdecode(w) for w in words if w))
    shown = line if len(line) <= 80 else line[:79] + "…"
    since = _started(pid)
    return f"process {pid} ({' '.join(shown.split())})" + (f" since {since:%Y-%m-%d %H:%M} UTC" if since else "")


def _started(pid: int) -> datetime | None:
    """When a process began, by Linux's account of it (proc(5): field 22 of stat, in ticks since boot)."""
    try:
        ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
        boot = re.search(r"^btime (\d+)$", Path("/proc/stat").read_text(), re.MULTILINE)
        return datetime.fromtimestamp(int(boot.group(1)) + ticks / os.sysconf("SC_CLK_TCK"), UTC) if boot else None
    except (OSError, ValueError, IndexError):
        return None


def _make_folder(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise FixConfig(
            f"the folder {path.parent} for the warehouse cannot be made: {_reason(e)}", mend=_mend(e)
        ) from e


def _reason(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()


def _mend(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return RIGHTS
    return "see warehouse.database in oploop.yml"
