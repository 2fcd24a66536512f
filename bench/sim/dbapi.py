"""An apsw connection with the face of Python's ``sqlite3``: what the server and SQLAlchemy use of it.

Only spelling is adapted here: statements go to SQLite unchanged, errors come back as ``sqlite3``'s classes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import apsw

_ERRORS: tuple[tuple[type[apsw.Error], type[sqlite3.Error]], ...] = (
    (apsw.ConstraintError, sqlite3.IntegrityError),
    (apsw.SQLError, sqlite3.OperationalError),
    (apsw.BusyError, sqlite3.OperationalError),
    (apsw.LockedError, sqlite3.OperationalError),
    (apsw.IOError, sqlite3.OperationalError),
    (apsw.FullError, sqlite3.OperationalError),
    (apsw.CantOpenError, sqlite3.OperationalError),
    (apsw.ReadOnlyError, sqlite3.OperationalError),
    (apsw.MisuseError, sqlite3.ProgrammingError),
)


def _translated(error: apsw.Error) -> sqlite3.Error:
    for theirs, ours in _ERRORS:
        if isinstance(error, theirs):
            return ours(str(error))
    return sqlite3.DatabaseError(str(error))


class SimCursor:
    """A cursor as DB-API 2.0 (PEP 249) describes it."""

    arraysize = 1

    def __init__(self, connection: SimConnection, *, described: bool) -> None:
        self._connection = connection
        self._cursor = connection.raw.cursor()
        self.description: tuple[Any, ...] | None = None
        self.rowcount = -1
        self.lastrowid: int | None = None
        if described:
            self._cursor.exec_trace = self._describe

    def _describe(self, cursor: apsw.Cursor, _sql: str, _bindings: Any) -> bool:
        found = cursor.get_description()
        self.description = tuple((*column[:2], None, None, None, None, None) for column in found) or None
        return True

    def execute(self, sql: str, parameters: Any = ()) -> SimCursor:
        """Run one statement."""
        try:
            self._cursor.execute(sql, parameters or None)
        except apsw.Error as error:
            raise _translated(error) from error
        self._count(sql)
        return self

    def executemany(self, sql: str, rows: Iterable[Any]) -> SimCursor:
        """Run one statement for each row of parameters."""
        try:
            self._cursor.executemany(sql, rows)
        except apsw.Error as error:
            raise _translated(error) from error
        self._count(sql)
        return self

    def _count(self, sql: str) -> None:
        head = sql.lstrip()[:6].upper()
        if head in ("INSERT", "UPDATE", "DELETE", "REPLAC"):
            self.rowcount = self._connection.raw.changes()
            self.lastrowid = self._connection.raw.last_insert_rowid()

    def fetchone(self) -> Any:
        """The next row or None."""
        try:
            return self._cursor.fetchone()
        except apsw.Error as error:
            raise _translated(error) from error

    def fetchall(self) -> list[Any]:
        """All rows that are left."""
        return list(self)

    def fetchmany(self, size: int | None = None) -> list[Any]:
        """At most ``size`` rows."""
        rows = []
        for _ in range(size or self.arraysize):
            row = self.fetchone()
            if row is None:
                break
            rows.append(row)
        return rows

    def __iter__(self) -> Iterator[Any]:
        while (row := self.fetchone()) is not None:
            yield row

    def close(self) -> None:
        """Give the statement back."""
        self._cursor.close(True)


class SimConnection:
    """A connection in autocommit mode; transactions are the caller's statements."""

    def __init__(self, path: Path, vfs: str) -> None:
        self.isolation_level: str | None = None
        try:
            self.raw = apsw.Connection(str(path), vfs=vfs)
        except apsw.Error as error:
            raise _translated(error) from error

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        return self.raw.in_transaction

    @property
    def total_changes(self) -> int:
        """Rows changed since the connection was opened."""
        return self.raw.total_changes()

    def cursor(self) -> SimCursor:
        """A cursor that describes its columns, for SQLAlchemy."""
        return SimCursor(self, described=True)

    def execute(self, sql: str, parameters: Any = ()) -> SimCursor:
        """Run one statement on a cursor of its own."""
        return SimCursor(self, described=False).execute(sql, parameters)

    def executemany(self, sql: str, rows: Iterable[Any]) -> SimCursor:
        """Run one statement for each row on a cursor of its own."""
        return SimCursor(self, described=False).executemany(sql, rows)

    def executescript(self, script: str) -> None:
        """Run several statements."""
        self.execute(script).fetchall()

    def commit(self) -> None:
        """Commit what is open."""
        if self.raw.in_transaction:
            self.execute("COMMIT")

    def rollback(self) -> None:
        """Roll back what is open."""
        if self.raw.in_transaction:
            self.execute("ROLLBACK")

    def create_function(
        self, name: str, arguments: int, function: Callable[..., Any], **options: Any
    ) -> None:
        """Add a scalar SQL function."""
        self.raw.create_scalar_function(
            name, function, arguments, deterministic=bool(options.get("deterministic"))
        )

    def close(self) -> None:
        """Close; a second time does nothing."""
        self.raw.close(True)


class Connections:
    """Opens connections on one disk's VFS and closes them all when its machine is gone."""

    def __init__(self, vfs: str) -> None:
        self._vfs = vfs
        self._open: list[SimConnection] = []

    def __call__(self, path: Path) -> sqlite3.Connection:
        """The server's ``Connect``."""
        connection = SimConnection(path, self._vfs)
        self._open.append(connection)
        return cast(sqlite3.Connection, connection)

    def close(self) -> None:
        """Close whatever is still open."""
        for connection in self._open:
            connection.close()
        self._open.clear()
