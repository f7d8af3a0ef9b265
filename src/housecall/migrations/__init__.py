"""The versions of the database. A change of a table is a new file in ``versions/``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, inspect

from housecall.errors import ConfigError

if TYPE_CHECKING:  # imported when it is needed: a database of this version is opened without it
    from alembic.config import Config
    from alembic.script import ScriptDirectory

HEAD = "0002"
"""The newest file in ``versions/``."""

_LOCK = 0x686F757365  # "house": a number of our own among the locks of a PostgreSQL database


def upgrade(engine: Engine) -> None:
    """Bring a database to this version of Housecall, all of it or nothing.

    Raises ConfigError when a newer Housecall made the database.
    """
    with engine.connect() as connection:
        if _is_current(connection):
            return
    from alembic import command
    from alembic.script import ScriptDirectory

    config = _config()
    with engine.connect() as connection:
        # Two servers started at once must not both make the tables.
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        elif connection.dialect.name == "postgresql":
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
        _check_known(connection, ScriptDirectory.from_config(config))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        connection.commit()


def _is_current(connection: Connection) -> bool:
    if not inspect(connection).has_table("alembic_version"):
        return False
    found = connection.exec_driver_sql("SELECT version_num FROM alembic_version")
    return list(found.scalars()) == [HEAD]


def _config() -> Config:
    from alembic.config import Config

    config = Config()
    folder = str(Path(__file__).parent).replace("%", "%%")  # ConfigParser reads % as its own
    config.set_main_option("script_location", folder)
    config.set_main_option("path_separator", "os")
    return config


def _check_known(connection: Connection, scripts: ScriptDirectory) -> None:
    from alembic.runtime.migration import MigrationContext

    current = MigrationContext.configure(connection).get_current_revision()
    known = {script.revision for script in scripts.walk_revisions()}
    if current is not None and current not in known:
        raise ConfigError(
            f"{connection.engine.url.render_as_string()}: this database is of a newer Housecall "
            f"(version {current}): update Housecall, or set HOUSECALL_DATABASE_URL to another one"
        )
