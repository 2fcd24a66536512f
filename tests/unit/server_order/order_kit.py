"""A site's database with a menu, devices and sessions, and the writer's job without its thread."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from server.devices.records import DeviceState
from server.ordering.apply import Answered, ApplyOp
from server.ordering.catalogue import Catalogue
from server.ordering.price_list import PricedGroup, PricedItem, PriceList, price_list
from server.storage import admin
from server.storage.database import Database, open_database
from server.wire.ops import Line, Op, OpType

SITE = "house"
TABLE, OTHER_TABLE = "4", "5"
DEVICE, OTHER_DEVICE = "t-0001", "t-0002"
NOW_S = 1_700_000_000

ESPRESSO, STEAK, WATER = 1, 2, 3
MILK, RARE, DONE, SHOT, NO_CHEESE = 101, 121, 122, 131, 151


def a_price_list(version: int = 1, rounding: int = 0, espresso_minor: int = 260) -> PriceList:
    """Espresso with milk (optional) and shots (up to two), steak with doneness (required), water."""
    return price_list(
        version,
        rounding,
        {1: 700, 2: 1900},
        {
            1: PricedGroup(0, 1, {MILK: 50}),
            2: PricedGroup(1, 1, {RARE: 0, DONE: 0}),
            3: PricedGroup(0, 2, {SHOT: 90, NO_CHEESE: -3000}),
        },
        {
            ESPRESSO: PricedItem(espresso_minor, 2, (1, 3)),
            STEAK: PricedItem(2890, 1, (2,)),
            WATER: PricedItem(300, 2, ()),
        },
    )


def order_op(
    *lines: Line,
    total: int,
    table: str = TABLE,
    number: int = 1,
    menu_version: int = 1,
    op_type: int = OpType.ORDER,
) -> Op:
    """An order; ``number`` makes its op id."""
    return Op(op_type, number.to_bytes(12, "big"), table, lines, menu_version, total)


@dataclass
class House:
    """The database of a site, and a connection that plays the writer."""

    database: Database
    connection: sqlite3.Connection
    catalogue: Catalogue
    prices: dict[bytes, PriceList]

    def apply(
        self, op: Op, *, device: str = DEVICE, body: bytes | None = None, sid: bytes | None = None
    ) -> Answered:
        """Apply one op in a transaction of its own, as the writer would."""
        job = ApplyOp(
            self.catalogue,
            device,
            sid or device.encode()[-4:],
            op,
            sha256(body or repr(op).encode()).digest(),
            NOW_S,
            body or b"",
        )
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            self.catalogue.reload(self.connection)
            answered = job(self.connection)
        except BaseException:
            self.connection.execute("ROLLBACK")
            raise
        self.connection.execute("COMMIT")
        return answered

    def publish(self, prices: PriceList) -> None:
        """Publish a menu version."""
        frame = b"menu %d" % prices.version
        self.prices[frame] = prices
        admin.publish_menu(self.database, SITE, prices.version, frame, NOW_S)

    def one(self, sql: str) -> int:
        """A single number from the database."""
        return int(self.connection.execute(sql).fetchone()[0])

    def close(self) -> None:
        """Close everything."""
        self.connection.close()
        self.database.close()


def open_house(state: Path) -> House:
    """A fresh site with menu version 1, two active devices and a session each."""
    database = open_database(state, create=True)
    admin.ensure_site(database, SITE)
    prices: dict[bytes, PriceList] = {}
    house = House(database, database.driver_connection(), Catalogue(SITE, prices.__getitem__), prices)
    house.publish(a_price_list())
    for device, table in ((DEVICE, TABLE), (OTHER_DEVICE, OTHER_TABLE)):
        admin.add_device(
            database,
            SITE,
            device,
            table=table,
            spki=device.encode(),
            password_hash="",
            state=DeviceState.ACTIVE,
            now_s=NOW_S,
        )
        give_session(house, device)
    return house


def give_session(house: House, device: str) -> None:
    """A session row whose sid is the end of the device's name."""
    house.connection.execute(
        "INSERT INTO session (site, device, sid, k_d2s, k_s2d, k_resume, th8, created_at, expires_at, "
        "hello_hash, accept, "
        "handshake) VALUES (?,?,?,?,?,?,?,?,?,?,?,1)",
        (SITE, device, device.encode()[-4:], b"", b"", b"", b"", NOW_S, NOW_S + 100, b"", b""),
    )
