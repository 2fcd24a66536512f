"""The writer: groups commits, isolates jobs, answers only after the commit, says when it is full."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from server.storage import admin
from server.storage.database import Database, StorageError, open_database
from server.storage.writer import Outcome, QueueFull, Writer


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = open_database(tmp_path, create=True)
    admin.ensure_site(opened, "house")
    yield opened
    opened.close()


def count(item: int) -> Any:
    """A job that starts counting an item."""

    def job(connection: sqlite3.Connection) -> int:
        connection.execute("INSERT INTO stock VALUES ('house', ?, 1)", (item,))
        return item

    return job


def stored(database: Database) -> list[int]:
    """Counted items, seen from another connection."""
    with database.engine.connect() as connection:
        return list(connection.exec_driver_sql("SELECT item FROM stock ORDER BY item").scalars())


def test_an_answer_is_delivered_only_after_its_commit(database: Database) -> None:
    async def scenario() -> None:
        writer = Writer(database, asyncio.get_running_loop())
        writer.start()
        answered: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
        writer.submit(count(7), lambda outcome: answered.set_result(stored(database)))
        assert await answered == [7]
        writer.stop()

    asyncio.run(scenario())


def test_what_waits_shares_one_commit_up_to_the_largest_batch(database: Database) -> None:
    async def scenario() -> None:
        writer = Writer(database, asyncio.get_running_loop(), max_batch=8)
        jobs = [asyncio.ensure_future(writer.run(count(item))) for item in range(1, 21)]
        await asyncio.sleep(0)
        writer.start()
        assert await asyncio.gather(*jobs) == list(range(1, 21))
        assert (writer.stats.batches, writer.stats.largest_batch) == (3, 8)
        writer.stop()

    asyncio.run(scenario())


def test_a_failing_job_leaves_no_trace_and_takes_nobody_with_it(database: Database) -> None:
    def bad(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO stock VALUES ('house', 99, 1)")
        raise ValueError("no")

    async def scenario() -> None:
        writer = Writer(database, asyncio.get_running_loop())
        jobs = [asyncio.ensure_future(writer.run(job)) for job in (count(1), bad, count(1), count(2))]
        await asyncio.sleep(0)
        writer.start()
        results = await asyncio.gather(*jobs, return_exceptions=True)
        assert [type(result) for result in results] == [int, ValueError, sqlite3.IntegrityError, int]
        assert stored(database) == [1, 2]
        assert writer.stats.batches == 1
        writer.stop()

    asyncio.run(scenario())


def test_a_failed_commit_stores_nothing_and_tells_every_owner(database: Database) -> None:
    def broken_disk(_connection: sqlite3.Connection) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    async def scenario() -> None:
        writer = Writer(database, asyncio.get_running_loop())
        jobs = [asyncio.ensure_future(writer.run(job)) for job in (count(1), broken_disk, count(2))]
        await asyncio.sleep(0)
        writer.start()
        results = await asyncio.gather(*jobs, return_exceptions=True)
        assert all(isinstance(result, StorageError) and "disk" in str(result) for result in results)
        assert stored(database) == []
        assert await writer.run(count(3)) == 3, "the writer goes on"
        writer.stop()

    asyncio.run(scenario())


def test_a_full_queue_refuses_explicitly_and_recovers(database: Database) -> None:
    async def scenario() -> None:
        writer = Writer(database, asyncio.get_running_loop(), capacity=2)
        taken: list[Outcome[int]] = []
        done = asyncio.Event()

        def take(outcome: Outcome[int]) -> None:
            taken.append(outcome)
            if len(taken) == 2:
                done.set()

        writer.submit(count(1), take)
        writer.submit(count(2), take)
        with pytest.raises(QueueFull):
            writer.submit(count(3), take)
        writer.start()
        await done.wait()
        assert await writer.run(count(3)) == 3
        writer.stop()

    asyncio.run(scenario())


def test_stopping_finishes_what_was_queued(database: Database) -> None:
    async def scenario() -> None:
        writer = Writer(database, asyncio.get_running_loop(), max_batch=2)
        jobs = [asyncio.ensure_future(writer.run(count(item))) for item in range(1, 8)]
        await asyncio.sleep(0)
        writer.start()
        await asyncio.get_running_loop().run_in_executor(None, writer.stop)
        assert await asyncio.gather(*jobs) == list(range(1, 8))

    asyncio.run(scenario())


def test_a_change_by_another_program_is_seen_by_the_very_next_batch(database: Database) -> None:
    async def scenario() -> None:
        seen: list[int] = []
        threads: set[str] = set()

        def reload(connection: sqlite3.Connection) -> None:
            threads.add(threading.current_thread().name)
            seen.append(connection.execute("SELECT COUNT(*) FROM stock").fetchone()[0])

        writer = Writer(database, asyncio.get_running_loop(), on_revision=reload)
        writer.start()
        await writer.run(lambda _connection: None)
        await writer.run(lambda _connection: None)
        assert seen == [0]
        admin.set_stock(database, "house", 5, 1)
        await writer.run(lambda _connection: None)
        assert seen == [0, 1]
        assert threads == {"order-writer"}
        writer.stop()

    asyncio.run(scenario())


def test_every_connection_syncs_each_commit(database: Database) -> None:
    connection = database.driver_connection()
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA foreign_keys").fetchone() == (1,)
    connection.close()
