"""Stations, courses and the steps of lines; tables out of service."""

from __future__ import annotations

from typing import Any

import pytest
from database_kit import BROKEN_RULE
from house_kit import NOW_S, OTHER_DEVICE, SITE, Guest, Line, StaffedHouse, Status, refused
from order_kit import ESPRESSO, RARE, STEAK, WATER

from server.domain.errors import HouseCode
from server.domain.states import LineState
from server.service import tickets
from server.wire.cbor import decode
from server.wire.notices import NoticeKind
from server.wire.ops import parse_op

BAR, GRILL = "bar", "grill"
STEAK_MINOR, WATER_MINOR, ESPRESSO_MINOR = 2890, 300, 260


def a_dinner(house: StaffedHouse) -> Guest:
    """Water, then a steak, then an espresso: lines 0, 1, 2 of order 1; stations and courses are set."""
    for item, station in ((WATER, BAR), (ESPRESSO, BAR), (STEAK, GRILL)):
        house.run(house.service.set_station("boss", item, station))
    guest = house.guest()
    lines = (Line(WATER, 1), Line(STEAK, 1, (RARE,)), Line(ESPRESSO, 1))
    assert guest.order(*lines, total=WATER_MINOR + STEAK_MINOR + ESPRESSO_MINOR).status == Status.COMMITTED
    house.run(house.service.set_course("anna", 1, 1, 2))
    house.run(house.service.set_course("anna", 1, 2, 3))
    return guest


def shown(house: StaffedHouse, station: str | None = None) -> list[dict[str, Any]]:
    """The open tickets of a station, or of all."""
    found, more = tickets.open_tickets(house.house.connection, SITE, station)
    assert more is None
    return [tickets.shown(ticket) for ticket in found]


def test_each_station_sees_its_own_lines_and_nothing_else(house: StaffedHouse) -> None:
    a_dinner(house)
    (bar,) = shown(house, BAR)
    (grill,) = shown(house, GRILL)
    assert [line["item"] for line in bar["lines"]] == [WATER, ESPRESSO]
    assert [line["item"] for line in grill["lines"]] == [STEAK]
    assert (grill["order"], grill["table"], grill["at"]) == (1, "4", NOW_S)
    assert shown(house, "pizza") == []
    assert shown(house) == [bar, grill]


def test_an_item_without_a_station_is_on_no_stations_ticket_but_on_the_kitchens(house: StaffedHouse) -> None:
    house.guest().order(Line(WATER, 1), total=WATER_MINOR)
    assert [ticket["station"] for ticket in shown(house)] == [""]
    assert shown(house, BAR) == []
    house.run(house.service.set_station("boss", WATER, BAR))
    assert len(shown(house, BAR)) == 1
    house.run(house.service.set_station("boss", WATER, ""))
    assert shown(house, BAR) == []


def test_a_later_course_is_held_until_it_is_fired(house: StaffedHouse) -> None:
    a_dinner(house)
    assert [line["held"] for line in shown(house, BAR)[0]["lines"]] == [False, True]
    assert shown(house, GRILL)[0]["held"]
    fired = house.run(house.service.fire_course("anna", 1, 2))
    assert (fired["table"], fired["orders"]) == ("4", [1])
    assert not shown(house, GRILL)[0]["held"]
    assert [line["held"] for line in shown(house, BAR)[0]["lines"]] == [False, True], "the espresso waits"
    with refused(HouseCode.NOTHING_TO_FIRE):
        house.run(house.service.fire_course("anna", 1, 2))


def test_the_first_course_is_never_held_and_never_fired(house: StaffedHouse) -> None:
    a_dinner(house)
    with refused(HouseCode.NOTHING_TO_FIRE):
        house.run(house.service.fire_course("anna", 1, 1))


def test_a_fired_course_stays_fired_when_its_party_moves(house: StaffedHouse) -> None:
    a_dinner(house)
    house.run(house.service.fire_course("anna", 1, 2))
    house.run(house.service.transfer("anna", 1, "6"))
    (grill,) = shown(house, GRILL)
    assert (grill["table"], grill["held"]) == ("6", False)


def test_every_step_of_a_line_is_kept_with_who_and_when(house: StaffedHouse) -> None:
    a_dinner(house)
    assert [(line["since"], line["by"]) for line in shown(house, GRILL)[0]["lines"]] == [
        (NOW_S, "device:t-0001")
    ]
    house.run(house.service.set_line_state("kim", 1, 1, LineState.PREPARING))
    assert shown(house, GRILL)[0]["lines"][0]["by"] == "kim"
    house.run(house.service.set_line_state("kim", 1, 1, LineState.READY))
    house.run(house.service.void_line("boss", 1, 1, "burnt"))
    kept = tickets.steps(house.house.connection, SITE, 1)
    assert [(step["line"], step["state"], step["author"], step["reason"]) for step in kept] == [
        (1, "preparing", "kim", ""),
        (1, "ready", "kim", ""),
        (1, "cancelled", "boss", "burnt"),
    ]
    assert {step["at"] for step in kept} == {NOW_S}
    with pytest.raises(BROKEN_RULE):
        house.rows("UPDATE line_step SET author = 'nobody'")
    with pytest.raises(BROKEN_RULE):
        house.rows("DELETE FROM line_step")


def test_a_ticket_ends_when_everything_on_it_is_served(house: StaffedHouse) -> None:
    a_dinner(house)
    done = house.run(house.service.set_ticket_state("kim", 1, BAR, LineState.READY))
    assert (done["lines"], done["order_state"]) == ([0, 2], "preparing")
    assert house.notices == [("4", NoticeKind.ORDER_STATE)]
    assert shown(house, BAR)[0]["state"] == "ready"
    house.run(house.service.set_ticket_state("kim", 1, BAR, LineState.SERVED))
    assert shown(house, BAR) == []
    assert len(shown(house, GRILL)) == 1


def test_a_ticket_moves_as_a_whole_or_not_at_all(house: StaffedHouse) -> None:
    a_dinner(house)
    house.run(house.service.set_line_state("kim", 1, 0, LineState.SERVED))
    with refused(HouseCode.LINE_STATE):
        house.run(house.service.set_ticket_state("kim", 1, BAR, LineState.PREPARING))
    assert house.rows("SELECT state FROM order_line WHERE line = 2") == [(int(LineState.NEW),)]
    with refused(HouseCode.UNKNOWN_ORDER):
        house.run(house.service.set_ticket_state("kim", 1, "pizza", LineState.READY))


def test_a_ticket_outlives_its_party(house: StaffedHouse) -> None:
    guest = a_dinner(house)
    guest.seal(guest.ask_bill())
    assert house.rows("SELECT COUNT(*) FROM seating WHERE closed_at IS NULL") == [(0,)]
    assert len(shown(house)) == 2, "paid, and still to be cooked"


def test_no_order_is_taken_from_a_closed_table(house: StaffedHouse) -> None:
    house.run(house.service.close_table("anna", "4", "rain"))
    guest = house.guest()
    first = guest.order(Line(WATER, 1), total=WATER_MINOR)
    assert (first.status, first.order_number, first.total_minor) == (Status.TABLE_CLOSED, 0, 0)
    assert house.rows("SELECT COUNT(*) FROM orders") == [(0,)]
    assert house.guest(OTHER_DEVICE).order(Line(WATER, 1), total=WATER_MINOR).status == Status.COMMITTED
    assert guest.call().status == Status.COMMITTED, "somebody can still be called"
    house.run(house.service.open_table("anna", "4"))
    assert guest.order(Line(WATER, 1), total=WATER_MINOR).status == Status.COMMITTED
    refused_op = house.rows("SELECT op FROM answer WHERE status = 3")[0][0]
    again = house.house.apply(parse_op(decode(bytes(refused_op), 1024)), body=bytes(refused_op))
    assert (again.repeated, again.reply.status) == (True, Status.TABLE_CLOSED), "final, also once it is open"


def test_nobody_is_seated_at_a_closed_table_and_no_table_is_closed_on_its_guests(house: StaffedHouse) -> None:
    house.guest().order(Line(WATER, 1), total=WATER_MINOR)
    with refused(HouseCode.TABLE_TAKEN):
        house.run(house.service.close_table("anna", "4"))
    house.run(house.service.close_table("anna", "6", "wobbles"))
    with refused(HouseCode.TABLE_CLOSED):
        house.run(house.service.open_seating("anna", "6"))
    with refused(HouseCode.TABLE_CLOSED):
        house.run(house.service.transfer("anna", 1, "6"))
    house.run(house.service.open_table("anna", "6"))
    house.run(house.service.close_table("anna", "5", "rain"))
    booked = house.run(house.service.book("anna", "Ada", 2, ["5", "6"], 1000, 2000))
    assert house.run(house.service.seat_booking("anna", booked["booking"]))["table"] == "6"
    assert house.rows("SELECT reason FROM event WHERE kind = 'table_closed'") == [("wobbles",), ("rain",)]
