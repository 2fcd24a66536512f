"""Read-only looks at a site's database, whichever it is: each sees one moment and never takes a lock."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from server.storage.database import StorageError, damaged
from server.storage.location import URL_NAME, database_path, is_url, remembered
from server.storage.transaction import Transaction

BUSY_TIMEOUT_S = 10.0


class Reader(Protocol):
    """A connection for one thread at a time."""

    def snapshot(self) -> Any:
        """A context manager that gives a ``Transaction``. Raises: StorageError."""
        ...

    def close(self) -> None:
        """Let go of the connection."""
        ...


class SqliteReader:
    """SQLite's read-only mode; opened when it is first used."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None

    @contextmanager
    def snapshot(self) -> Iterator[Transaction]:
        """One read transaction."""
        try:
            connection = self._open()
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                connection.execute("ROLLBACK")
        except sqlite3.OperationalError as error:
            raise StorageError(f"the database {self._path} cannot be read now ({error})") from error
        except sqlite3.DatabaseError as error:
            raise damaged(self._path, str(error)) from error

    def close(self) -> None:
        """Let go of the connection."""
        if self._connection is not None:
            self._connection.close()

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = sqlite3.connect(
                f"file:{self._path}?mode=ro",
                uri=True,
                timeout=BUSY_TIMEOUT_S,
                check_same_thread=False,
                isolation_level=None,
            )
        return self._connection


def reader_at(place: Path | str) -> Reader:
    """A reader of the database at a URL, of a state folder, or of the file itself.

    Raises: StorageError where there is none.
    """
    if is_url(place):
        return _at_url(str(place))
    path = Path(place)
    if path.name == URL_NAME:
        path = path.parent
    url = remembered(path) if path.is_dir() else None
    if url is not None:
        return _at_url(url)
    path = database_path(path) if path.is_dir() else path
    if not path.exists():
        raise StorageError(f"there is no database {path}; has `tableside server run` been started yet?")
    return SqliteReader(path)


def _at_url(url: str) -> Reader:
    from server.storage.postgres import PostgresReader  # its driver is not needed for a file

    return PostgresReader(url)
