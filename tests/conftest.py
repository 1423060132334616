"""What holds for all tests."""

from __future__ import annotations

import gc
import os
import signal

from hypothesis import HealthCheck, settings

from tests.dbt import dbt
from tests.memory import in_memory
from tests.mysql import mysql
from tests.postgres import cluster
from tests.warehouses import database, dsn

__all__ = ["cluster", "database", "dbt", "dsn", "mysql"]

# A shell starts background jobs with SIGINT ignored, and children inherit that: tests that interrupt a process of their
# own would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# pytest makes `tmp_path` there.
if memory := in_memory():
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", memory)

# How long an example takes says how busy the machine is; and a failure must be the same one in each run.
settings.register_profile(
    "oploop", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("oploop")


def pytest_collection_finish() -> None:
    """What is there by now, all tests and what they import, stays: the collector need not look through it time and again."""
    gc.collect()
    gc.freeze()
