"""Answering an op: once, with everything it changes, and the same again for ever."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from database_kit import BROKEN_RULE, KINDS, url_for
from order_kit import (
    DEVICE,
    ESPRESSO,
    NOW_S,
    OTHER_DEVICE,
    OTHER_TABLE,
    SITE,
    STEAK,
    WATER,
    House,
    a_price_list,
    give_session,
    open_house,
    order_op,
)

from server.devices.records import DeviceState, IssuedBeacon
from server.ordering.apply import SessionGone
from server.storage import admin
from server.storage.ledger import Ledger
from server.storage.registry import StoreBeacon
from server.wire.ops import Line, Op, RejectCode, Status

COFFEE = Line(ESPRESSO, 2)


@pytest.fixture(params=KINDS)
def house(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[House]:
    url = url_for(request.param, open_house)
    made = open_house(tmp_path, url)
    yield made
    made.close()


def test_a_good_order_is_committed_with_number_total_and_lsn(house: House, tmp_path: Path) -> None:
    reply = house.apply(order_op(COFFEE, total=520)).reply
    assert (reply.status, reply.order_number, reply.total_minor, reply.lsn) == (Status.COMMITTED, 1, 520, 1)
    (order,) = Ledger(tmp_path).orders(SITE)
    assert (order.device, order.table, order.total_minor, order.lsn) == (DEVICE, "4", 520, 1)
    assert [(line.item, line.quantity, line.total_minor) for line in order.lines] == [(ESPRESSO, 2, 520)]


def test_the_same_op_again_gets_the_same_answer_and_no_second_effect(house: House) -> None:
    first = house.apply(order_op(COFFEE, total=520))
    again = house.apply(order_op(COFFEE, total=520))
    assert again.reply == first.reply
    assert (first.repeated, again.repeated) == (False, True)
    assert house.one("SELECT COUNT(*) FROM orders") == 1


def test_a_refusal_stays_a_refusal_after_restock(house: House) -> None:
    admin.set_stock(house.database, SITE, ESPRESSO, 1)
    refused = house.apply(order_op(COFFEE, total=520)).reply
    assert (refused.status, refused.arg) == (Status.SOLD_OUT, ESPRESSO)
    admin.set_stock(house.database, SITE, ESPRESSO, 100)
    assert house.apply(order_op(COFFEE, total=520)).reply == refused
    assert house.apply(order_op(COFFEE, total=520, number=2)).reply.status == Status.COMMITTED


def test_the_same_op_id_with_another_body_is_a_mismatch_and_changes_nothing(house: House) -> None:
    first = house.apply(order_op(COFFEE, total=520)).reply
    other = house.apply(order_op(Line(WATER, 1), total=300)).reply
    assert (other.status, other.arg, other.lsn) == (Status.REJECTED, RejectCode.BODY_MISMATCH, 0)
    assert house.apply(order_op(COFFEE, total=520)).reply == first
    assert house.one("SELECT COUNT(*) FROM answer") == 1


def test_two_devices_may_use_the_same_op_id(house: House) -> None:
    house.apply(order_op(COFFEE, total=520))
    other = house.apply(order_op(COFFEE, total=520, table=OTHER_TABLE), device=OTHER_DEVICE).reply
    assert (other.status, other.order_number) == (Status.COMMITTED, 2)


def test_a_wrong_total_is_repriced_never_silently_changed(house: House) -> None:
    reply = house.apply(order_op(COFFEE, total=519)).reply
    assert (reply.status, reply.arg, reply.total_minor, reply.order_number) == (Status.REPRICE, 1, 520, 0)


def test_an_older_menu_version_counts_while_its_total_is_still_right(house: House) -> None:
    house.publish(a_price_list(version=2, espresso_minor=280))
    assert house.apply(order_op(Line(WATER, 1), total=300)).reply.status == Status.COMMITTED
    reply = house.apply(order_op(COFFEE, total=520, number=2)).reply
    assert (reply.status, reply.arg, reply.total_minor) == (Status.REPRICE, 2, 560)


@pytest.mark.parametrize(
    ("op", "code"),
    [
        (order_op(COFFEE, total=520, menu_version=7), RejectCode.UNKNOWN_MENU),
        (order_op(COFFEE, total=520, table=OTHER_TABLE), RejectCode.WRONG_TABLE),
        (Op(7, bytes(11) + b"\x01", "", (), 0, 0, RejectCode.UNSUPPORTED_TYPE), RejectCode.UNSUPPORTED_TYPE),
        (order_op(Line(99, 1), total=0), RejectCode.UNKNOWN_ITEM),
        (order_op(Line(STEAK, 1), total=2890), RejectCode.MODIFIER_RULE),
        (Op(1, bytes(11) + b"\x01", "", (), 0, 0, RejectCode.BAD_QUANTITY), RejectCode.BAD_QUANTITY),
    ],
    ids=["unknown_menu", "wrong_table", "unsupported_type", "unknown_item", "modifier_rule", "bad_quantity"],
)
def test_an_op_that_can_never_be_accepted_is_rejected_for_ever(
    house: House, op: Op, code: RejectCode
) -> None:
    reply = house.apply(op).reply
    assert (reply.status, reply.arg, reply.order_number, reply.lsn) == (Status.REJECTED, code, 0, 1)
    assert house.apply(op).reply == reply
    assert house.one("SELECT COUNT(*) FROM orders") == 0


def test_stock_is_taken_for_all_lines_or_for_none(house: House, tmp_path: Path) -> None:
    admin.set_stock(house.database, SITE, ESPRESSO, 5)
    admin.set_stock(house.database, SITE, WATER, 1)
    refused = house.apply(order_op(COFFEE, Line(WATER, 2), total=1120)).reply
    assert (refused.status, refused.arg) == (Status.SOLD_OUT, WATER)
    assert Ledger(tmp_path).stock(SITE) == {ESPRESSO: 5, WATER: 1}
    assert house.apply(order_op(COFFEE, Line(WATER, 1), total=820, number=2)).reply.status == Status.COMMITTED
    assert Ledger(tmp_path).stock(SITE) == {ESPRESSO: 3, WATER: 0}


def test_two_lines_of_one_item_share_its_stock(house: House) -> None:
    admin.set_stock(house.database, SITE, ESPRESSO, 3)
    assert house.apply(order_op(COFFEE, COFFEE, total=1040)).reply.status == Status.SOLD_OUT


def test_the_database_itself_refuses_negative_stock(house: House) -> None:
    admin.set_stock(house.database, SITE, ESPRESSO, 1)
    with pytest.raises(BROKEN_RULE, match="never_oversold"):
        house.connection.execute("UPDATE stock SET count = count - 2")


def test_an_op_in_a_replaced_session_stores_nothing(house: House) -> None:
    with pytest.raises(SessionGone):
        house.apply(order_op(COFFEE, total=520), sid=b"gone")
    assert house.one("SELECT COUNT(*) FROM answer") == 0


def test_a_suspended_device_loses_session_and_voice_in_one_transaction(house: House) -> None:
    admin.change_device(house.database, SITE, DEVICE, DeviceState.SUSPENDED)
    assert house.one("SELECT COUNT(*) FROM session WHERE device = 't-0001'") == 0
    give_session(house, DEVICE)  # even if one were left behind
    with pytest.raises(SessionGone):
        house.apply(order_op(COFFEE, total=520))


def test_the_chain_links_every_final_answer_of_a_tables_seating(house: House, tmp_path: Path) -> None:
    ops = [
        order_op(COFFEE, total=520),
        order_op(COFFEE, total=1, number=2),
        order_op(Line(99, 1), total=0, number=3),
    ]
    replies = [house.apply(op).reply for op in ops]
    house.apply(order_op(COFFEE, total=520, table=OTHER_TABLE), device=OTHER_DEVICE)
    chain = bytes(32)
    for op, reply in zip(ops, replies, strict=True):
        link = (
            sha256(repr(op).encode()).digest() + bytes((reply.status,)) + reply.total_minor.to_bytes(4, "big")
        )
        chain = sha256(chain + link).digest()
        assert reply.chain == chain
    assert Ledger(tmp_path).seatings(SITE)[0][:3] == ("4", 520, chain)


def test_lsns_and_order_numbers_have_no_gaps(house: House, tmp_path: Path) -> None:
    for number in range(1, 7):
        house.apply(order_op(COFFEE, total=520 if number % 2 else 1, number=number))
    answers = Ledger(tmp_path).answers(SITE)
    assert [answer.lsn for answer in answers] == [1, 2, 3, 4, 5, 6]
    assert [answer.order_number for answer in answers] == [1, 0, 2, 0, 3, 0]


def test_a_beacons_counter_is_stored_once_and_the_slower_server_learns_who_has_it(house: House) -> None:
    first = IssuedBeacon(1, 7, NOW_S, b"first", b"kid")
    assert StoreBeacon(SITE, first)(house.connection) is None
    second = IssuedBeacon(1, 7, NOW_S, b"second", b"kid")
    assert StoreBeacon(SITE, second)(house.connection) == [first]
