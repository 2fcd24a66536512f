"""What the writer needs to know to judge an order, read from the database inside the transaction that uses
it.

The catalogue is reloaded by the writer thread at the start of a transaction whenever the file's admin
revision moved, so a menu published or a device suspended by another program counts from the very next
commit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from server.devices.records import DeviceState
from server.ordering.price_list import PriceList
from server.storage.transaction import Transaction


@dataclass(frozen=True, slots=True)
class KnownDevice:
    """A registered terminal: where it stands and whether it may order."""

    table: str
    state: DeviceState
    password_hash: str


@dataclass(frozen=True, slots=True)
class MenuVersion:
    """A published menu: its number, the hash of its frame, and its prices."""

    version: int
    hash: bytes
    prices: PriceList


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One consistent view of a site's devices, menus and counted items."""

    devices: Mapping[str, KnownDevice]
    current: MenuVersion | None
    published: frozenset[int]
    counted: frozenset[int]
    unavailable: frozenset[int] = frozenset()
    closed_tables: frozenset[str] = frozenset()


class Catalogue:
    """Holds the newest snapshot of one site; written by the writer thread only.

    ``read_prices(frame)`` turns a stored menu frame into prices; it runs once per menu version.
    """

    def __init__(self, site: str, read_prices: Callable[[bytes], PriceList]) -> None:
        self.site = site
        self._read_prices = read_prices
        self._menus: dict[int, MenuVersion] = {}
        self.snapshot = Snapshot({}, None, frozenset(), frozenset())

    def reload(self, connection: Transaction) -> None:
        """Read everything again; called inside a transaction."""
        devices = {
            str(name): KnownDevice(table, DeviceState(state), password_hash)
            for name, table, state, password_hash in connection.execute(
                "SELECT device, table_id, state, password_hash FROM device WHERE site = ?", (self.site,)
            )
        }
        versions = connection.execute("SELECT version FROM menu WHERE site = ?", (self.site,)).fetchall()
        counted = connection.execute("SELECT item FROM stock WHERE site = ?", (self.site,)).fetchall()
        unavailable = connection.execute(
            "SELECT item FROM item_state WHERE site = ? AND available = 0", (self.site,)
        ).fetchall()
        closed = connection.execute(
            "SELECT table_id FROM closed_table WHERE site = ?", (self.site,)
        ).fetchall()
        self.snapshot = Snapshot(
            devices,
            self._current(connection),
            frozenset(int(row[0]) for row in versions),
            frozenset(int(row[0]) for row in counted),
            frozenset(int(row[0]) for row in unavailable),
            frozenset(str(row[0]) for row in closed),
        )

    def _current(self, connection: Transaction) -> MenuVersion | None:
        row = connection.execute(
            "SELECT m.version, m.hash, m.frame FROM site s JOIN menu m ON m.site = s.site AND m.version = "
            "s.current_menu "
            "WHERE s.site = ?",
            (self.site,),
        ).fetchone()
        if row is None:
            return None
        version, digest, frame = int(row[0]), bytes(row[1]), bytes(row[2])
        known = self._menus.get(version)
        if known is None:
            known = MenuVersion(version, digest, self._read_prices(frame))
            self._menus = {version: known}
        return known
