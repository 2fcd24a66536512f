"""A read-only look at what a site has answered, for the bench, the command line and anybody who audits.

A ledger never takes a lock: it may look while a server runs, and sees committed answers only.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from server.storage.readers import reader_at


@dataclass(frozen=True, slots=True)
class LedgerLine:
    """One line of a committed order; amounts in minor units, tax contained in the total."""

    item: int
    quantity: int
    modifiers: tuple[int, ...]
    unit_minor: int
    total_minor: int
    tax_minor: int


@dataclass(frozen=True, slots=True)
class LedgerOrder:
    """One committed order."""

    device: str
    op_id: bytes
    order_number: int
    table: str
    total_minor: int
    tax_minor: int
    menu_version: int
    lsn: int
    created_at: int
    lines: tuple[LedgerLine, ...]


@dataclass(frozen=True, slots=True)
class LedgerAnswer:
    """One stored final answer, committed or not."""

    device: str
    op_id: bytes
    op_hash: bytes
    status: int
    arg: int
    order_number: int
    total_minor: int
    lsn: int
    chain: bytes


@dataclass(frozen=True, slots=True)
class LedgerDevice:
    """A registered device and what it last said about itself (``online`` is None before it ever spoke)."""

    device: str
    kid: str
    table: str
    state: str
    handshake: int
    online: bool | None
    running: int | None
    menu_version: int | None
    pending: int | None


@dataclass(frozen=True, slots=True)
class LedgerSession:
    """A live session, without its keys; times in unix seconds."""

    device: str
    sid: bytes
    handshake: int
    created_at: int
    expires_at: int


@dataclass(frozen=True, slots=True)
class LedgerRelease:
    """A bundle on offer."""

    ref: bytes
    version: int
    hardware: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class LedgerUpdate:
    """Where a terminal says its update stands (``ota-state`` in the wire contract)."""

    device: str
    running: int
    slot: int
    state: int
    offset: int
    reason: int


def _order(row: Any, lines: dict[int, list[LedgerLine]]) -> LedgerOrder:
    device, op_id, number, table, total, tax, version, lsn, created = row
    chosen = tuple(lines.get(number, ()))
    return LedgerOrder(device, op_id, number, table, total, tax, version, lsn, created, chosen)


def _device(row: Any) -> LedgerDevice:
    device, kid, table, state, handshake, online, running, menu_version, pending = row
    seen = None if online is None else bool(online)
    return LedgerDevice(device, kid.hex(), table, state, handshake, seen, running, menu_version, pending)


class Ledger:
    """Everything a site has committed.

    ``place`` is a state folder, the database file in it, or a PostgreSQL URL. Raises: StorageError when it
    cannot be read.
    """

    def __init__(self, place: Path | str) -> None:
        self._place = place
        reader_at(place).close()

    def _rows(self, sql: str, parameters: Iterable[Any] = ()) -> list[Any]:
        with closing(reader_at(self._place)) as reader, reader.snapshot() as transaction:
            return list(transaction.execute(sql, tuple(parameters)).fetchall())

    def orders(self, site: str, *, after: int = 0) -> list[LedgerOrder]:
        """Committed orders with a number above ``after``, oldest first, with the lines that still count."""
        # Orders first: what commits in between adds lines of orders not listed, never the other way round.
        orders: list[tuple[Any, ...]] = self._rows(
            "SELECT device, op_id, order_number, table_id, total_minor, tax_minor, menu_version, lsn, "
            "created_at "
            "FROM orders WHERE site = ? AND order_number > ? ORDER BY order_number",
            (site, after),
        )
        lines: dict[int, list[LedgerLine]] = {}
        for number, item, quantity, modifiers, unit, total, tax in self._rows(
            "SELECT order_number, item, quantity, modifiers, unit_minor, total_minor, tax_minor FROM "
            "order_line "
            "WHERE site = ? AND order_number > ? AND state <> 4 ORDER BY order_number, line",
            (site, after),
        ):
            chosen = tuple(int(modifier) for modifier in modifiers.split(",") if modifier)
            lines.setdefault(number, []).append(LedgerLine(item, quantity, chosen, unit, total, tax))
        return [_order(row, lines) for row in orders]

    def order_count(self, site: str) -> int:
        """How many orders are committed."""
        return int(self._rows("SELECT COUNT(*) FROM orders WHERE site = ?", (site,))[0][0])

    def answers(self, site: str) -> list[LedgerAnswer]:
        """Every final answer in the order of its LSN."""
        return [
            LedgerAnswer(*row)
            for row in self._rows(
                "SELECT device, op_id, op_hash, status, arg, order_number, total_minor, lsn, chain FROM "
                "answer "
                "WHERE site = ? ORDER BY lsn",
                (site,),
            )
        ]

    def lsns(self, site: str) -> list[int]:
        """Every LSN given out, ascending: those of answers to terminals and those of what staff did."""
        rows = self._rows(
            "SELECT lsn FROM answer WHERE site = ? UNION SELECT lsn FROM event WHERE site = ? ORDER BY lsn",
            (site, site),
        )
        return [int(row[0]) for row in rows]

    def stock(self, site: str) -> dict[int, int]:
        """What is left of every counted item."""
        return dict(self._rows("SELECT item, count FROM stock WHERE site = ?", (site,)))

    def refusals(self, site: str | None = None) -> dict[tuple[str, str, str], int]:
        """Counted refusals as {(site, device, code): count}; device is "" for connections without a login."""
        rows = self._rows("SELECT site, device, code, count FROM refusal")
        return {(row[0], row[1], row[2]): row[3] for row in rows if site is None or row[0] == site}

    def devices(self, site: str) -> list[LedgerDevice]:
        """Registered devices by name, with their presence."""
        return [
            _device(row)
            for row in self._rows(
                "SELECT d.device, d.kid, d.table_id, d.state, d.handshake, p.online, p.running, "
                "p.menu_version, "
                "p.pending FROM device d LEFT JOIN presence p ON p.site = d.site AND p.device = d.device "
                "WHERE d.site = ? ORDER BY d.device",
                (site,),
            )
        ]

    def sessions(self, site: str) -> list[LedgerSession]:
        """Live sessions by device."""
        return [
            LedgerSession(*row)
            for row in self._rows(
                "SELECT device, sid, handshake, created_at, expires_at FROM session WHERE site = ? ORDER BY "
                "device",
                (site,),
            )
        ]

    def seatings(self, site: str) -> list[tuple[str, int, bytes, bool]]:
        """(table, total in minor units, chain head, open) of every seating, oldest first."""
        return [
            (row[0], row[1], row[2], row[3] is None)
            for row in self._rows(
                "SELECT table_id, total_minor, chain, closed_at FROM seating WHERE site = ? ORDER BY id",
                (site,),
            )
        ]

    def releases(self, site: str) -> list[LedgerRelease]:
        """Bundles on offer, oldest first."""
        rows = self._rows(
            "SELECT ref, version, hardware, LENGTH(bundle) FROM release WHERE site = ? ORDER BY "
            "published_at, version",
            (site,),
        )
        return [LedgerRelease(*row) for row in rows]

    def update_states(self, site: str) -> list[LedgerUpdate]:
        """Every terminal's last reports by device: of its application, then of its firmware image."""
        rows = self._rows(
            'SELECT device, running, slot, state, "offset", reason FROM update_state WHERE site = ? ORDER BY '
            "device, layer",
            (site,),
        )
        return [LedgerUpdate(*row) for row in rows]
