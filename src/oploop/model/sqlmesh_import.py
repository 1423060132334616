"""Imports SQLMesh as it must be: no analytics, no forks, no warnings about its own dependencies, no log on the terminal."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quietly() -> Iterator[None]:
    """Without the warnings that SQLMesh causes in the libraries that it uses: nobody here can act on them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def environment_kept() -> Iterator[None]:
    """The process's environment afterwards as before: SQLMesh loads the project's `.env` over it, secrets and all."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


os.environ["SQLMESH__DISABLE_ANONYMIZED_ANALYTICS"] = "true"
os.environ["MAX_FORK_WORKERS"] = "1"  # forking a process that has DuckDB's threads is not safe

for name in ("sqlmesh", "sqlglot"):  # what they have to say comes as errors and results
    logging.getLogger(name).addHandler(logging.NullHandler())

with quietly():
    import sqlmesh.core.context
    import sqlmesh.core.lineage  # noqa: F401
