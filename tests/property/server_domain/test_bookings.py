"""Bookings against brute force: minute by minute, no table is ever kept for two parties."""

from __future__ import annotations

import tempfile
from pathlib import Path

from house_kit import NOW_S, SITE, refused, staffed_house
from hypothesis import given, settings
from hypothesis import strategies as st

from server.domain.errors import HouseCode
from server.service import views

TABLES = ("4", "5", "6")
requests = st.tuples(
    st.lists(st.sampled_from(TABLES), min_size=1, max_size=3, unique=True),
    st.integers(0, 30),
    st.integers(1, 12),
    st.booleans(),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(requests, max_size=14))
def test_a_booking_is_taken_exactly_when_every_minute_of_every_table_is_free(
    wanted: list[tuple[list[str], int, int, bool]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        house = staffed_house(Path(folder))
        kept: dict[tuple[str, int], int] = {}
        for tables, start, length, cancel in wanted:
            minutes = {(table, minute) for table in tables for minute in range(start, start + length)}
            job = house.service.book(
                "anna", "Ito", 2, tables, NOW_S + start * 60, NOW_S + (start + length) * 60
            )
            if minutes & kept.keys():
                with refused(HouseCode.BOOKING_OVERLAP):
                    house.run(job)
                continue
            booking = house.run(job)["booking"]
            if cancel:
                house.run(house.service.cancel_booking("anna", booking))
            else:
                kept.update(dict.fromkeys(minutes, booking))
        shown = views.bookings(house.house.connection, SITE, NOW_S, NOW_S + 3600)
        live = {entry["booking"] for entry in shown if entry["state"] == "booked"}
        assert live == set(kept.values())
        house.house.close()
