"""The history checker: silent on every honest history, and loud on every way to spoil one."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.history.check import CHAIN_START, check
from bench.history.events import (
    Acted,
    Answer,
    History,
    Line,
    MenuPrices,
    Replied,
    Reply,
    Restocked,
    StoredBill,
    StoredBooking,
    StoredLine,
    StoredOrder,
    StoredPayment,
    StoredSeating,
    Submitted,
)
from bench.history.model import COMMITTED, SOLD_OUT, expected_tax

MENU = MenuPrices({1: 260, 2: 333, 3: 1999}, {11: 50, 12: -30}, {1: 700, 2: 1900, 3: 1900})
TABLES = ("1", "2")
SCARCE = 2

orders = st.lists(
    st.tuples(
        st.sampled_from(TABLES),
        st.lists(
            st.tuples(
                st.sampled_from(sorted(MENU.items)), st.integers(1, 4),
                st.lists(st.sampled_from(sorted(MENU.modifiers)), max_size=2).map(tuple),
            ),
            min_size=1, max_size=3,
        ).map(tuple),
    ),
    min_size=3, max_size=25,
)  # fmt: skip


def honest(wishes: list[tuple[str, tuple[Line, ...]]]) -> History:
    """What a faultless site would have done with these wishes, one after the other."""
    submitted, replied, answers, stored_orders = [], [], [], []
    stock, bills = 9, Counter(dict.fromkeys(TABLES, 0))
    heads = dict.fromkeys(TABLES, CHAIN_START)
    seated: list[str] = []
    number = 0
    for lsn, (table, lines) in enumerate(wishes, 1):
        op_id, at_s = lsn.to_bytes(12, "big"), float(lsn)
        total = MENU.total_minor(lines)
        assert total is not None
        if table not in seated:
            seated.append(table)
        submitted.append(Submitted(at_s, f"t-{table}", op_id, table, 1, total, lines))
        wanted = sum(line[1] for line in lines if line[0] == SCARCE)
        status, arg = (COMMITTED, 0) if wanted <= stock else (SOLD_OUT, SCARCE)
        told = total if status == COMMITTED else 0
        if status == COMMITTED:
            number, stock = number + 1, stock - wanted
            bills[table] += total
        op_hash = sha256(op_id).digest()
        heads[table] = sha256(heads[table] + op_hash + bytes((status,)) + told.to_bytes(4, "big")).digest()
        reply = Reply(status, arg, number if status == COMMITTED else 0, told, lsn, heads[table])
        stored = tuple(_stored(*line) for line in enumerate(lines)) if status == COMMITTED else ()
        taxed = tuple(
            replace(line, tax_minor=tax) for line, tax in zip(stored, expected_tax(MENU, stored), strict=True)
        )
        seating = 1 + seated.index(table)
        answers.append(Answer(f"t-{table}", op_id, op_hash, reply, seating))
        if status == COMMITTED:
            stored_orders.append(StoredOrder(number, f"t-{table}", op_id, seating, total, taxed))
        replied.append(Replied(at_s + 0.5, f"t-{table}", op_id, reply))
    return History(
        submitted=submitted,
        replied=replied,
        answers=answers,
        orders=stored_orders,
        restocked=[Restocked(0, SCARCE, 9)],
        stock={SCARCE: stock},
        seatings={at: StoredSeating(table, bills[table], heads[table]) for at, table in enumerate(seated, 1)},
        menus={1: MENU},
    )


def _stored(number: int, line: Line) -> StoredLine:
    item, quantity, modifiers = line
    unit = MENU.items[item] + sum(MENU.modifiers[modifier] for modifier in modifiers)
    return StoredLine(item, quantity, modifiers, unit, unit * quantity, 0, number)


@given(orders)
@settings(max_examples=150, deadline=None)
def test_an_honest_history_has_no_violation(wishes: list[tuple[str, tuple[Line, ...]]]) -> None:
    assert check(honest(wishes)) == []


def _lose(history: History, at: int) -> str:
    history.answers = [a for a in history.answers if a.reply.lsn != at]
    return "LOST_CONFIRMED"


def _double(history: History, at: int) -> str:
    copy = history.answers[at - 1]
    again = replace(copy, reply=replace(copy.reply, lsn=len(history.answers) + 1))
    history.answers = [*history.answers, again]
    return "DOUBLED"


def _change_answer(history: History, at: int) -> str:
    seen = history.replied[at - 1]
    history.replied = [*history.replied, replace(seen, reply=replace(seen.reply, arg=seen.reply.arg + 1))]
    return "ANSWER_CHANGED"


def _lose_a_cent(history: History, at: int) -> str:
    number = history.answers[at - 1].seating
    seating = history.seatings[number]
    spoiled = replace(seating, total_minor=seating.total_minor + 1)
    history.seatings = {**history.seatings, number: spoiled}
    return "BILL"


def _lose_stock(history: History, at: int) -> str:
    history.stock = {SCARCE: history.stock[SCARCE] - 1}
    return "STOCK"


def _oversell(history: History, at: int) -> str:
    history.restocked = [Restocked(0, SCARCE, -1)]
    history.stock = {}
    return "STOCK"


def _forget_queued(history: History, at: int) -> str:
    extra = replace(history.submitted[at - 1], op_id=b"never seen..", at_s=999.0)
    history.submitted = [*history.submitted, extra]
    return "LOST_QUEUED"


def _invent(history: History, at: int) -> str:
    gone = history.answers[at - 1].op_id
    history.submitted = [op for op in history.submitted if op.op_id != gone]
    return "NOBODY_ORDERED"


def _break_chain(history: History, at: int) -> str:
    answers = list(history.answers)
    answers[at - 1] = replace(answers[at - 1], op_hash=bytes(32))
    history.answers = answers
    return "CHAIN"


def _turn_back_time(history: History, at: int) -> str:
    early = history.replied[-1]
    history.replied = [replace(early, at_s=0.1), *history.replied]
    return "REAL_TIME"


@pytest.mark.parametrize(
    "spoil",
    [
        _lose, _double, _change_answer, _lose_a_cent, _lose_stock, _oversell, _forget_queued, _invent,
        _break_chain, _turn_back_time,
    ],
)  # fmt: skip
@given(wishes=orders, data=st.data())
@settings(max_examples=25, deadline=None)
def test_a_spoiled_history_is_noticed(spoil, wishes, data) -> None:  # type: ignore[no-untyped-def]
    history = honest(wishes)
    expected = spoil(history, data.draw(st.integers(1, len(wishes))))
    assert expected in {violation.code for violation in check(history)}


@given(wishes=orders, data=st.data())
@settings(max_examples=40, deadline=None)
def test_tax_off_by_one_is_noticed(wishes, data) -> None:  # type: ignore[no-untyped-def]
    history = honest(wishes)
    if not history.orders:
        return
    orders = list(history.orders)
    at = data.draw(st.integers(0, len(orders) - 1))
    first, *rest = orders[at].lines
    orders[at] = replace(orders[at], lines=(replace(first, tax_minor=first.tax_minor + 1), *rest))
    history.orders = orders
    assert {violation.code for violation in check(history)} == {"TAX"}


SLOT = {"tables": ["1"], "start_at": 3600, "end_at": 7200}


def staffed() -> History:
    """Two orders at two tables, a bill that is paid, a booking and one that was refused."""
    history = honest([("1", ((1, 1, ()),)), ("2", ((1, 2, ()),))])
    acts = [
        ("bill", {"seating": 1}, {"bill": 1, "total_minor": 260, "tax_minor": 17, "paid_minor": 0}),
        ("pay", {"bill": 1, "amount_minor": 260}, {"paid_minor": 260, "due_minor": 0, "state": "open"}),
        ("book", SLOT, {"booking": 5}),
        ("merge", {"seating": 2, "into": 1}, {"total_minor": 780}),
    ]
    history.acted = [
        Acted(10.0 + lsn, 10.5 + lsn, kind, args, lsn, result)
        for lsn, (kind, args, result) in enumerate(acts[:3], 3)
    ]
    history.acted += [
        Acted(20.0, 20.5, "book", {**SLOT, "start_at": 7140, "end_at": 9000}, code="taken", after_lsn=5),
        Acted(21.0, 21.5, "merge", acts[3][1], code="bill_pending", after_lsn=5),
    ]
    history.staff_lsns = [3, 4, 5]
    history.bills = {1: StoredBill(1, "open", 260, 17, 260)}
    history.payments = {4: StoredPayment(1, 260, 0)}
    history.bookings = {5: StoredBooking("booked", 3600, 7200, frozenset({"1"}))}
    return history


def test_an_honest_evening_with_staff_has_no_violation() -> None:
    assert check(staffed()) == []


def _again(history: History, kind: str, **other: object) -> None:
    done = next(act for act in history.acted if act.kind == kind)
    history.acted = [*history.acted, replace(done, lsn=6, args={**done.args, **other}, at_s=30, done_s=31)]
    history.staff_lsns = [*history.staff_lsns, 6]


def _overlap_by_a_minute(history: History) -> str:
    _again(history, "book", start_at=7140, end_at=9000)
    return "DOUBLE_BOOKED"


def _pay_again(history: History) -> str:
    _again(history, "pay")
    return "OVERPAID"


def _lose_a_payment(history: History) -> str:
    history.payments = {}
    return "PAYMENT"


def _wrong_bill_tax(history: History) -> str:
    bill = history.acted[0]
    history.acted = [replace(bill, result={**bill.result, "tax_minor": 18}), *history.acted[1:]]
    return "STAFF_MONEY"


def _lose_staffs_change(history: History) -> str:
    history.staff_lsns = [3, 4]
    return "LOST_CONFIRMED"


def _double_staffs_change(history: History) -> str:
    history.staff_lsns = [3, 4, 5, 6]
    return "DOUBLED"


def _refuse_a_free_table(history: History) -> str:
    free = Acted(22.0, 22.5, "book", {**SLOT, "tables": ["2"]}, code="taken", after_lsn=5)
    history.acted = [*history.acted, free]
    return "FALSE_REFUSAL"


def _keep_a_table_too_long(history: History) -> str:
    history.bookings = {5: StoredBooking("cancelled", 3600, 7200, frozenset({"1"}))}
    return "BOOKING"


@pytest.mark.parametrize(
    "spoil",
    [
        _overlap_by_a_minute, _pay_again, _lose_a_payment, _wrong_bill_tax, _lose_staffs_change,
        _double_staffs_change, _refuse_a_free_table, _keep_a_table_too_long,
    ],
)  # fmt: skip
def test_what_staff_did_wrong_is_noticed(spoil) -> None:  # type: ignore[no-untyped-def]
    history = staffed()
    expected = spoil(history)
    assert expected in {violation.code for violation in check(history)}
