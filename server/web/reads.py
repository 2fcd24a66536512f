"""Database reads off the event loop: a few threads, a read-only connection each, a bounded queue.

Each read runs inside one read transaction, so what it returns is one moment of the site's history.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from server.storage.readers import Reader, reader_at
from server.storage.transaction import Transaction
from server.web.problems import Problem

THREADS = 2
MAX_WAITING = 64

T = TypeVar("T")
P = ParamSpec("P")


class Reads:
    """Runs ``read(transaction, *args)`` in a worker thread; ``path`` as ``Database.path`` gives it."""

    def __init__(self, path: Path, threads: int = THREADS, max_waiting: int = MAX_WAITING) -> None:
        self._path = path
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="web-read")
        self._local = threading.local()
        self._open: list[Reader] = []
        self._lock = threading.Lock()
        self._max_waiting = max_waiting
        self.waiting = 0

    async def run(
        self, read: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs
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

    def _read(self, read: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        with self._reader().snapshot() as transaction:
            return read(transaction, *args, **kwargs)

    def _reader(self) -> Reader:
        found: Reader | None = getattr(self._local, "reader", None)
        if found is None:
            found = self._local.reader = reader_at(self._path)
            with self._lock:
                self._open.append(found)
        return found

    def close(self) -> None:
        """Wait for running reads and close the connections."""
        self._pool.shutdown(wait=True)
        for reader in self._open:
            reader.close()
