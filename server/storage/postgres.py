"""PostgreSQL as a site's database: one site per database, any number of servers.

``HOUSE_LOCK`` is an advisory lock that does for several servers what ``BEGIN IMMEDIATE`` does for one file:
whoever changes the house takes it alone. Only groups of plain orders share it, and lock the rows they need in
one fixed order (``server.ordering.together``). It is taken before anything is read, so every statement after
it sees what was committed before.

A URL may hold a password: it is never put into a message, ``where`` is shown instead.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.types.numeric import Int8Dumper
from sqlalchemy import create_engine, event
from sqlalchemy.engine import Connection, Engine, ExceptionContext
from sqlalchemy.pool import NullPool

from server.storage.database import (
    Database,
    OtherSchema,
    StorageError,
    bump_admin_revision,
    make_tables,
    schema_version,
    upgrade_tables,
)
from server.storage.location import URL_NAME, remember
from server.storage.schema import SCHEMA_VERSION
from server.storage.transaction import Rows, as_psycopg

_log = logging.getLogger("tableside.storage")
HOUSE_LOCK = 0x7461_626C
CONNECT_TIMEOUT_S = 5
_ALONE = f"SELECT pg_advisory_xact_lock({HOUSE_LOCK})"
_SHARED = f"SELECT pg_advisory_xact_lock_shared({HOUSE_LOCK})"

# A commit is answered, so it must be on disk; a server that stops in the middle must not hold the others up.
_SETTINGS = (
    "SELECT set_config('synchronous_commit', 'on', false) "
    "WHERE current_setting('synchronous_commit') = 'off'; "
    "SET idle_in_transaction_session_timeout = '20s'; SET lock_timeout = '20s'; SET statement_timeout = '60s'"
)
_OTHERS = (
    "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() "
    "AND application_name = 'tableside' AND pid <> pg_backend_pid()"
)
_KEEPALIVES: dict[str, Any] = {
    "keepalives": 1, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}  # fmt: skip


class Unreachable(StorageError):
    """Nothing answers where the database should be."""

    code = "DATABASE_UNREACHABLE"


class LoginRefused(StorageError):
    """The database does not let this user in."""

    code = "DATABASE_LOGIN"


def where(url: str) -> str:
    """A URL without its password, for people. Raises: StorageError where it is none."""
    try:
        parts = conninfo_to_dict(url)
    except psycopg.Error:
        raise StorageError(
            "the database URL cannot be read; it is written postgresql://USER:PASSWORD@HOST:PORT/NAME "
            "(special characters in the password as %XX)"
        ) from None
    host = parts.get("host") or parts.get("hostaddr") or "localhost"
    port = f":{parts['port']}" if parts.get("port") else ""
    user = f"{parts['user']}@" if parts.get("user") else ""
    return f"postgresql://{user}{host}{port}/{parts.get('dbname') or parts.get('user') or ''}"


def connect(url: str, *, autocommit: bool = True) -> psycopg.Connection[Any]:
    """A driver connection that syncs each commit. Raises: Unreachable, LoginRefused, StorageError."""
    shown = where(url)
    try:
        connection = psycopg.connect(
            url,
            autocommit=True,
            connect_timeout=CONNECT_TIMEOUT_S,
            application_name="tableside",
            **_KEEPALIVES,
        )
        connection.execute(_SETTINGS)
    except psycopg.Error as error:
        raise _refused(shown, error) from None  # the driver's own error holds what it was called with
    connection.adapters.register_dumper(int, Int8Dumper)  # one type, one prepared statement
    connection.autocommit = autocommit
    return connection


def _refused(shown: str, error: psycopg.Error) -> StorageError:
    said = " ".join(str(error).split())
    if any(word in said for word in ("password", "pg_hba.conf", "authentication", "role ")):
        return LoginRefused(
            f"the database {shown} does not let this user in ({said}); check user and password in the URL "
            f"(or in ~/.pgpass)"
        )
    if "does not exist" in said:
        return StorageError(f"there is no database {shown} ({said}); make it with createdb first")
    return Unreachable(
        f"nothing answers at the database {shown} ({said}); check host, port and that PostgreSQL runs"
    )


class PostgresConnection:
    """A driver connection with the face that jobs know (``Transaction``); connects when it is first used."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._driver: psycopg.Connection[Any] | None = None

    @property
    def driver(self) -> psycopg.Connection[Any]:
        """The connection itself, made anew where it was lost. Raises: StorageError."""
        if self._driver is None or self._driver.closed or self._driver.broken:
            self._driver = connect(self._url)
        return self._driver

    @property
    def lost(self) -> bool:
        """True when the last connection ended by itself."""
        return self._driver is not None and bool(self._driver.broken or self._driver.closed)

    def begin(self, *, shared: bool = False) -> None:
        """Begin a transaction alone in the house, or together with others who lock their rows."""
        self.start(f"BEGIN; {_SHARED if shared else _ALONE}")

    def start(self, statement: str) -> None:
        """Run the first statement of a transaction, on a new connection where the old one turns out lost."""
        try:
            self.driver.execute(statement.encode())
        except psycopg.OperationalError:
            if not self.lost:
                raise
            self.driver.execute(statement.encode())

    def commit(self) -> None:
        """Commit; when this returns, it is on disk."""
        self._need().execute("COMMIT")

    def rollback(self) -> None:
        """Give up whatever is open; a lost connection has given it up already."""
        if self._driver is not None:
            with suppress(psycopg.Error):
                if self._driver.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                    self._driver.execute("ROLLBACK")

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> Rows:
        """Run one statement with ``?`` placeholders. Raises: the driver's errors."""
        return cast(Rows, self._need().execute(as_psycopg(sql), tuple(parameters)))

    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]], /) -> object:
        """Run one statement for each row of parameters, in one round trip."""
        with self._need().cursor() as cursor:
            cursor.executemany(as_psycopg(sql), parameters)
        return None

    def close(self) -> None:
        """Let go of it."""
        if self._driver is not None:
            self._driver.close()

    def _need(self) -> psycopg.Connection[Any]:
        """The connection the transaction is open on: never a new one in the middle of it."""
        return self._driver if self._driver is not None else self.driver


class PostgresDatabase(Database):
    """A PostgreSQL database, checked and ready. ``path`` is the file that holds its URL."""

    dialect = "postgresql"

    def __init__(self, path: Path, url: str, engine: Engine) -> None:
        super().__init__(path, engine)
        self.url = url
        self.name = where(url)

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """A writing transaction through SQLAlchemy; nobody else writes meanwhile."""
        with self.engine.begin() as connection:
            connection.exec_driver_sql(_ALONE)
            yield connection

    @contextmanager
    def admin(self) -> Iterator[Connection]:
        """Like ``begin``, and tells running servers that something they cache has changed."""
        with self.begin() as connection:
            yield connection
            bump_admin_revision(connection)

    def driver_connection(self) -> Any:
        """A connection for jobs; it connects when it is first used."""
        return PostgresConnection(self.url)


def _engine(url: str) -> Engine:
    shown = where(url)
    engine = create_engine(
        "postgresql+psycopg://", creator=lambda: connect(url, autocommit=False), poolclass=NullPool
    )

    @event.listens_for(engine, "handle_error")
    def _on_error(context: ExceptionContext) -> None:
        cause = context.original_exception
        if isinstance(cause, psycopg.errors.InsufficientPrivilege):
            said = " ".join(str(cause).split())
            raise StorageError(
                f"the database {shown} refuses a change ({said}); its user must own it"
            ) from cause
        if isinstance(cause, psycopg.OperationalError):
            raise failed(shown, cause) from cause

    return engine


def open_postgres(url: str, state: Path, *, create: bool = False, upgrade: bool = False) -> PostgresDatabase:
    """Open the database at ``url`` and let ``state`` remember it.

    Raises: Unreachable, LoginRefused, OtherSchema, StorageError.
    """
    engine = _engine(url)
    database = PostgresDatabase(state / URL_NAME, url, engine)
    try:
        with database.begin() as connection:
            database.made, database.upgraded_from = _prepared(
                connection, database.name, state, create=create, upgrade=upgrade
            )
            if create and connection.exec_driver_sql("SHOW fsync").scalar_one() != "on":
                _log.warning("%s runs without fsync: a power cut there loses orders", database.name)
        remember(state, url)
    except BaseException:
        engine.dispose()
        raise
    return database


def _prepared(
    connection: Connection, shown: str, state: Path, *, create: bool, upgrade: bool
) -> tuple[bool, int | None]:
    """Whether the tables were made now, and the schema version they were brought up from."""
    found = schema_version(connection)
    if found is None:
        if not create:
            raise StorageError(
                f"the database {shown} is empty; start `tableside server run` on it once first"
            )
        make_tables(connection)
        return True, None
    if found < SCHEMA_VERSION and upgrade:
        others = connection.exec_driver_sql(_OTHERS).scalar_one()
        if others:
            raise StorageError(
                f"{others} connections of a server to {shown} are open; stop every server on it first"
            )
        upgrade_tables(connection)
        return False, found
    if found != SCHEMA_VERSION:
        older = f"stop every server on it and run `tableside server migrate --state {state}`"
        raise OtherSchema(shown, found, older)
    return False, None


def failed(shown: str, error: Exception) -> StorageError:
    """The error for a statement that PostgreSQL could not carry out."""
    said = " ".join(str(error).split())
    return StorageError(f"the database {shown} did not answer as it should ({said}); check it and its log")


@contextmanager
def explained(shown: str) -> Iterator[None]:
    """Turns what the driver raises inside into a StorageError."""
    try:
        yield
    except psycopg.Error as error:
        raise failed(shown, error) from error


class PostgresReader:
    """Read-only snapshots; connects when it is first used, and again after the connection was lost."""

    def __init__(self, url: str) -> None:
        self._connection = PostgresConnection(url)
        self._shown = where(url)

    @contextmanager
    def snapshot(self) -> Iterator[PostgresConnection]:
        """One moment of the database. Raises: StorageError."""
        with explained(self._shown):
            self._connection.start("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            try:
                yield self._connection
            finally:
                self._connection.rollback()

    def close(self) -> None:
        """Let go of the connection."""
        self._connection.close()
