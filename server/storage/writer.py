"""The one writer of a site's database: group commit in a thread of its own.

Jobs are taken from a bounded queue in the order they were submitted. Whatever is waiting (at most
``max_batch``) shares one transaction; each job runs inside its own savepoint, so one that fails leaves no
trace and takes nobody with it. A job's callback is called on the event loop only after the COMMIT returned:
nothing that was not fsynced is ever answered. The fsync itself gathers the next batch, so no timer is
needed.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from server.storage.database import Database, StorageError, admin_revision, damaged
from server.storage.transaction import Job, Transaction

T = TypeVar("T")


class QueueFull(Exception):
    """The order queue is full: refuse this one explicitly and let the sender come back."""

    code = "QUEUE_FULL"


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """What became of a job: a value, or the error that rolled its savepoint back."""

    value: T | None = None
    error: BaseException | None = None


@dataclass(slots=True)
class WriterStats:
    """Counters of the writer thread, read without a lock for display."""

    jobs: int = 0
    batches: int = 0
    failed_jobs: int = 0
    failed_batches: int = 0
    largest_batch: int = 0
    commit_seconds: float = 0.0


@dataclass(slots=True)
class Entry:
    """A job on its way, with the callback that gets its outcome."""

    job: Job[Any]
    callback: Callable[[Outcome[Any]], None]
    outcome: Outcome[Any] = field(default_factory=Outcome)


class Writer:
    """Runs jobs on one connection, many per transaction.

    ``on_revision`` is called in the writer's thread, inside the transaction, whenever the admin revision of
    the file differs from the one last seen: caches filled there are exactly as old as the transaction that
    uses them.
    """

    fatal: tuple[type[Exception], ...] = (sqlite3.OperationalError,)
    """What puts the transaction as a whole in question: disk full, I/O error, locked."""

    def __init__(
        self,
        database: Database,
        loop: asyncio.AbstractEventLoop,
        *,
        capacity: int = 4096,
        max_batch: int = 128,
        on_revision: Job[None] | None = None,
    ) -> None:
        self._database = database
        self._loop = loop
        self._queue: queue.SimpleQueue[Entry | None] = queue.SimpleQueue()
        self._capacity = capacity
        self._max_batch = max_batch
        self._on_revision = on_revision
        self._revision = -1
        self._thread = threading.Thread(target=self._run, name="order-writer", daemon=True)
        self._stopping = False
        self.stats = WriterStats()
        self.on_commit: Callable[[], None] | None = None
        """Called on the loop after every batch was settled: something may have changed."""

    def start(self) -> None:
        """Open the connection's thread."""
        self._thread.start()

    def submit(self, job: Job[T], callback: Callable[[Outcome[T]], None]) -> None:
        """Queue a job from the loop; ``callback`` runs there after its commit (or with the error).

        Raises: QueueFull when the bounded queue has no room; nothing was queued.
        """
        if self._queue.qsize() >= self._capacity:
            raise QueueFull("the order queue is full")
        self._queue.put(Entry(job, callback))

    async def run(self, job: Job[T]) -> T:
        """Queue a job and wait for its committed value, for callers that are coroutines anyway."""
        future: asyncio.Future[T] = self._loop.create_future()

        def settle(outcome: Outcome[T]) -> None:
            if future.done():
                return
            if outcome.error is not None:
                future.set_exception(outcome.error)
            else:
                future.set_result(outcome.value)  # type: ignore[arg-type]

        self.submit(job, settle)
        return await future

    def run_from_thread(self, job: Job[T], timeout_s: float) -> T:
        """Like ``run``, for callers in a worker thread, which it blocks."""
        return asyncio.run_coroutine_threadsafe(self.run(job), self._loop).result(timeout_s)

    @property
    def depth(self) -> int:
        """Jobs waiting."""
        return self._queue.qsize()

    def stop(self) -> None:
        """Finish everything queued, then end the thread. Blocks; call it off the loop."""
        if self._stopping or not self._thread.is_alive():
            return
        self._stopping = True
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        connection = self._database.driver_connection()
        try:
            while True:
                batch, last = self._take()
                if batch:
                    self._commit(connection, batch)
                    self._loop.call_soon_threadsafe(self._settle, batch)
                if last:
                    return
        finally:
            connection.close()

    def _settle(self, batch: list[Entry]) -> None:
        _deliver(batch)
        if self.on_commit is not None:
            self.on_commit()

    def _take(self) -> tuple[list[Entry], bool]:
        first = self._queue.get()
        if first is None:
            return [], True
        batch = [first]
        while len(batch) < self._max_batch:
            try:
                entry = self._queue.get_nowait()
            except queue.Empty:
                break
            if entry is None:
                return batch, True
            batch.append(entry)
        return batch, False

    def _commit(self, connection: sqlite3.Connection, batch: list[Entry]) -> None:
        begun = time.perf_counter()
        try:
            connection.execute("BEGIN IMMEDIATE")
            self._refresh(connection)
            for entry in batch:
                self._apply(connection, entry)
            connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - whatever it is, the owners learn it and the thread goes on
            self._abandon(connection, batch, error)
        self._count(batch, time.perf_counter() - begun)

    def _count(self, batch: list[Entry], seconds: float) -> None:
        self.stats.jobs += len(batch)
        self.stats.batches += 1
        self.stats.largest_batch = max(self.stats.largest_batch, len(batch))
        self.stats.commit_seconds += seconds

    def _refresh(self, connection: Transaction) -> None:
        if self._on_revision is None:
            return
        revision = admin_revision(connection)
        if revision != self._revision:
            self._on_revision(connection)
            self._revision = revision

    def _apply(self, connection: Transaction, entry: Entry) -> None:
        connection.execute("SAVEPOINT job")
        try:
            entry.outcome = Outcome(entry.job(connection))
        except self.fatal:
            raise
        except Exception as error:  # noqa: BLE001 - handed to the job's owner, who must see every failure
            connection.execute("ROLLBACK TO job")
            entry.outcome = Outcome(error=error)
            self.stats.failed_jobs += 1
        connection.execute("RELEASE job")

    def _abandon(self, connection: sqlite3.Connection, batch: list[Entry], error: Exception) -> None:
        """Nothing of the batch is stored; every owner learns that, and no answer leaves."""
        self.stats.failed_batches += 1
        self._revision = -1
        if connection.in_transaction:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
        path = self._database.path
        if isinstance(error, sqlite3.OperationalError):
            shown = StorageError(
                f"the database {path} refused a commit ({error}); "
                f"check disk space, permissions and the file system"
            )
        elif isinstance(error, sqlite3.DatabaseError):
            shown = damaged(path, str(error))
        else:
            shown = StorageError(
                f"a batch for {path} was given up because of a defect ({error!r}); report it"
            )
        for entry in batch:
            entry.outcome = Outcome(error=shown)


def _deliver(batch: list[Entry]) -> None:
    for entry in batch:
        entry.callback(entry.outcome)
