"""From one schema version to the next, with Alembic: `upgrade` and `downgrade` of one open database.

``meta.schema_version`` says which version a file has (each migration writes it); Alembic's own table is kept
in step, and made where a file is older than it.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.engine import Connection

FOLDER = Path(__file__).resolve().parent


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def newest() -> str:
    """The newest revision there is."""
    return str(ScriptDirectory(str(FOLDER)).get_current_head())


def revision_of(connection: Connection) -> str | None:
    """The revision Alembic's table names, or None where there is none."""
    return MigrationContext.configure(connection).get_current_revision()


def upgrade(connection: Connection, target: str = "head") -> None:
    """Bring the tables up to ``target`` inside the caller's transaction; a file of version 1 is adopted."""
    config = _config(connection)
    if revision_of(connection) is None and connection.dialect.has_table(connection, "meta"):
        command.stamp(config, "0001")
    command.upgrade(config, target)


def downgrade(connection: Connection, target: str) -> None:
    """Bring the tables back to ``target`` in the caller's transaction; what only newer ones hold goes."""
    command.downgrade(_config(connection), target)
