"""Open a site's database: where it is, pragmas, integrity, schema version.

Without more a site's database is the SQLite file in its state folder, and most of this module is about that
file; a state folder that remembers a URL has its database there (``server.storage.postgres``).

The engine hands out connections in autocommit mode; every writing transaction is begun with ``BEGIN
IMMEDIATE`` so that a writer never discovers halfway that somebody else is writing. ``synchronous=FULL`` is
set on each connection: with less, a commit is not on disk when it returns.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.pool import NullPool

from server.errors import ServerError
from server.storage import guards, schema_access, schema_house, schema_kitchen, schema_releases
from server.storage.location import database_path, remembered
from server.storage.schema import HEAD_REVISION, SCHEMA_VERSION
from server.storage.transaction import Transaction

# Their modules complete the metadata.
_TABLES = (
    schema_house.event,
    schema_access.access_token,
    schema_releases.rollout,
    schema_kitchen.line_step,
)
metadata = _TABLES[0].metadata
__all__ = [
    "Connect", "Database", "OtherSchema", "StorageError", "admin_revision", "bump_admin_revision", "damaged",
    "database_path", "make_tables", "metadata", "open_database", "schema_version", "sqlite_connect",
    "upgrade_tables",
]  # fmt: skip

BUSY_TIMEOUT_MS = 10_000


class StorageError(ServerError):
    """The database cannot be used; the message says which file and what to do next."""

    code = "STORAGE"


class OtherSchema(StorageError):
    """The database was written by another version of the server."""

    code = "DATABASE_SCHEMA"

    def __init__(self, name: str, found: int, if_older: str) -> None:
        next_step = if_older if found < SCHEMA_VERSION else "use the server version that wrote it"
        super().__init__(
            f"the database {name} has schema version {found}, this server needs {SCHEMA_VERSION}; {next_step}"
        )


Connect = Callable[[Path], sqlite3.Connection]


def sqlite_connect(path: Path) -> sqlite3.Connection:
    """Open a database file with Python's own SQLite; usable from any one thread at a time."""
    return sqlite3.connect(path, check_same_thread=False)


def _configure(connection: sqlite3.Connection) -> None:
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")


def _engine(path: Path, connect: Connect) -> Engine:
    engine = create_engine(f"sqlite:///{path}", poolclass=NullPool, creator=lambda: connect(path))

    @event.listens_for(engine, "connect")
    def _on_connect(connection: sqlite3.Connection, _record: object) -> None:
        _configure(connection)

    @event.listens_for(engine, "begin")
    def _on_begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


class Database:
    """One site's SQLite file, checked and ready.

    ``path`` is where ``Ledger`` finds it, ``name`` what people are told; ``made``: its tables are new.
    """

    dialect = "sqlite"

    def __init__(self, path: Path, engine: Engine) -> None:
        self.path = path
        self.name = str(path)
        self.engine = engine
        self.made = False
        self.upgraded_from: int | None = None

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """A writing transaction through SQLAlchemy, for everything that is not the order path."""
        with self.engine.begin() as connection:
            yield connection

    @contextmanager
    def admin(self) -> Iterator[Connection]:
        """Like ``begin``, and tells a running server that something it caches has changed."""
        with self.engine.begin() as connection:
            yield connection
            bump_admin_revision(connection)

    def driver_connection(self) -> Any:
        """A plain driver connection with the same settings, for the writer thread and the watcher."""
        pooled = self.engine.raw_connection()
        connection = pooled.driver_connection
        pooled.detach()
        return connection

    def close(self) -> None:
        """Release the engine's connections."""
        self.engine.dispose()


def bump_admin_revision(connection: Connection) -> None:
    """Mark, inside the caller's transaction, that devices, menus, stock or releases changed."""
    connection.exec_driver_sql(
        "UPDATE meta SET value = CAST(value AS INTEGER) + 1 WHERE name = 'admin_revision'"
    )


def admin_revision(connection: Transaction) -> int:
    """How often anything a server caches has been changed in this database."""
    row = connection.execute("SELECT value FROM meta WHERE name = 'admin_revision'").fetchone()
    return int(row[0])


def damaged(path: Path, detail: str) -> StorageError:
    """The error for a file that SQLite cannot trust."""
    return StorageError(
        f"the database {path} is damaged ({' '.join(detail.split())}); stop the server, move this file "
        f"and its -wal/-shm companions aside and restore the last backup in their place"
    )


def open_database(
    state: Path,
    *,
    create: bool = False,
    upgrade: bool = False,
    connect: Connect = sqlite_connect,
    url: str | None = None,
) -> Database:
    """Open the database of a state folder, creating it when asked: the one at ``url`` (a PostgreSQL URL), or
    the one the folder remembers, or ``state``/tableside.db, to which every connection is made by ``connect``.

    ``upgrade`` brings an older schema up to date; ``Database.upgraded_from`` tells so. A database at a URL is
    not brought up to date together with ``create``: other servers may be using it.
    Raises: StorageError when it is missing, damaged, locked, not a database or of another schema version.
    """
    path = database_path(state)
    url = url or remembered(state)
    if url is not None:
        from server.storage import postgres  # its driver is not needed for a file

        if path.exists():
            raise StorageError(
                f"{state} has a database of its own, {path.name}; give a database at a URL another --state"
            )
        return postgres.open_postgres(url, state, create=create, upgrade=upgrade and not create)
    return _open_file(state, path, create=create, upgrade=upgrade, connect=connect)


def _open_file(state: Path, path: Path, *, create: bool, upgrade: bool, connect: Connect) -> Database:
    if not create and not path.exists():
        raise StorageError(
            f"there is no database {path}; start `tableside server run --state {state}` once first"
        )
    engine = _engine(path, connect)
    database = Database(path, engine)
    try:
        with engine.connect() as connection:
            _check(path, connection.connection.driver_connection)
        with engine.begin() as connection:
            found = schema_version(connection)
            if found is None:
                make_tables(connection)
                database.made = True
            elif found < SCHEMA_VERSION and upgrade:
                upgrade_tables(connection)
                database.upgraded_from = found
            elif found != SCHEMA_VERSION:
                older = f"start the server once, or run `tableside server migrate --state {state}`"
                raise OtherSchema(str(path), found, older)
    except Exception as error:
        engine.dispose()
        raise _explain(path, error) from error
    return database


def schema_version(connection: Connection) -> int | None:
    """The schema version a database has, None where it has no tables yet."""
    if not connection.dialect.has_table(connection, "meta"):
        return None
    return int(
        connection.exec_driver_sql("SELECT value FROM meta WHERE name = 'schema_version'").scalar_one()
    )


def make_tables(connection: Connection) -> None:
    """Make the tables of the newest schema in an empty database."""
    metadata.create_all(connection)
    guards.install(connection.exec_driver_sql, connection.dialect.name)
    guards.install_kitchen(connection.exec_driver_sql, connection.dialect.name)
    for statement in (
        f"INSERT INTO meta (name, value) VALUES ('schema_version', '{SCHEMA_VERSION}'), "
        f"('admin_revision', '1')",
        "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL, "
        "CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))",
        f"INSERT INTO alembic_version (version_num) VALUES ('{HEAD_REVISION}')",
    ):
        connection.exec_driver_sql(statement)


def upgrade_tables(connection: Connection) -> None:
    """Bring an older schema up to date."""
    from server.storage import migrations  # Alembic takes long to import and is rarely needed

    migrations.upgrade(connection)
    bump_admin_revision(connection)


def _check(path: Path, connection: Any) -> None:
    row = connection.execute("PRAGMA quick_check(1)").fetchone()
    if row is None or row[0] != "ok":
        raise damaged(path, "quick_check: " + str(row[0] if row else "no answer"))


def _explain(path: Path, error: Exception) -> Exception:
    cause = getattr(error, "orig", None) or error
    if isinstance(cause, StorageError):
        return cause
    if isinstance(cause, sqlite3.OperationalError) and "locked" in str(cause):
        return StorageError(f"the database {path} is held by another program ({cause}); wait or stop it")
    if isinstance(cause, sqlite3.OperationalError) and (
        "unable to open" in str(cause) or "readonly" in str(cause)
    ):
        return StorageError(
            f"the database {path} cannot be opened ({cause}); check the folder and its permissions"
        )
    if isinstance(cause, sqlite3.DatabaseError):
        return damaged(path, str(cause))
    return error
