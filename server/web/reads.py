"""Database reads off the event loop: a few threads, read-only connections, a bounded queue.

Each read runs inside one read transaction, so what it returns is one moment of the site's history.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from server.storage.database import StorageError, damaged
from server.web.problems import Problem

THREADS = 2
MAX_WAITING = 64
BUSY_TIMEOUT_S = 5.0

T = TypeVar("T")
P = ParamSpec("P")


class Reads:
    """Runs ``read(connection, *args)`` in a worker thread."""

    def __init__(self, path: Path, threads: int = THREADS, max_waiting: int = MAX_WAITING) -> None:
        self._path = path
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="web-read")
        self._local = threading.local()
        self._open: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        self._max_waiting = max_waiting
        self.waiting = 0

    async def run(
        self, read: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """The read's result. Raises: Problem(busy) when too many are waiting, StorageError."""
        if self.waiting >= self._max_waiting:
            raise Problem(503, "busy", "Too many reads are waiting; try again.", headers={"Retry-After": "1"})
        self.waiting += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._pool, lambda: self._read(read, *args, **kwargs))
        finally:
            self.waiting -= 1

    def _read(
        self, read: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        try:
            connection = self._connection()
            connection.execute("BEGIN")
            try:
                return read(connection, *args, **kwargs)
            finally:
                connection.execute("ROLLBACK")
        except sqlite3.OperationalError as error:
            raise StorageError(f"the database {self._path} cannot be read now ({error})") from error
        except sqlite3.DatabaseError as error:
            raise damaged(self._path, str(error)) from error

    def _connection(self) -> sqlite3.Connection:
        found: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if found is None:
            found = sqlite3.connect(
                f"file:{self._path}?mode=ro",
                uri=True,
                timeout=BUSY_TIMEOUT_S,
                check_same_thread=False,
                isolation_level=None,
            )
            self._local.connection = found
            with self._lock:
                self._open.append(found)
        return found

    def close(self) -> None:
        """Wait for running reads and close the connections."""
        self._pool.shutdown(wait=True)
        for connection in self._open:
            connection.close()
