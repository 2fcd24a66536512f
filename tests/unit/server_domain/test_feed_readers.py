"""The feed for readers of every speed: all of it, in order, each once; who does not read is let go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from database_kit import transaction
from house_kit import SITE, StaffedHouse

from server.web import feed
from server.web.access import Role
from server.web.feed import PAGE, Hub, SlowConsumer, stream
from server.web.reads import Reads

CHANGES = 2 * PAGE + 50


class CountedReads(Reads):
    """Counts the reads."""

    count = 0

    async def run(self, *args: Any, **kwargs: Any) -> Any:
        """One read more."""
        self.count += 1
        return await super().run(*args, **kwargs)


@pytest.fixture
def busy(house: StaffedHouse) -> StaffedHouse:
    """A house with many changes."""
    before = house.rows("SELECT lsn FROM site")[0][0]
    with transaction(house.house.connection) as connection:
        for number in range(CHANGES - before):
            house.service.add_table("boss", "6", number % 9)(connection)
    return house


class Reader:
    """A client that stops reading after so many entries, and then wants no more or cannot take more."""

    def __init__(self, takes: int) -> None:
        self.takes = takes
        self.lsns: list[int] = []

    async def send(self, entry: dict[str, Any]) -> None:
        """Take an entry, or let the server wait for ever."""
        if len(self.lsns) >= self.takes:
            await asyncio.Event().wait()
        self.lsns.append(int(entry["lsn"]))

    def wants_more(self) -> bool:
        """Like a token that still counts."""
        return len(self.lsns) < CHANGES


async def read(
    house: StaffedHouse, reader: Reader, after: int, still_valid: Callable[[], bool]
) -> CountedReads:
    """Stream to a reader from an LSN on; the reads it took."""
    with closing(CountedReads(house.house.database.path)) as reads:
        hub = Hub(reads, SITE)
        await hub.refresh()
        await stream(reads, hub, SITE, Role.MANAGER, after, reader.send, still_valid)
        return reads


def test_a_reader_gets_every_page_in_order_and_each_change_once(busy: StaffedHouse) -> None:
    reader = Reader(CHANGES)
    reads = asyncio.run(read(busy, reader, 0, reader.wants_more))
    assert reader.lsns == list(range(1, CHANGES + 1))
    assert reads.count == 1 + 3, "a page at a time"


def test_a_reader_that_stops_reading_is_let_go_and_comes_back_where_it_was(
    busy: StaffedHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "SEND_TIMEOUT_S", 0.05)
    slow = Reader(PAGE + 10)
    counted: list[CountedReads] = []

    async def stalled() -> None:
        with closing(CountedReads(busy.house.database.path)) as reads:
            counted.append(reads)
            hub = Hub(reads, SITE)
            await hub.refresh()
            with pytest.raises(SlowConsumer):
                await stream(reads, hub, SITE, Role.MANAGER, 0, slow.send, lambda: True)

    asyncio.run(asyncio.wait_for(stalled(), 20))
    assert counted[0].count == 1 + 2, "nothing is read ahead for somebody who does not read"
    again = Reader(CHANGES)
    again.lsns = slow.lsns
    asyncio.run(read(busy, again, slow.lsns[-1], again.wants_more))
    assert again.lsns == list(range(1, CHANGES + 1)), "no change was missed or seen twice"
