"""The live feed: every committed change in the order of its LSN, from any LSN on.

The database is the buffer: a client that reads slowly makes nothing grow here, it is simply further behind,
and one that does not read at all is closed. So a client that remembers the last LSN it handled never misses
a change and never sees one twice, whatever happens to either side.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from server.service import views
from server.storage.database import StorageError
from server.storage.transaction import Transaction
from server.web.access import Role
from server.web.problems import Problem
from server.web.reads import Reads

PAGE = 200
SEND_TIMEOUT_S = 10.0
HEARTBEAT_S = 15.0
RETRY_S = 1.0

_TICKET_KINDS = frozenset(
    {
        "ordered", "order_changed", "order_cancelled", "line_state", "line_course", "line_voided",
        "ticket_state", "course_fired", "station_set", "seating_moved", "seating_merged",
        "availability_set", "stock_set",
    }
)  # fmt: skip
_TICKET_LINE = ("line", "item", "quantity", "modifiers", "state", "course")
_WITH_LINES = frozenset({"ordered", "order_changed"})

Entry = dict[str, Any]


class Hub:
    """Knows the newest LSN and wakes whoever waits for a newer one. Lives on the event loop."""

    def __init__(self, reads: Reads, site: str) -> None:
        self._reads = reads
        self._site = site
        self._poked = asyncio.Event()
        self._moved = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.newest = 0
        self.clients = 0

    def start(self) -> None:
        """Begin to watch."""
        self._task = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """Stop watching."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def poke(self) -> None:
        """Something was committed, perhaps."""
        if self.clients:
            self._poked.set()

    async def refresh(self) -> int:
        """Read the newest LSN. Raises: StorageError, Problem(busy)."""
        newest = await self._reads.run(views.newest_lsn, self._site)
        if newest > self.newest:
            self.newest = newest
            self._moved.set()
            self._moved = asyncio.Event()
        return newest

    async def beyond(self, lsn: int, timeout_s: float) -> bool:
        """Wait for a commit above ``lsn``; False when there was none in time."""
        if self.newest > lsn:
            return True
        try:
            await asyncio.wait_for(self._moved.wait(), timeout_s)
        except TimeoutError:
            return False
        return True

    async def _watch(self) -> None:
        while True:
            await self._poked.wait()
            self._poked.clear()
            try:
                await self.refresh()
            except (StorageError, Problem):
                await asyncio.sleep(RETRY_S)  # the database cannot be read now: look again a little later
                self._poked.set()


def read_entries(transaction: Transaction, site: str, after: int, role: Role) -> tuple[list[Entry], int]:
    """The next page as a role sees it, and the LSN it reaches (``after`` when there is nothing)."""
    rows = views.feed(transaction, site, after, PAGE)
    reached = int(rows[-1]["lsn"]) if rows else after
    seen = [_shown(transaction, site, row, role) for row in rows if _concerns(row["kind"], role)]
    return seen, reached


def _concerns(kind: str, role: Role) -> bool:
    return role is not Role.KITCHEN or kind in _TICKET_KINDS


def _shown(transaction: Transaction, site: str, row: Entry, role: Role) -> Entry:
    body = dict(row["body"])
    order = views.order(transaction, site, body["order"]) if row["kind"] in _WITH_LINES else None
    if order is not None:
        body = {**body, "table": order["table"], "state": order["state"], "lines": order["lines"]}
    if role is Role.KITCHEN:
        body = _without_money(body)
    return {**row, "body": body}


def _without_money(body: Entry) -> Entry:
    kept = {name: value for name, value in body.items() if not name.endswith("_minor")}
    if "lines" in kept:
        kept["lines"] = [{name: line[name] for name in _TICKET_LINE} for line in _dicts(kept["lines"])]
    return kept


def _dicts(lines: Iterable[Any]) -> list[Entry]:
    return [line for line in lines if isinstance(line, dict)]


class SlowConsumer(Exception):
    """The client does not read."""


async def stream(
    reads: Reads,
    hub: Hub,
    site: str,
    role: Role,
    after: int,
    send: Callable[[Entry], Awaitable[None]],
    still_valid: Callable[[], bool],
) -> None:
    """Send everything after an LSN, for ever; returns when the caller's token no longer counts.

    Raises: SlowConsumer, StorageError, Problem(busy).
    """
    while still_valid():
        known = hub.newest
        entries, reached = await reads.run(read_entries, site, after, role)
        for entry in entries:
            await _in_time(send(entry))
        if reached > after:
            after = reached
            continue
        after = max(after, known)  # LSNs of refused ops have no entry
        if not await hub.beyond(after, HEARTBEAT_S):
            await _in_time(send({"lsn": after, "kind": "heartbeat"}))


async def _in_time(sending: Awaitable[None]) -> None:
    try:
        await asyncio.wait_for(sending, SEND_TIMEOUT_S)
    except TimeoutError:
        raise SlowConsumer from None
