"""SQLite: any table of a database file, read in one transaction and written by set-based statements."""

from __future__ import annotations

from pydantic import Field

from oploop.apps.sql.app import SqlApp, SqlConfig
from oploop.apps.sqlite.engine import SqliteEngine
from oploop.runtime import Runtime


class SqliteConfig(SqlConfig):
    """Keys of a SQLite database in `oploop.yml`."""

    #: the file, from the project's folder
    database: str = Field(
        min_length=1, json_schema_extra={"path": True}, description="the file, from the project's folder"
    )


class SqliteApp(SqlApp):
    """A SQLite file, both directions."""

    type = "sqlite"
    title = "SQLite"
    learns = "any table of the database"
    Config = SqliteConfig

    def make_engine(self, name: str, config: SqliteConfig, runtime: Runtime) -> SqliteEngine:
        """See SqlApp."""
        return SqliteEngine(name, config.database, runtime)


__all__ = ["SqliteApp", "SqliteConfig"]
