"""Which state of the project's files in git is at work, for the ledger."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

#: What a run depends on, beside the warehouse.
FILES = ("oploop.yml", "models", "syncs", "audits", "macros", "seeds", "tests", "fields.lock")
SECONDS = 5


def release_of(root: Path) -> str | None:
    """The commit that is checked out, with `-dirty` when files of the project differ from it; None where git knows none."""
    commit = _git(root, "rev-parse", "--verify", "--quiet", "HEAD")
    if not commit:
        return None
    changed = _git(root, "status", "--porcelain", "--", *FILES)
    return f"{commit.strip()}-dirty" if changed is None or changed.strip() else commit.strip()


def _git(root: Path, *words: str) -> str | None:
    """What git says; None when it fails or is not there. It takes no locks, and asks nobody."""
    settings = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, timeout=SECONDS, env=settings, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout if done.returncode == 0 else None
