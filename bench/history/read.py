"""What a site has stored, read into a history by plain SQL that both databases speak."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from bench.history.events import (
    Answer,
    History,
    Reply,
    StoredBill,
    StoredBooking,
    StoredLine,
    StoredOrder,
    StoredPayment,
    StoredSeating,
)

Read = Callable[[str], Iterable[Any]]  # one statement -> its rows


def read_books(read: Read, history: History) -> None:
    """Fill in everything that is stored; ``read`` sees one site only."""
    history.orders = _orders(read)
    history.answers = [
        Answer(
            device,
            bytes(op_id),
            bytes(op_hash),
            Reply(status, arg, number, total, lsn, bytes(chain)),
            seating,
        )
        for device, op_id, op_hash, status, arg, number, total, lsn, chain, seating in read(
            "SELECT device, op_id, op_hash, status, arg, order_number, total_minor, lsn, chain, seating "
            "FROM answer ORDER BY lsn"
        )
    ]
    history.staff_lsns = [
        row[0] for row in read("SELECT lsn FROM event WHERE author NOT LIKE 'device:%' ORDER BY lsn")
    ]
    history.stock = dict(tuple(row) for row in read("SELECT item, count FROM stock"))
    history.seatings = {
        number: StoredSeating(table, total, bytes(chain), closed_at is None)
        for number, table, total, chain, closed_at in read(
            "SELECT id, table_id, total_minor, chain, closed_at FROM seating"
        )
    }
    history.bills = {
        row[0]: StoredBill(*row[1:])
        for row in read("SELECT bill, seating, state, total_minor, tax_minor, paid_minor FROM bill")
    }
    history.payments = {
        row[0]: StoredPayment(*row[1:])
        for row in read("SELECT payment, bill, amount_minor, refunded_minor FROM payment")
    }
    history.fired = {tuple(row) for row in read("SELECT order_number, course FROM fired_course")}
    history.shut = {row[0] for row in read("SELECT table_id FROM closed_table")}
    live: dict[int, set[str]] = {}
    for booking, table in read("SELECT booking, table_id FROM booking_table WHERE live = 1"):
        live.setdefault(booking, set()).add(table)
    history.bookings = {
        booking: StoredBooking(state, start_at, end_at, frozenset(live.get(booking, ())))
        for booking, state, start_at, end_at in read("SELECT booking, state, start_at, end_at FROM booking")
    }


def _orders(read: Read) -> list[StoredOrder]:
    lines: dict[int, list[StoredLine]] = {}
    for number, line, item, quantity, modifiers, unit, total, tax, state, course in read(
        "SELECT order_number, line, item, quantity, modifiers, unit_minor, total_minor, tax_minor, state, "
        "course "
        "FROM order_line ORDER BY order_number, line"
    ):
        chosen = tuple(int(modifier) for modifier in modifiers.split(",") if modifier)
        lines.setdefault(number, []).append(
            StoredLine(item, quantity, chosen, unit, total, tax, line, state, course)
        )
    return [
        StoredOrder(number, device, bytes(op_id), seating, total, tuple(lines.get(number, ())))
        for number, device, op_id, seating, total in read(
            "SELECT order_number, device, op_id, seating, total_minor FROM orders ORDER BY order_number"
        )
    ]
