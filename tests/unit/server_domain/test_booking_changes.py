"""A booking may be changed like it could have been made: never onto what another one keeps."""

from __future__ import annotations

import pytest
from database_kit import BROKEN_RULE
from house_kit import SITE, StaffedHouse, refused

from server.domain.errors import HouseCode
from server.service import views
from server.service.bookings import Wish

NINE, TEN, ELEVEN, NOON = (hour * 3600 for hour in (9, 10, 11, 12))


def booked(house: StaffedHouse, *tables: str, start_at: int = TEN, end_at: int = ELEVEN) -> int:
    """A booking of tables for two."""
    number: int = house.run(house.service.book("anna", "Ada", 2, tables, start_at, end_at))["booking"]
    return number


def change(house: StaffedHouse, booking: int, **wish: object) -> dict[str, object]:
    """Change a booking."""
    return house.run(house.service.change_booking("ben", booking, Wish(**wish)))  # type: ignore[arg-type]


def test_a_booking_moves_in_time_over_itself(house: StaffedHouse) -> None:
    booking = booked(house, "4")
    moved = change(house, booking, start_at=TEN + 1800, end_at=ELEVEN + 1800)
    assert (moved["start_at"], moved["tables"], moved["name"]) == (TEN + 1800, ["4"], "Ada")
    assert booked(house, "4", start_at=NINE, end_at=TEN + 1800), "what it gave up is free"
    (_, row) = views.bookings(house.house.connection, SITE, 0, NOON)
    assert (row["booking"], row["start_at"], row["end_at"]) == (booking, TEN + 1800, ELEVEN + 1800)


def test_a_change_onto_anothers_time_changes_nothing(house: StaffedHouse) -> None:
    booking, other = booked(house, "4"), booked(house, "4", start_at=ELEVEN, end_at=NOON)
    before = house.rows("SELECT * FROM booking_table ORDER BY booking")
    with refused(HouseCode.BOOKING_OVERLAP):
        change(house, booking, end_at=ELEVEN + 1)
    with refused(HouseCode.BOOKING_OVERLAP):
        change(house, other, start_at=ELEVEN - 1)
    assert house.rows("SELECT * FROM booking_table ORDER BY booking") == before


def test_a_party_that_grew_gets_linked_tables_only_where_all_are_free(house: StaffedHouse) -> None:
    booking = booked(house, "4")
    booked(house, "5", start_at=NINE, end_at=ELEVEN)
    with refused(HouseCode.BOOKING_OVERLAP):
        change(house, booking, tables=["4", "5"], covers=8)
    grown = change(house, booking, tables=["4", "6"], covers=8)
    assert (grown["tables"], grown["covers"]) == (["4", "6"], 8)
    with refused(HouseCode.BOOKING_OVERLAP):
        booked(house, "6")
    change(house, booking, tables=["6"], covers=2)
    assert booked(house, "4")


def test_only_what_is_still_booked_can_be_changed(house: StaffedHouse) -> None:
    gone, seated = booked(house, "4"), booked(house, "5")
    house.run(house.service.no_show("anna", gone))
    house.run(house.service.seat_booking("anna", seated))
    for booking in (gone, seated):
        with refused(HouseCode.BOOKING_STATE):
            change(house, booking, covers=3)
    with refused(HouseCode.UNKNOWN_BOOKING):
        change(house, 999, covers=3)


@pytest.mark.parametrize(
    "wish", [{"covers": 0}, {"end_at": TEN}, {"tables": []}, {"name": " "}, {"tables": ["4", "4"]}]
)
def test_a_change_into_nonsense_is_refused(house: StaffedHouse, wish: dict[str, object]) -> None:
    booking = booked(house, "4")
    with refused(HouseCode.BAD_VALUE):
        change(house, booking, **wish)


def test_the_database_itself_refuses_a_changed_hold_that_overlaps(house: StaffedHouse) -> None:
    first, second = booked(house, "4"), booked(house, "5")
    with pytest.raises(BROKEN_RULE):
        house.rows(f"UPDATE booking_table SET table_id = '4' WHERE booking = {second}")
    assert first != second
