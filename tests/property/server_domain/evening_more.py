"""The rest of an evening: bookings, what is on sale, a new menu, a server cut off from its database."""

from __future__ import annotations

import psycopg
import pytest
from database_kit import POSTGRESQL, cluster
from evening import ALL_TABLES, PRICES, Evening, Party, devices
from house_kit import NOW_S
from hypothesis import strategies as st
from hypothesis.stateful import rule
from order_kit import WATER, a_price_list, order_op

from server.ordering.together import OrderGroups
from server.wire.ops import Line

HOURS = 3600


class LongEvening(Evening):
    """An evening with everything that can happen in it."""

    def __init__(self) -> None:
        super().__init__()
        self.cuts = 0

    @rule(
        tables=st.lists(st.sampled_from(ALL_TABLES), min_size=1, max_size=2, unique=True),
        hour=st.integers(0, 5),
        hours=st.integers(1, 3),
    )
    def book(self, tables: list[str], hour: int, hours: int) -> None:
        """Somebody calls; a table is kept once."""
        start, end = NOW_S + hour * HOURS, NOW_S + (hour + hours) * HOURS
        kept = any(
            state[0] in ("booked", "seated") and set(held) & set(tables) and begins < end and start < ends
            for held, begins, ends, state in self.bookings.values()
        )
        job = self.house.service.book("anna", "Kowalski", 2, tables, start, end)
        result = self.try_(job, possible=not kept)
        if result is not None:
            self.bookings[int(str(result["booking"]))] = (tables, start, end, ["booked"])

    @rule(choice=st.integers(0, 30), what=st.sampled_from(["cancel", "no_show", "seat", "seat"]))
    def booked_party(self, choice: int, what: str) -> None:
        """It comes, or does not."""
        if not self.bookings:
            return
        booking = sorted(self.bookings)[choice % len(self.bookings)]
        tables, _, _, state = self.bookings[booking]
        service = self.house.service
        free = next((table for table in sorted(tables) if table not in self.parties), None)
        if what == "seat":
            possible = state[0] == "booked" and free is not None
            if self.try_(service.seat_booking("anna", booking), possible=possible) and free is not None:
                state[0] = "seated"
                self.parties[free] = Party(booking=booking)
            return
        job = (
            service.cancel_booking("anna", booking) if what == "cancel" else service.no_show("anna", booking)
        )
        if self.try_(job, possible=state[0] == "booked"):
            state[0] = "gone"

    @rule(item=st.sampled_from(sorted(PRICES)), available=st.booleans())
    def sell_out(self, item: int, available: bool) -> None:
        """The kitchen takes an item off sale, or puts it on again."""
        self.try_(self.house.service.set_available("cook", item, available), possible=True)
        (self.off_sale.discard if available else self.off_sale.add)(item)

    @rule()
    def publish(self) -> None:
        """A new menu with the same prices; guests see it at once."""
        self.house.menu_version += 1
        self.house.house.publish(a_price_list(version=self.house.menu_version))

    @rule()
    def restart(self) -> None:
        """The server starts again on the same database."""
        house = self.house.house
        house.connection.close()
        house.connection = house.database.driver_connection()

    @rule(device=devices)
    def cut_before_the_commit(self, device: str) -> None:
        """The database goes away while an order is being stored: nothing of it is there."""
        house, self.cuts = self.house.house, self.cuts + 1
        guest = self.guests[device]
        op = order_op(
            Line(WATER, 1), total=PRICES[WATER], table=guest.table, number=1_000_000 + self.cuts,
            menu_version=self.house.menu_version,
        )  # fmt: skip
        job = house.job(op, device=device, body=op.encode())
        if self.kind != POSTGRESQL:
            house.connection.execute("BEGIN IMMEDIATE")
            house.catalogue.reload(house.connection)
            job(house.connection)
            house.connection.close()
            house.connection = house.database.driver_connection()
            return
        house.connection.begin(shared=True)
        house.catalogue.reload(house.connection)
        OrderGroups().run(house.connection, [job])
        assert self.url is not None
        cluster().cut_sessions(self.url.rpartition("/")[2])
        with pytest.raises(psycopg.OperationalError):
            house.connection.commit()
        assert house.connection.lost
        house.connection.begin()  # connects again
        house.connection.rollback()
