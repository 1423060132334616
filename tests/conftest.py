"""What holds for all tests."""

from __future__ import annotations

import signal

from tests.mysql import mysql
from tests.postgres import cluster
from tests.warehouses import database, dsn

__all__ = ["cluster", "database", "dsn", "mysql"]

# A shell starts background jobs with SIGINT ignored, and children inherit that: tests that interrupt a process of their
# own would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
