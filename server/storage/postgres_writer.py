"""The writer on PostgreSQL: the same queue and group commit; plain orders of a batch are written together.

A batch is one transaction. Where all of it are plain orders, several servers' batches may run at the same
time (they lock their rows, see ``server.ordering.together``); anything else runs alone in the house. When
the group as a whole cannot be stored, because one of it must be refused, everything is run again one by one,
each job in a savepoint.

What was lost before COMMIT was sent is tried again on a new connection. When the connection is lost during
COMMIT nobody knows whether it was stored, so nobody is answered: the terminal sends the op again and its
op-id decides.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import groupby
from typing import Any, Protocol

import psycopg

from server.storage.database import StorageError
from server.storage.postgres import PostgresConnection, PostgresDatabase, failed
from server.storage.writer import Entry, Outcome, Writer

TRIES = 3
# A connection keeps its plans, and those made for a house without orders (of a foreign key's check, say) read
# far too much until statistics are taken anew; autovacuum comes round once a minute at best. So the writer
# takes them itself when it has done this many jobs. Later ones change no plan.
STATISTICS_AFTER = (100, 500, 2_500, 12_500)
_STATISTICS = "ANALYZE orders, order_line, answer, seating, device_chain"
_AGAIN = (
    psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure, psycopg.errors.LockNotAvailable,
)  # fmt: skip


class NotTogether(Exception):
    """A group of jobs cannot be run together; one by one it can."""


class Groups(Protocol):
    """Jobs that are cheaper to run together."""

    def takes(self, job: object) -> bool:
        """Whether a job is one of them."""
        ...

    def run(self, connection: PostgresConnection, jobs: Sequence[Any]) -> list[Outcome[Any]]:
        """Run them inside the open transaction, in their order. Raises: NotTogether, the driver's errors."""
        ...


class PostgresWriter(Writer):
    """Runs jobs on one connection, many per transaction, beside the writers of other servers."""

    fatal = (psycopg.OperationalError, psycopg.InterfaceError, StorageError)

    def __init__(
        self,
        database: PostgresDatabase,
        loop: asyncio.AbstractEventLoop,
        *,
        groups: Groups,
        capacity: int = 4096,
        max_batch: int = 128,
        on_revision: Callable[[Any], None] | None = None,
    ) -> None:
        super().__init__(database, loop, capacity=capacity, max_batch=max_batch, on_revision=on_revision)
        self._groups = groups
        self._jobs = 0

    def _commit(self, connection: Any, batch: list[Entry]) -> None:
        begun = time.perf_counter()
        try:
            self._prepare(connection, batch)
            connection.commit()
        except Exception as error:  # noqa: BLE001 - whatever it is, the owners learn it and the thread goes on
            self._abandon(connection, batch, error)
        self._count(batch, time.perf_counter() - begun)
        self._keep_statistics(connection, len(batch))

    def _keep_statistics(self, connection: PostgresConnection, jobs: int) -> None:
        before, self._jobs = self._jobs, self._jobs + jobs
        if not any(before < mark <= self._jobs for mark in STATISTICS_AFTER) or connection.lost:
            return
        with suppress(
            psycopg.Error, StorageError
        ):  # slower plans are no reason to fail; a lost connection shows
            connection.driver.execute(_STATISTICS)

    def _prepare(self, connection: PostgresConnection, batch: list[Entry]) -> None:
        """Run every job of a batch in a transaction that is ready to be committed."""
        together = True
        for left in reversed(range(TRIES)):
            try:
                self._attempt(connection, batch, together=together)
                return
            except Exception as error:
                lost = connection.lost
                connection.rollback()
                self._revision = -1
                again = lost or isinstance(error, _AGAIN)
                refused = not isinstance(error, self.fatal)
                if not left or not (again or (together and refused)):
                    raise
                together = together and again
        raise AssertionError("the last try returns or raises")

    def _attempt(self, connection: PostgresConnection, batch: list[Entry], *, together: bool) -> None:
        runs = list(self._runs(batch)) if together else [(False, batch)]
        connection.begin(shared=all(grouped for grouped, _ in runs))
        self._refresh(connection)
        for grouped, entries in runs:
            if grouped:
                outcomes = self._groups.run(connection, [entry.job for entry in entries])
                for entry, outcome in zip(entries, outcomes, strict=True):
                    entry.outcome = outcome
            else:
                for entry in entries:
                    self._apply(connection, entry)

    def _runs(self, batch: list[Entry]) -> Iterator[tuple[bool, list[Entry]]]:
        """Stretches of a batch that are run together, or not."""
        for grouped, entries in groupby(batch, lambda entry: self._groups.takes(entry.job)):
            yield grouped, list(entries)

    def _abandon(self, connection: Any, batch: list[Entry], error: Exception) -> None:
        self.stats.failed_batches += 1
        self._revision = -1
        connection.rollback()
        name = self._database.name
        shown: StorageError
        if isinstance(error, StorageError):
            shown = error
        elif isinstance(error, psycopg.Error):
            shown = failed(name, error)
        else:
            shown = StorageError(
                f"a batch for {name} was given up because of a defect ({error!r}); report it"
            )
        for entry in batch:
            entry.outcome = Outcome(error=shown)
