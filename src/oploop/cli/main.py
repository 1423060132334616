"""The entry point. It imports all else only where Ctrl-C is heard, so that it ends a start as quietly as a command."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """What the `oploop` script calls; it leaves with an exit code."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by who started us (`>&-`)
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  open as long as the process is
    try:
        from oploop.cli.group import cli
        from oploop.lean import leave_quickly, own_process

        own_process()
    except KeyboardInterrupt:
        sys.stderr.write("\noploop: interrupted; nothing was begun\n")
        sys.exit(130)
    try:
        cli.main()
    finally:
        leave_quickly()
