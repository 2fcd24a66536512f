"""What a terminal may do besides ordering: change, cancel, call, ask for the bill and seal it."""

from __future__ import annotations

import pytest
from house_kit import DEVICE, OTHER_DEVICE, SITE, Line, StaffedHouse, Status
from order_kit import ESPRESSO, WATER

from server.domain.states import LineState
from server.storage import admin
from server.wire.ops import RejectCode, Reply

COFFEE = Line(ESPRESSO, 2)


def rejected(reply: Reply, code: RejectCode) -> bool:
    return (reply.status, reply.arg, reply.order_number) == (Status.REJECTED, code, 0)


def stock(house: StaffedHouse) -> dict[int, int]:
    return dict(house.rows("SELECT item, count FROM stock"))


def test_a_change_replaces_the_lines_and_moves_only_the_difference_of_stock(house: StaffedHouse) -> None:
    admin.set_stock(house.house.database, SITE, ESPRESSO, 3)
    guest = house.guest()
    ordered = guest.order(COFFEE, total=520)
    changed = guest.change(ordered.op_id, Line(ESPRESSO, 3), Line(WATER, 1), total=1080)
    assert (changed.status, changed.order_number, changed.total_minor) == (Status.COMMITTED, 1, 1080)
    assert stock(house) == {ESPRESSO: 0}
    assert house.rows("SELECT total_minor FROM orders") == [(1080,)]
    assert house.rows("SELECT total_minor FROM seating") == [(1080,)]
    assert house.rows("SELECT item, quantity FROM order_line WHERE state = 0 ORDER BY line") == [
        (1, 3),
        (3, 1),
    ]


def test_a_change_that_would_oversell_changes_nothing(house: StaffedHouse) -> None:
    admin.set_stock(house.house.database, SITE, ESPRESSO, 2)
    guest = house.guest()
    ordered = guest.order(COFFEE, total=520)
    reply = guest.change(ordered.op_id, Line(ESPRESSO, 3), total=780)
    assert (reply.status, reply.arg) == (Status.SOLD_OUT, ESPRESSO)
    assert stock(house) == {ESPRESSO: 0}
    assert house.rows("SELECT total_minor FROM orders") == [(520,)]


def test_a_change_with_a_wrong_total_is_repriced(house: StaffedHouse) -> None:
    guest = house.guest()
    ordered = guest.order(COFFEE, total=520)
    reply = guest.change(ordered.op_id, Line(WATER, 1), total=1)
    assert (reply.status, reply.total_minor) == (Status.REPRICE, 300)


def test_a_cancelled_order_costs_nothing_and_gives_its_stock_back(house: StaffedHouse) -> None:
    admin.set_stock(house.house.database, SITE, ESPRESSO, 5)
    guest = house.guest()
    ordered = guest.order(COFFEE, total=520)
    reply = guest.cancel(ordered.op_id)
    assert (reply.status, reply.order_number, reply.total_minor) == (Status.COMMITTED, 1, 0)
    assert stock(house) == {ESPRESSO: 5}
    assert house.rows("SELECT total_minor, tax_minor FROM orders") == [(0, 0)]
    assert rejected(guest.cancel(ordered.op_id), RejectCode.ALREADY_CLOSED)


def test_an_order_the_kitchen_has_begun_can_no_longer_be_changed_or_cancelled(house: StaffedHouse) -> None:
    guest = house.guest()
    ordered = guest.order(COFFEE, Line(WATER, 1), total=820)
    house.run(house.service.set_line_state("cook", 1, 1, LineState.PREPARING))
    assert rejected(guest.cancel(ordered.op_id), RejectCode.TOO_LATE)
    assert rejected(guest.change(ordered.op_id, COFFEE, total=520), RejectCode.TOO_LATE)


def test_only_ones_own_orders_can_be_changed(house: StaffedHouse) -> None:
    ordered = house.guest().order(COFFEE, total=520)
    assert rejected(house.guest(OTHER_DEVICE).cancel(ordered.op_id), RejectCode.UNKNOWN_ORDER)


def test_a_repeated_cancel_gets_its_answer_again_and_gives_nothing_back_twice(house: StaffedHouse) -> None:
    admin.set_stock(house.house.database, SITE, ESPRESSO, 5)
    guest = house.guest()
    ordered = guest.order(COFFEE, total=520)
    first = guest.cancel(ordered.op_id)
    again = house.guest()
    again.number, again.links = 1, guest.links[:1]
    assert again.cancel(ordered.op_id) == first
    assert again.last is not None
    assert again.last.repeated
    assert stock(house) == {ESPRESSO: 5}


def test_a_call_for_the_waiter_is_an_event_that_staff_see(house: StaffedHouse) -> None:
    reply = house.guest().call(2)
    assert (reply.status, reply.order_number) == (Status.COMMITTED, 0)
    events = house.rows(f"SELECT kind, author FROM event WHERE lsn = {reply.lsn}")
    assert events == [("waiter_called", f"device:{DEVICE}")]


def test_a_bill_is_sealed_by_the_device_and_ends_the_seating(house: StaffedHouse) -> None:
    guest = house.guest()
    guest.order(COFFEE, total=520)
    guest.order(COFFEE, total=1)
    guest.call()
    asked = guest.ask_bill()
    assert (asked.status, asked.arg, asked.total_minor, asked.order_number) == (Status.COMMITTED, 1, 520, 0)
    closed = guest.seal(asked)
    assert (closed.status, closed.total_minor) == (Status.COMMITTED, 520)
    assert house.rows("SELECT state, answers, seal IS NOT NULL FROM bill") == [("sealed", 4, 1)]
    assert house.rows("SELECT COUNT(*) FROM seating WHERE closed_at IS NULL") == [(0,)]
    next_order = guest.order(COFFEE, total=520)
    assert next_order.status == Status.COMMITTED
    assert len(guest.links) == 1, "the next seating begins a chain of its own"
    assert rejected(guest.seal(asked), RejectCode.ALREADY_CLOSED)


@pytest.mark.parametrize("field", ["bill", "first", "last", "count", "chain"])
def test_a_seal_over_anything_else_is_refused(house: StaffedHouse, field: str) -> None:
    guest = house.guest()
    guest.order(COFFEE, total=520)
    asked = guest.ask_bill()
    wrong = {"bill": 9, "first": bytes(12), "last": bytes(12), "count": 7, "chain": bytes(32)}[field]
    assert rejected(guest.seal(asked, **{field: wrong}), RejectCode.BAD_SEAL)
    assert house.rows("SELECT state FROM bill") == [("open",)]


def test_a_seal_over_an_older_total_waits_for_a_new_bill(house: StaffedHouse) -> None:
    guest = house.guest()
    guest.order(COFFEE, total=520)
    asked = guest.ask_bill()
    guest.order(Line(WATER, 1), total=300)
    assert rejected(guest.seal(asked, answers=2), RejectCode.BILL_PENDING)


def test_a_bill_asked_for_again_has_the_same_number_and_the_new_total(house: StaffedHouse) -> None:
    guest = house.guest()
    guest.order(COFFEE, total=520)
    guest.ask_bill()
    guest.order(Line(WATER, 1), total=300)
    asked = guest.ask_bill(shares=3)
    assert (asked.arg, asked.total_minor) == (1, 820)
    assert guest.seal(asked).status == Status.COMMITTED


def test_there_is_no_bill_where_nothing_was_ordered(house: StaffedHouse) -> None:
    assert rejected(house.guest().ask_bill(), RejectCode.NO_OPEN_BILL)


def test_a_terminal_cannot_close_the_bill_another_asked_for(house: StaffedHouse) -> None:
    guest = house.guest()
    guest.order(COFFEE, total=520)
    asked = guest.ask_bill()
    other = house.guest(OTHER_DEVICE)
    other.order(COFFEE, total=520)
    assert rejected(other.seal(asked), RejectCode.NO_OPEN_BILL)
