"""The stored books at the end of a run against those of the plain model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bench.history.events import History, Violation
from bench.history.house import House


def compare(house: House, history: History) -> Iterator[Violation]:
    """Every difference; codes name the book."""
    yield from _stock(house, history)
    yield from _orders(house, history)
    for number, seating in sorted(history.seatings.items()):
        party = house.parties.get(number)
        total = party.total_minor if party is not None else 0
        if seating.total_minor != total:
            yield Violation("BILL", f"seating {number}: {seating.total_minor} stored, orders {total}")
    parties = {n: (p.table, p.open) for n, p in house.parties.items()}
    seated = {n: (s.table, s.open) for n, s in history.seatings.items() if n in parties or s.total_minor}
    yield from _differences("SEATING", seated, parties)
    bills = {
        n: (b.seating, b.state, b.total_minor, b.tax_minor, b.paid_minor) for n, b in house.bills.items()
    }
    stored = {
        n: (b.seating, b.state, b.total_minor, b.tax_minor, b.paid_minor) for n, b in history.bills.items()
    }
    yield from _differences("BILL", stored, bills)
    payments = {n: (p.bill, p.amount_minor, p.refunded_minor) for n, p in house.payments.items()}
    kept = {n: (p.bill, p.amount_minor, p.refunded_minor) for n, p in history.payments.items()}
    yield from _differences("PAYMENT", kept, payments)
    bookings = {
        n: (b.state, b.start_at, b.end_at, frozenset(b.tables if b.live else ()))
        for n, b in house.bookings.items()
    }
    held = {n: (b.state, b.start_at, b.end_at, b.live) for n, b in history.bookings.items()}
    yield from _differences("BOOKING", held, bookings)
    if history.fired != house.fired:
        yield Violation("COURSE", f"{sorted(history.fired ^ house.fired)} fired in one book only")
    if history.shut != house.shut:
        yield Violation("CLOSED_TABLE", f"{sorted(history.shut ^ house.shut)} closed in one book only")


def _differences(code: str, stored: Mapping[int, Any], due: Mapping[int, Any]) -> Iterator[Violation]:
    for number in sorted({*stored, *due}):
        found, wanted = stored.get(number), due.get(number)
        if found != wanted:
            yield Violation(code, f"{code.lower()} {number}: {found} stored, the model has {wanted}")


def _stock(house: House, history: History) -> Iterator[Violation]:
    for item in sorted(house.counted):
        stored = history.stock.get(item)
        if stored != house.level[item]:
            yield Violation("STOCK", f"item {item}: {stored} stored, the model has {house.level[item]}")


def _orders(house: House, history: History) -> Iterator[Violation]:
    stored = {order.number: order for order in history.orders}
    if len(stored) != len(house.orders) or len(stored) != len(history.orders):
        yield Violation("ORDERS", f"{len(stored)} orders stored, {len(house.orders)} committed")
    for number, order in house.orders.items():
        found = stored.get(number)
        if found is None:
            continue  # told when it was replayed
        if found.total_minor != order.total_minor:
            yield Violation("MONEY", f"order {number}: {found.total_minor} stored, lines {order.total_minor}")
        if found.seating != order.seating:
            yield Violation("OTHER_SEATING", f"order {number} is stored for seating {found.seating}")
        states = {line.line: line.state for line in found.lines}
        due = {number: line.state for number, line in order.lines.items()}
        if states != due:
            yield Violation("OTHER_LINES", f"order {number}: line states {states}, the model has {due}")
        courses = {line.line: line.course for line in found.lines}
        wanted = {number: line.course for number, line in order.lines.items()}
        if courses != wanted:
            yield Violation("COURSE", f"order {number}: courses {courses}, the model has {wanted}")
