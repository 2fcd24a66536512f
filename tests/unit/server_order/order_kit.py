"""A site's database with a menu, devices and sessions, and the writer's job without its thread."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from database_kit import transaction

from server.devices.records import DeviceState
from server.ordering.apply import Answered, ApplyOp
from server.ordering.catalogue import Catalogue
from server.ordering.price_list import PricedGroup, PricedItem, PriceList, price_list
from server.ordering.together import OrderGroups
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
    connection: Any
    catalogue: Catalogue
    prices: dict[bytes, PriceList]

    def apply(
        self, op: Op, *, device: str = DEVICE, body: bytes | None = None, sid: bytes | None = None
    ) -> Answered:
        """Apply one op in a transaction of its own, as the writer of its database would."""
        job = self.job(op, device=device, body=body, sid=sid)
        together = self.database.dialect == "postgresql" and OrderGroups().takes(job)
        with transaction(self.connection, shared=together):
            self.catalogue.reload(self.connection)
            return self.run(job) if together else job(self.connection)

    def run(self, *jobs: ApplyOp) -> Answered:
        """Apply plain orders as a group inside the open transaction and return the last answer."""
        outcomes = OrderGroups().run(self.connection, jobs)
        for outcome in outcomes:
            if outcome.error is not None:
                raise outcome.error
        assert outcomes[-1].value is not None
        return outcomes[-1].value

    def job(
        self, op: Op, *, device: str = DEVICE, body: bytes | None = None, sid: bytes | None = None
    ) -> ApplyOp:
        """The writer's job for an op."""
        return ApplyOp(
            self.catalogue,
            device,
            sid or device.encode()[-4:],
            op,
            sha256(body or repr(op).encode()).digest(),
            NOW_S,
            body or b"",
        )

    def publish(self, prices: PriceList) -> None:
        """Publish a menu version."""
        frame = frame_of(prices.version)
        self.prices[frame] = prices
        admin.publish_menu(self.database, SITE, prices.version, frame, NOW_S)

    def one(self, sql: str) -> int:
        """A single number from the database."""
        return int(self.connection.execute(sql).fetchone()[0])

    def close(self) -> None:
        """Close everything."""
        self.connection.close()
        self.database.close()


def frame_of(version: int) -> bytes:
    """What stands for a signed menu."""
    return b"menu %d" % version


def open_house(state: Path, url: str | None = None) -> House:
    """A site with menu version 1, two active devices and a session each, in the database at ``url`` (which
    may hold it already) or in a file.
    """
    database = open_database(state, create=True, url=url)
    with database.engine.connect() as connection:
        filled = connection.exec_driver_sql("SELECT COUNT(*) FROM site").scalar_one()
    admin.ensure_site(database, SITE)
    prices: dict[bytes, PriceList] = {}
    house = House(database, database.driver_connection(), Catalogue(SITE, prices.__getitem__), prices)
    house.prices[frame_of(1)] = a_price_list()
    if filled:
        return house
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
