"""MySQL and MariaDB: any table of a database, read in one snapshot and written by set-based statements."""

from __future__ import annotations

from pydantic import Field, SecretStr, field_validator

from oploop.apps.mysql.engine import MySqlEngine, parse_dsn
from oploop.apps.sql.app import SqlApp, SqlConfig
from oploop.runtime import Runtime


class MySqlConfig(SqlConfig):
    """Keys of a MySQL database in `oploop.yml`."""

    dsn: SecretStr = Field(description="mysql://user:password@host/database")

    @field_validator("dsn")
    @classmethod
    def _an_address(cls, value: SecretStr) -> SecretStr:
        parse_dsn(value.get_secret_value())
        return value


class MySqlApp(SqlApp):
    """A MySQL or MariaDB database, both directions."""

    type = "mysql"
    title = "MySQL, MariaDB"
    learns = "any table of the database"
    Config = MySqlConfig

    def make_engine(self, name: str, config: MySqlConfig, runtime: Runtime) -> MySqlEngine:
        """See SqlApp."""
        return MySqlEngine(name, config.dsn.get_secret_value())


__all__ = ["MySqlApp", "MySqlConfig"]
