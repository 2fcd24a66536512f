"""A party that moves or joins another: its terminals are told, and orders go where their guests sit."""

from __future__ import annotations

from house_kit import DEVICE, OTHER_DEVICE, OTHER_TABLE, SITE, TABLE, Line, StaffedHouse, Status
from order_kit import ESPRESSO, WATER

from server.storage.registry import seating_of
from server.wire.notices import NoticeKind
from server.wire.ops import RejectCode

WATER_MINOR, COFFEE_MINOR = 300, 520


def test_an_order_from_the_new_table_is_on_the_moved_partys_bill(house: StaffedHouse) -> None:
    house.guest().order(Line(WATER, 1), total=WATER_MINOR)
    house.run(house.service.transfer("anna", 1, OTHER_TABLE))
    assert house.notices == [
        (TABLE, NoticeKind.TRANSFERRED_AWAY),
        (OTHER_TABLE, NoticeKind.TRANSFERRED_HERE),
    ]
    there = house.guest(OTHER_DEVICE)
    assert there.order(Line(ESPRESSO, 2), total=COFFEE_MINOR).status == Status.COMMITTED
    assert house.rows("SELECT DISTINCT seating FROM orders") == [(1,)]
    assert there.ask_bill().total_minor == WATER_MINOR + COFFEE_MINOR


def test_an_order_from_the_old_table_begins_a_new_party_and_costs_the_moved_one_nothing(
    house: StaffedHouse,
) -> None:
    here = house.guest()
    here.order(Line(WATER, 1), total=WATER_MINOR)
    house.run(house.service.transfer("anna", 1, "6"))
    assert here.order(Line(ESPRESSO, 2), total=COFFEE_MINOR).status == Status.COMMITTED
    assert house.rows("SELECT table_id, total_minor FROM seating ORDER BY id") == [
        ("6", WATER_MINOR),
        (TABLE, COFFEE_MINOR),
    ]


def test_an_order_after_a_merge_is_on_the_one_bill_of_both(house: StaffedHouse) -> None:
    here, there = house.guest(DEVICE), house.guest(OTHER_DEVICE)
    here.order(Line(WATER, 1), total=WATER_MINOR)
    there.order(Line(WATER, 1), total=WATER_MINOR)
    house.run(house.service.merge("anna", 1, 2))
    assert house.notices == [
        (TABLE, NoticeKind.TRANSFERRED_AWAY),
        (OTHER_TABLE, NoticeKind.TRANSFERRED_HERE),
    ]
    there.order(Line(ESPRESSO, 2), total=COFFEE_MINOR)
    assert there.ask_bill().total_minor == 2 * WATER_MINOR + COFFEE_MINOR


def test_a_terminal_cannot_change_an_order_that_moved_to_another_table(house: StaffedHouse) -> None:
    here = house.guest()
    order = here.order(Line(WATER, 1), total=WATER_MINOR)
    house.run(house.service.transfer("anna", 1, "6"))
    refused = here.cancel(order.op_id)
    assert (refused.status, refused.arg) == (Status.REJECTED, RejectCode.UNKNOWN_ORDER)
    assert house.rows("SELECT total_minor FROM seating WHERE id = 1") == [(WATER_MINOR,)]


def test_a_new_session_is_told_of_the_party_that_sits_there_now(house: StaffedHouse) -> None:
    house.guest().order(Line(WATER, 1), total=WATER_MINOR)
    connection = house.house.connection
    assert seating_of(connection, SITE, TABLE) == (1, WATER_MINOR)
    house.run(house.service.transfer("anna", 1, OTHER_TABLE))
    assert seating_of(connection, SITE, TABLE) is None
    assert seating_of(connection, SITE, OTHER_TABLE) == (1, WATER_MINOR)
