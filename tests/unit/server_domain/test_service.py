"""What staff do: every change has one LSN and one event, and what cannot be is refused with a code."""

from __future__ import annotations

import json

import pytest
from database_kit import BROKEN_RULE, transaction
from house_kit import NOW_S, OTHER_DEVICE, SITE, Guest, Line, StaffedHouse, Status, refused
from order_kit import ESPRESSO, STEAK, WATER

from server.domain.errors import HouseCode
from server.domain.states import LineState
from server.service import views
from server.storage import admin
from server.wire.notices import NoticeKind
from server.wire.ops import RejectCode

COFFEE = Line(ESPRESSO, 2)


def ordered(house: StaffedHouse) -> Guest:
    """A terminal with one order of 520 in seating 1."""
    guest = house.guest()
    assert guest.order(COFFEE, total=520).status == Status.COMMITTED
    return guest


def test_every_change_has_one_lsn_and_one_event_with_its_author(house: StaffedHouse) -> None:
    done = house.run(house.service.open_seating("anna", "4", 2))
    assert house.rows(f"SELECT kind, author FROM event WHERE lsn = {done['lsn']}") == [
        ("seating_opened", "anna")
    ]
    assert house.notices == [("4", NoticeKind.SEATING_OPENED)]


def test_a_refused_change_takes_no_lsn_and_leaves_no_event(house: StaffedHouse) -> None:
    before = house.rows("SELECT lsn FROM site")
    with refused(HouseCode.UNKNOWN_TABLE):
        house.run(house.service.open_seating("anna", "nowhere"))
    assert house.rows("SELECT lsn FROM site") == before


def test_a_table_has_at_most_one_open_seating(house: StaffedHouse) -> None:
    house.run(house.service.open_seating("anna", "4"))
    with refused(HouseCode.TABLE_TAKEN):
        house.run(house.service.open_seating("ben", "4"))
    with pytest.raises(BROKEN_RULE):
        house.rows("INSERT INTO seating (site, table_id, opened_at, chain) VALUES ('house', '4', 1, '')")


def test_a_guest_orders_into_the_seating_staff_opened(house: StaffedHouse) -> None:
    opened = house.run(house.service.open_seating("anna", "4", 2))
    ordered(house)
    assert house.rows("SELECT seating FROM orders") == [(opened["seating"],)]


def test_a_transferred_party_takes_its_orders_along(house: StaffedHouse) -> None:
    guest = ordered(house)
    house.run(house.service.transfer("anna", 1, "6"))
    assert house.notices == [("4", NoticeKind.TRANSFERRED_AWAY), ("6", NoticeKind.TRANSFERRED_HERE)]
    assert house.rows("SELECT table_id, total_minor FROM seating") == [("6", 520)]
    guest.order(COFFEE, total=520)
    assert len(guest.links) == 1, "the terminal stayed: whoever sits down next begins a new seating"


def test_a_party_cannot_move_to_a_taken_table(house: StaffedHouse) -> None:
    ordered(house)
    house.guest(OTHER_DEVICE).order(COFFEE, total=520)
    with refused(HouseCode.TABLE_TAKEN):
        house.run(house.service.transfer("anna", 1, "5"))
    with refused(HouseCode.SAME_SEATING):
        house.run(house.service.transfer("anna", 1, "4"))


def test_merging_moves_every_order_and_no_cent_is_lost(house: StaffedHouse) -> None:
    ordered(house)
    other = house.guest(OTHER_DEVICE)
    other.order(Line(WATER, 1), total=300)
    other.order(Line(WATER, 2), total=600)
    house.run(house.service.merge("anna", 2, 1))
    assert house.rows("SELECT id, total_minor, merged_into FROM seating ORDER BY id") == [
        (1, 1420, None),
        (2, 0, 1),
    ]
    bill = house.run(house.service.bill("anna", 1))
    assert (bill["total_minor"], len(bill["lines"])) == (1420, 3)
    with refused(HouseCode.ALREADY_CLOSED):
        house.run(house.service.merge("anna", 2, 1))


def test_a_party_that_ever_paid_is_not_merged_even_if_all_of_it_was_given_back(house: StaffedHouse) -> None:
    ordered(house)
    house.guest(OTHER_DEVICE).order(Line(WATER, 1), total=300)
    bill = house.run(house.service.bill("anna", 1))["bill"]
    payment = house.run(house.service.pay("anna", bill, 520, "cash"))["payment"]
    house.run(house.service.refund("anna", payment, 520, "wrong table"))
    with refused(HouseCode.BILL_PENDING):
        house.run(house.service.merge("anna", 1, 2))
    house.run(house.service.merge("anna", 2, 1))
    assert house.rows("SELECT total_minor FROM seating WHERE id = 1") == [(820,)]


def test_a_seating_ends_only_when_its_bill_is_paid(house: StaffedHouse) -> None:
    ordered(house)
    with refused(HouseCode.BILL_PENDING):
        house.run(house.service.close("anna", 1))
    bill = house.run(house.service.bill("anna", 1))["bill"]
    with refused(HouseCode.BILL_PENDING):
        house.run(house.service.close("anna", 1))
    house.run(house.service.pay("anna", bill, 520, "cash"))
    house.run(house.service.close("anna", 1))
    assert house.rows("SELECT state, paid_minor FROM bill") == [("settled", 520)]
    assert house.notices == [("4", NoticeKind.CLOSED)]


def test_nobody_pays_more_than_is_due_and_the_database_agrees(house: StaffedHouse) -> None:
    ordered(house)
    bill = house.run(house.service.bill("anna", 1))["bill"]
    house.run(house.service.pay("anna", bill, 500, "card", "slip 12"))
    with refused(HouseCode.OVERPAID):
        house.run(house.service.pay("anna", bill, 21, "cash"))
    with pytest.raises(BROKEN_RULE, match="never_overpaid"):
        house.rows(
            "INSERT INTO payment (site, payment, bill, tender, reference, amount_minor, created_at) "
            "VALUES ('house', 99, 1, 'cash', '', 21, 1)"
        )


def test_a_card_payment_needs_its_reference(house: StaffedHouse) -> None:
    ordered(house)
    bill = house.run(house.service.bill("anna", 1))["bill"]
    with refused(HouseCode.BAD_VALUE):
        house.run(house.service.pay("anna", bill, 520, "card", " "))


def test_a_refund_needs_a_reason_and_gives_back_at_most_what_was_paid(house: StaffedHouse) -> None:
    ordered(house)
    bill = house.run(house.service.bill("anna", 1))["bill"]
    payment = house.run(house.service.pay("anna", bill, 520, "cash"))["payment"]
    with refused(HouseCode.REASON_NEEDED):
        house.run(house.service.refund("anna", payment, 100, ""))
    refund = house.run(house.service.refund("anna", payment, 500, "cold"))
    assert (refund["paid_minor"], refund["due_minor"]) == (20, 500)
    with refused(HouseCode.OVER_REFUNDED):
        house.run(house.service.refund("anna", payment, 21, "cold"))
    assert house.rows("SELECT reason FROM event WHERE kind = 'refunded'") == [("cold",)]


def test_a_split_by_share_adds_up_to_the_bill(house: StaffedHouse) -> None:
    ordered(house)
    bill = house.run(house.service.bill("anna", 1))
    parts = house.run(house.service.split("anna", bill["bill"], shares=[1, 1, 1]))["parts"]
    assert [part["due_minor"] for part in parts] == [174, 173, 173]
    assert sum(part["tax_minor"] for part in parts) == bill["tax_minor"]
    house.run(house.service.pay("anna", bill["bill"], 174, "cash", part=1))
    with refused(HouseCode.OVERPAID):
        house.run(house.service.pay("anna", bill["bill"], 1, "cash", part=1))
    with refused(HouseCode.BILL_STATE):
        house.run(house.service.split("anna", bill["bill"], shares=[1]))


def test_a_split_by_item_leaves_no_line_out(house: StaffedHouse) -> None:
    guest = house.guest()
    guest.order(COFFEE, Line(WATER, 1), Line(STEAK, 1, (121,)), total=3710)
    bill = house.run(house.service.bill("anna", 1))["bill"]
    parts = house.run(house.service.split("anna", bill, groups=[[(1, 0)], [(1, 2)]]))["parts"]
    assert [part["due_minor"] for part in parts] == [520, 2890, 300]
    with refused(HouseCode.BAD_SPLIT):
        house.run(house.service.split("anna", bill, groups=[[(1, 0)], [(1, 0)]]))
    with refused(HouseCode.BAD_SPLIT):
        house.run(house.service.split("anna", bill, groups=[[(9, 0)]]))


def test_a_bill_that_grew_must_be_drawn_up_again_before_it_is_paid(house: StaffedHouse) -> None:
    guest = ordered(house)
    bill = house.run(house.service.bill("anna", 1))["bill"]
    house.run(house.service.split("anna", bill, shares=[1, 1]))
    guest.order(Line(WATER, 1), total=300)
    with refused(HouseCode.BILL_PENDING):
        house.run(house.service.pay("anna", bill, 520, "cash"))
    assert house.run(house.service.bill("anna", 1))["total_minor"] == 820
    assert house.rows("SELECT * FROM bill_part") == [], "a split of another total does not survive"


def test_a_void_needs_a_reason_and_changes_bill_and_stock(house: StaffedHouse) -> None:
    admin.set_stock(house.house.database, SITE, WATER, 5)
    guest = house.guest()
    guest.order(COFFEE, Line(WATER, 2), total=1120)
    house.run(house.service.bill("anna", 1))
    with refused(HouseCode.REASON_NEEDED):
        house.run(house.service.void_line("anna", 1, 1, " "))
    house.run(house.service.void_line("anna", 1, 1, "spilled"))
    assert house.rows("SELECT total_minor FROM bill") == [(520,)]
    assert house.rows("SELECT count FROM stock") == [(5,)]
    house.run(house.service.set_line_state("cook", 1, 0, LineState.SERVED))
    house.run(house.service.void_line("anna", 1, 0, "complaint"))
    assert house.notices == [("4", NoticeKind.ORDER_STATE)]
    assert house.rows("SELECT total_minor FROM seating") == [(0,)]
    with refused(HouseCode.LINE_STATE):
        house.run(house.service.void_line("anna", 1, 0, "again"))


def test_what_was_paid_cannot_be_voided_without_a_refund(house: StaffedHouse) -> None:
    guest = ordered(house)
    bill = house.run(house.service.bill("anna", 1))["bill"]
    payment = house.run(house.service.pay("anna", bill, 520, "cash"))["payment"]
    with refused(HouseCode.OVERPAID):
        house.run(house.service.void_line("anna", 1, 0, "complaint"))
    house.run(house.service.refund("anna", payment, 520, "complaint"))
    house.run(house.service.void_line("anna", 1, 0, "complaint"))
    assert guest.order(COFFEE, total=520).status == Status.COMMITTED


def test_lines_move_through_the_kitchen_and_the_table_is_told(house: StaffedHouse) -> None:
    guest = house.guest()
    guest.order(COFFEE, Line(WATER, 1), total=820)
    assert house.run(house.service.set_line_state("cook", 1, 0, LineState.PREPARING))["order_state"] == (
        "preparing"
    )
    assert house.notices == [("4", NoticeKind.ORDER_STATE)]
    house.run(house.service.set_line_state("cook", 1, 0, LineState.READY))
    assert house.notices == [], "the order as a whole is still being prepared"
    with refused(HouseCode.LINE_STATE):
        house.run(house.service.set_line_state("cook", 1, 0, LineState.NEW))
    with refused(HouseCode.LINE_STATE):
        house.run(house.service.set_line_state("cook", 1, 0, LineState.CANCELLED))
    with refused(HouseCode.UNKNOWN_ORDER):
        house.run(house.service.set_line_state("cook", 1, 7, LineState.READY))


def test_an_item_taken_off_sale_is_sold_out_at_once(house: StaffedHouse) -> None:
    house.run(house.service.set_available("cook", ESPRESSO, False))
    reply = house.guest().order(COFFEE, total=520)
    assert (reply.status, reply.arg) == (Status.SOLD_OUT, ESPRESSO)
    house.run(house.service.set_available("cook", ESPRESSO, True))
    assert house.guest(OTHER_DEVICE).order(COFFEE, total=520).status == Status.COMMITTED
    with refused(HouseCode.UNKNOWN_ITEM):
        house.run(house.service.set_available("cook", 999, False))


def test_stock_set_by_staff_counts_in_the_very_next_job_of_the_same_commit(house: StaffedHouse) -> None:
    with transaction(house.house.connection) as connection:
        house.house.catalogue.reload(connection)
        house.service.set_stock("cook", ESPRESSO, 1)(connection)
        assert ESPRESSO in house.house.catalogue.snapshot.counted
    reply = house.guest().order(COFFEE, total=520)
    assert (reply.status, reply.arg) == (Status.SOLD_OUT, ESPRESSO)


def test_two_bookings_of_a_table_never_overlap_also_across_linked_tables(house: StaffedHouse) -> None:
    book = house.service.book
    first = house.run(book("anna", "Kowalski", 6, ["4", "5"], NOW_S, NOW_S + 7200))
    for start, end in ((NOW_S + 7199, NOW_S + 9000), (NOW_S - 60, NOW_S + 1), (NOW_S + 60, NOW_S + 120)):
        with refused(HouseCode.BOOKING_OVERLAP):
            house.run(book("anna", "Meier", 2, ["6", "5"], start, end))
    house.run(book("anna", "Meier", 2, ["5"], NOW_S + 7200, NOW_S + 9000))
    with pytest.raises(BROKEN_RULE, match="booking_overlap"):
        house.rows(
            "INSERT INTO booking_table (site, booking, table_id, start_at, end_at, live) "
            f"VALUES ('house', {first['booking']} + 1, '4', {NOW_S}, {NOW_S + 1}, 1)"
        )
    house.run(house.service.cancel_booking("anna", first["booking"], "flu"))
    house.run(book("anna", "Silva", 2, ["4"], NOW_S, NOW_S + 60))


def test_a_booking_is_seated_once_and_frees_its_tables_when_the_party_goes(
    house: StaffedHouse,
) -> None:
    booking = house.run(house.service.book("anna", "Ito", 4, ["4", "5"], NOW_S, NOW_S + 7200))["booking"]
    house.guest().order(COFFEE, total=520)
    seated = house.run(house.service.seat_booking("anna", booking))
    assert (seated["table"], seated["covers"], seated["state"]) == ("5", 4, "seated")
    with refused(HouseCode.BOOKING_STATE):
        house.run(house.service.no_show("anna", booking))
    house.run(house.service.close("anna", seated["seating"]))
    assert house.rows("SELECT DISTINCT live FROM booking_table") == [(0,)]


def test_a_party_that_does_not_come_frees_its_table(house: StaffedHouse) -> None:
    booking = house.run(house.service.book("anna", "Ito", 4, ["4"], NOW_S, NOW_S + 7200))["booking"]
    house.run(house.service.no_show("anna", booking))
    with refused(HouseCode.BOOKING_STATE):
        house.run(house.service.seat_booking("anna", booking))
    house.run(house.service.book("anna", "Ito", 4, ["4"], NOW_S, NOW_S + 7200))


@pytest.mark.parametrize("table", ["event", "payment", "refund"])
def test_what_happened_cannot_be_rewritten(house: StaffedHouse, table: str) -> None:
    ordered(house)
    bill = house.run(house.service.bill("anna", 1))["bill"]
    payment = house.run(house.service.pay("anna", bill, 520, "cash"))["payment"]
    house.run(house.service.refund("anna", payment, 1, "kind"))
    column = "reason" if table == "event" else "amount_minor"
    for sql in (f"DELETE FROM {table}", f"UPDATE {table} SET {column} = 1"):
        with pytest.raises(BROKEN_RULE, match="append_only"):
            house.rows(sql)


def test_an_order_on_a_partly_paid_bill_is_no_longer_the_guests_to_cancel(house: StaffedHouse) -> None:
    guest = ordered(house)
    bill = house.run(house.service.bill("anna", 1))["bill"]
    house.run(house.service.pay("anna", bill, 1, "cash"))
    reply = guest.cancel(guest.links[0].op_id)
    assert (reply.status, reply.arg) == (Status.REJECTED, RejectCode.BILL_PENDING)


def test_a_sealed_bill_is_settled_by_its_last_payment(house: StaffedHouse) -> None:
    guest = ordered(house)
    asked = guest.ask_bill()
    guest.seal(asked)
    house.run(house.service.pay("anna", asked.arg, 519, "cash"))
    assert house.run(house.service.pay("anna", asked.arg, 1, "cash"))["state"] == "settled"
    with refused(HouseCode.BILL_STATE):
        house.run(house.service.pay("anna", asked.arg, 1, "cash"))
    shown = views.bill(house.house.connection, SITE, asked.arg)
    assert shown is not None
    assert (shown["sealed"], len(shown["payments"])) == (True, 2)


def test_the_feed_has_every_change_once_in_the_order_of_its_lsn(house: StaffedHouse) -> None:
    guest = ordered(house)
    guest.call()
    house.run(house.service.set_line_state("cook", 1, 0, LineState.READY))
    entries = views.feed(house.house.connection, SITE, 0)
    assert [entry["kind"] for entry in entries] == ["table_added", "ordered", "waiter_called", "line_state"]
    lsns = [entry["lsn"] for entry in entries]
    assert lsns == sorted(set(lsns))
    assert views.feed(house.house.connection, SITE, lsns[1]) == entries[2:]
    assert json.dumps(entries)
    order = views.order(house.house.connection, SITE, 1)
    assert order is not None
    assert order["state"] == "ready"
