"""The writer on PostgreSQL: groups, refusals inside a group, lost connections, commits nobody knows about."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from database_kit import POSTGRESQL, cluster, url_for
from order_kit import (
    DEVICE,
    ESPRESSO,
    OTHER_DEVICE,
    OTHER_TABLE,
    SITE,
    TABLE,
    WATER,
    House,
    open_house,
    order_op,
)  # fmt: skip

from server.ordering.apply import Answered, ApplyOp, SessionGone
from server.ordering.together import OrderGroups
from server.storage import admin
from server.storage.database import StorageError
from server.storage.ledger import Ledger
from server.storage.postgres import PostgresConnection
from server.storage.postgres_writer import PostgresWriter
from server.storage.writer import Writer
from server.wire.ops import Line, Status

COFFEE = Line(ESPRESSO, 2)
Scenario = Callable[[PostgresWriter], Awaitable[None]]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = open_house(tmp_path, url_for(POSTGRESQL, open_house))
    yield made
    made.close()


def played(house: House, scenario: Scenario, kind: type[PostgresWriter] = PostgresWriter) -> PostgresWriter:
    """Run a scenario with a writer of the house and return it."""

    async def whole() -> PostgresWriter:
        writer = kind(
            house.database, asyncio.get_running_loop(), groups=OrderGroups(),
            on_revision=house.catalogue.reload,
        )  # fmt: skip
        await scenario(writer)
        writer.stop()
        return writer

    return asyncio.run(whole())


def order(
    house: House, number: int, *, device: str = DEVICE, quantity: int = 2, sid: bytes | None = None
) -> ApplyOp:
    """An order of so many espressi."""
    table = TABLE if device == DEVICE else OTHER_TABLE
    return house.job(
        order_op(Line(ESPRESSO, quantity), total=260 * quantity, table=table, number=number),
        device=device,
        sid=sid,
    )


async def all_at_once(writer: Writer, *jobs: Any) -> list[Any]:
    """Queue jobs before the writer starts, so that they are one batch."""
    waiting = [asyncio.ensure_future(writer.run(job)) for job in jobs]
    await asyncio.sleep(0)
    writer.start()
    return await asyncio.gather(*waiting, return_exceptions=True)


def counting(item: int) -> Any:
    """A job that starts counting an item."""

    def job(transaction: Any) -> int:
        transaction.execute("INSERT INTO stock VALUES ('house', ?, 1)", (item,))
        return item

    return job


def test_orders_of_a_batch_share_a_commit_and_each_gets_its_own_answer(house: House) -> None:
    admin.set_stock(house.database, SITE, ESPRESSO, 5)

    async def scenario(writer: PostgresWriter) -> None:
        twice = order(house, 1)
        answered: list[Answered | Exception] = await all_at_once(
            writer, twice, order(house, 2, device=OTHER_DEVICE), twice, order(house, 3),
            order(house, 4, sid=b"gone"), order(house, 5, quantity=1),
        )  # fmt: skip
        first, other, again, sold_out, gone, last = answered
        assert isinstance(gone, SessionGone)
        replies = [one.reply for one in (first, other, again, sold_out, last) if isinstance(one, Answered)]
        assert [reply.status for reply in replies] == [
            Status.COMMITTED, Status.COMMITTED, Status.COMMITTED, Status.SOLD_OUT, Status.COMMITTED,
        ]  # fmt: skip
        assert [reply.lsn for reply in replies] == [1, 2, 1, 3, 4]
        assert isinstance(again, Answered)
        assert again.repeated

    writer = played(house, scenario)
    assert writer.stats.batches == 1
    ledger = Ledger(house.database.path)
    assert ledger.stock(SITE) == {ESPRESSO: 0}
    assert [row.order_number for row in ledger.orders(SITE)] == [1, 2, 3]
    assert ledger.seatings(SITE)[0][:2] == (TABLE, 780)


def test_one_order_the_database_refuses_does_not_take_its_group_with_it(house: House) -> None:
    house.connection.execute("ALTER TABLE orders ADD CONSTRAINT planted CHECK (total_minor <> 780)")
    try:

        async def scenario(writer: PostgresWriter) -> None:
            first, refused, last = await all_at_once(
                writer, order(house, 1), order(house, 2, quantity=3), order(house, 3, device=OTHER_DEVICE)
            )
            assert isinstance(refused, psycopg.errors.CheckViolation)
            assert (first.reply.lsn, last.reply.lsn) == (1, 2)

        writer = played(house, scenario)
    finally:
        house.connection.execute("ALTER TABLE orders DROP CONSTRAINT planted")
    assert (writer.stats.failed_jobs, writer.stats.failed_batches) == (1, 0)
    assert Ledger(house.database.path).order_count(SITE) == 2


def test_a_job_that_fails_between_orders_leaves_no_trace(house: House) -> None:
    def bad(transaction: Any) -> None:
        transaction.execute("INSERT INTO stock VALUES ('house', 99, 1)")
        raise ValueError("no")

    async def scenario(writer: PostgresWriter) -> None:
        results = await all_at_once(
            writer, order(house, 1), bad, counting(WATER), counting(WATER), order(house, 2)
        )
        kinds = [type(result) for result in results]
        assert kinds == [Answered, ValueError, int, psycopg.errors.UniqueViolation, Answered]

    played(house, scenario)
    assert Ledger(house.database.path).stock(SITE) == {WATER: 1}


def test_a_connection_lost_while_idle_is_nobodys_concern(house: House) -> None:
    async def scenario(writer: PostgresWriter) -> None:
        writer.start()
        assert (await writer.run(order(house, 1))).reply.lsn == 1
        cut(house)
        assert (await writer.run(order(house, 2))).reply.lsn == 2

    assert played(house, scenario).stats.failed_batches == 0


def test_a_connection_lost_in_the_middle_of_a_batch_stores_it_once(house: House) -> None:
    lost: list[int] = []

    def losing(transaction: Any) -> int:
        transaction.execute("INSERT INTO stock VALUES ('house', 3, 1)")
        if not lost:
            lost.append(1)
            cut(house)
        return 3

    async def scenario(writer: PostgresWriter) -> None:
        results = await all_at_once(writer, order(house, 1), losing, order(house, 2))
        assert results[1] == 3
        assert [results[0].reply.lsn, results[2].reply.lsn] == [1, 2]

    played(house, scenario)
    assert lost
    assert Ledger(house.database.path).order_count(SITE) == 2


class LosesCommits(PostgresWriter):
    """Its connection is cut around the first COMMIT: before it took effect, or before anybody heard of it."""

    stored = False

    def _commit(self, connection: Any, batch: list[Any]) -> None:
        super()._commit(_Cut(connection, self.stored) if not self.stats.batches else connection, batch)


class StoredButUnheard(LosesCommits):
    """The commit took effect."""

    stored = True


class _Cut:
    def __init__(self, connection: PostgresConnection, stored: bool) -> None:
        self._connection, self._stored = connection, stored

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def commit(self) -> None:
        if self._stored:
            self._connection.commit()
        self._connection.close()
        raise psycopg.OperationalError("server closed the connection unexpectedly")


@pytest.mark.parametrize("kind", [LosesCommits, StoredButUnheard])
def test_a_commit_nobody_knows_about_is_not_answered_and_its_op_id_decides(
    house: House, kind: type[LosesCommits]
) -> None:
    async def scenario(writer: PostgresWriter) -> None:
        job = order(house, 1)
        (unknown,) = await all_at_once(writer, job)
        assert isinstance(unknown, StorageError)
        again = await writer.run(job)
        assert again.repeated is kind.stored
        assert again.reply.lsn == 1

    played(house, scenario, kind)
    assert Ledger(house.database.path).order_count(SITE) == 1


def test_while_the_database_is_away_everybody_is_told_and_afterwards_it_goes_on(house: House) -> None:
    async def scenario(writer: PostgresWriter) -> None:
        writer.start()
        assert (await writer.run(order(house, 1))).reply.lsn == 1
        cluster().kill()
        with pytest.raises(StorageError) as told:
            await writer.run(order(house, 2))
        assert told.value.code in ("DATABASE_UNREACHABLE", "STORAGE")
        cluster().start()
        assert (await writer.run(order(house, 2))).reply.lsn == 2

    played(house, scenario)


def test_a_menu_published_beside_it_counts_from_the_next_batch(house: House) -> None:
    async def scenario(writer: PostgresWriter) -> None:
        writer.start()
        assert (await writer.run(order(house, 1))).reply.status == Status.COMMITTED
        await asyncio.get_running_loop().run_in_executor(
            None, admin.set_stock, house.database, SITE, ESPRESSO, 1
        )
        assert (await writer.run(order(house, 2))).reply.status == Status.SOLD_OUT

    played(house, scenario)


def test_every_connection_syncs_each_commit_whatever_the_database_says(house: House) -> None:
    with psycopg.connect(house.database.url, autocommit=True) as connection:  # type: ignore[attr-defined]
        name = connection.info.dbname
        connection.execute(f'ALTER DATABASE "{name}" SET synchronous_commit = off'.encode())
        try:
            fresh = house.database.driver_connection()
            fresh.begin()
            assert fresh.execute("SHOW synchronous_commit").fetchone() == ("on",)
            fresh.rollback()
            fresh.close()
        finally:
            connection.execute(f'ALTER DATABASE "{name}" RESET synchronous_commit'.encode())


def cut(house: House) -> None:
    """End every session of the house's database from the other side."""
    cluster().cut_sessions(house.database.url.rpartition("/")[2])  # type: ignore[attr-defined]
