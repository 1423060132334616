"""Which state of the project's files in git is at work, for the ledger."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

#: What a run depends on, beside the warehouse.
FILES = ("oploop.yml", "models", "syncs", "audits", "macros", "seeds", "tests", "fields.lock")
SECONDS = 5


class Release:
    """The commit of a project: git is asked once, in a thread, from `ask` on or when somebody wants to know (`name`)."""

    def __init__(self, root: Path, git: Callable[[Path], str | None] | None = None) -> None:
        self._root, self._git = root, git or release_of
        self._asked: Future[str | None] | None = None

    def ask(self) -> Future[str | None]:
        """Let git say meanwhile what `name` will be asked for."""
        if self._asked is None:
            thread = ThreadPoolExecutor(1, thread_name_prefix="git")
            self._asked = thread.submit(self._git, self._root)
            thread.shutdown(wait=False)
        return self._asked

    @property
    def name(self) -> str | None:
        """See `release_of`."""
        return self.ask().result()


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
