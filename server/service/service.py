"""Everything staff may do, as jobs: `job = service.open_seating("anna", table="4")`, then run it.

Run a job on the writer (``await writer.run(job)``) and, once that returns, hand ``job.notices`` to
`server.transport.notices.Notices.tell`. Each job returns a dict of JSON values with its ``lsn`` and raises
HouseError (stable ``code``, a sentence, a ``kind``), after which nothing has changed. ``author`` is who
asked; it is written into the event log with the reason, where there is one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from server.devices.seams import Clock
from server.domain.states import BookingStep, LineState
from server.ordering.catalogue import Catalogue
from server.service import bookings, kitchen, payments, seatings
from server.service.change import Change, Result, Work


class Service:
    """Makes jobs for one site."""

    def __init__(self, catalogue: Catalogue, clock: Clock) -> None:
        self._catalogue = catalogue
        self._clock = clock

    def _change(self, kind: str, author: str, action: Callable[[Work], Result], reason: str = "") -> Change:
        return Change(self._catalogue, kind, author, self._clock.unix_time(), action, reason)

    def add_table(self, author: str, table: str, seats: int = 0) -> Change:
        """Register a table. {table, seats}"""
        return self._change("table_added", author, lambda work: seatings.add_table(work, table, seats))

    def close_table(self, author: str, table: str, reason: str = "") -> Change:
        """Take a table out of service. {table, open}. UNKNOWN_TABLE, TABLE_TAKEN, TABLE_CLOSED"""
        return self._change("table_closed", author, lambda work: seatings.close_table(work, table), reason)

    def open_table(self, author: str, table: str) -> Change:
        """Put a table into service again. {table, open}. UNKNOWN_TABLE"""
        return self._change("table_opened", author, lambda work: seatings.open_table(work, table))

    def open_seating(self, author: str, table: str, covers: int = 0) -> Change:
        """Seat a party. {seating, table, covers}. UNKNOWN_TABLE, TABLE_TAKEN, TABLE_CLOSED, BAD_VALUE"""
        return self._change("seating_opened", author, lambda work: seatings.open_seating(work, table, covers))

    def transfer(self, author: str, seating: int, to_table: str) -> Change:
        """Move a party to a free table. {seating, from, to}. TABLE_TAKEN, SAME_SEATING, ALREADY_CLOSED"""
        return self._change("seating_moved", author, lambda work: seatings.transfer(work, seating, to_table))

    def merge(self, author: str, seating: int, into: int) -> Change:
        """Put a party on another's bill. {seating, into, table, total_minor}. SAME_SEATING, BILL_PENDING"""
        return self._change("seating_merged", author, lambda work: seatings.merge(work, seating, into))

    def close(self, author: str, seating: int) -> Change:
        """End a seating whose bill is paid. {seating, table, bill}. BILL_PENDING, ALREADY_CLOSED"""
        return self._change("seating_closed", author, lambda work: seatings.close(work, seating))

    def book(
        self, author: str, name: str, covers: int, tables: Sequence[str], start_at: int, end_at: int
    ) -> Change:
        """Keep tables from start_at to before end_at (unix seconds). BOOKING_OVERLAP, UNKNOWN_TABLE,
        BAD_VALUE
        """
        return self._change(
            "booked", author, lambda work: bookings.book(work, name, covers, tables, start_at, end_at)
        )

    def change_booking(self, author: str, booking: int, wish: bookings.Wish) -> Change:
        """Another time, party or other tables. The booking. BOOKING_STATE, BOOKING_OVERLAP, UNKNOWN_TABLE,
        BAD_VALUE
        """
        return self._change("booking_changed", author, lambda work: bookings.change(work, booking, wish))

    def seat_booking(self, author: str, booking: int, table: str | None = None) -> Change:
        """The party is here: {booking, state, seating, table, covers}. BOOKING_STATE, TABLE_TAKEN"""
        return self._change("booking_seated", author, lambda work: bookings.seat(work, booking, table))

    def cancel_booking(self, author: str, booking: int, reason: str = "") -> Change:
        """Free the tables. {booking, state, tables}. BOOKING_STATE"""
        return self._change(
            "booking_cancelled",
            author,
            lambda work: bookings.release(work, booking, BookingStep.CANCEL),
            reason,
        )

    def no_show(self, author: str, booking: int) -> Change:
        """Nobody came: free the tables. {booking, state, tables}. BOOKING_STATE"""
        return self._change(
            "booking_missed", author, lambda work: bookings.release(work, booking, BookingStep.MISS)
        )

    def set_line_state(self, author: str, order: int, line: int, state: LineState) -> Change:
        """Move a line along. {order, line, state, before, order_state}. LINE_STATE, UNKNOWN_ORDER"""
        return self._change(
            "line_state", author, lambda work: kitchen.set_line_state(work, order, line, state)
        )

    def set_ticket_state(self, author: str, order: int, station: str, state: LineState) -> Change:
        """Move all of an order's lines at a station. {order, station, lines, state, order_state}.
        LINE_STATE, UNKNOWN_ORDER
        """
        return self._change(
            "ticket_state", author, lambda work: kitchen.set_ticket_state(work, order, station, state)
        )

    def fire_course(self, author: str, seating: int, course: int) -> Change:
        """Have a party's course begun. {seating, table, course, orders}. NOTHING_TO_FIRE, ALREADY_CLOSED"""
        return self._change("course_fired", author, lambda work: kitchen.fire_course(work, seating, course))

    def set_station(self, author: str, item: int, station: str) -> Change:
        """Say where an item is made. {item, station}. UNKNOWN_ITEM"""
        return self._change("station_set", author, lambda work: kitchen.set_station(work, item, station))

    def set_course(self, author: str, order: int, line: int, course: int) -> Change:
        """Say with which course a line is served. {order, line, course}. UNKNOWN_ORDER, BAD_VALUE"""
        return self._change("line_course", author, lambda work: kitchen.set_course(work, order, line, course))

    def void_line(self, author: str, order: int, line: int, reason: str) -> Change:
        """Take a line off the bill. {order, line, item, quantity, seating, amount_minor, before,
        order_state}. REASON_NEEDED, LINE_STATE, ALREADY_CLOSED, OVERPAID
        """
        return self._change(
            "line_voided", author, lambda work: kitchen.void_line(work, order, line, reason), reason
        )

    def bill(self, author: str, seating: int) -> Change:
        """Draw up the bill. {bill, seating, state, total_minor, tax_minor, rounding, paid_minor, due_minor,
        lines}. NOTHING_TO_BILL, ALREADY_CLOSED
        """
        return self._change("bill_drawn_up", author, lambda work: payments.draw_up(work, seating))

    def split(
        self,
        author: str,
        bill: int,
        *,
        shares: Sequence[int] | None = None,
        groups: Sequence[Sequence[tuple[int, int]]] | None = None,
    ) -> Change:
        """Split by weights or by (order, line). The bill with its parts. BAD_SPLIT, BILL_STATE,
        BILL_PENDING
        """
        return self._change("bill_split", author, lambda work: payments.split(work, bill, shares, groups))

    def pay(
        self,
        author: str,
        bill: int,
        amount_minor: int,
        tender: str,
        reference: str = "",
        part: int | None = None,
    ) -> Change:
        """Record a payment (cash, or card with a reference). The bill with payment. OVERPAID, BILL_PENDING,
        BILL_STATE, BAD_VALUE
        """
        return self._change(
            "paid", author, lambda work: payments.pay(work, bill, amount_minor, tender, reference, part)
        )

    def refund(self, author: str, payment: int, amount_minor: int, reason: str) -> Change:
        """Give money back. The bill with refund. OVER_REFUNDED, REASON_NEEDED, UNKNOWN_PAYMENT"""
        return self._change(
            "refunded",
            author,
            lambda work: payments.refund(work, payment, amount_minor, reason),
            reason,
        )

    def set_stock(self, author: str, item: int, count: int | None) -> Change:
        """Count an item, or stop. {item, count}. UNKNOWN_ITEM, BAD_VALUE"""
        return self._change("stock_set", author, lambda work: kitchen.set_stock(work, item, count))

    def set_available(self, author: str, item: int, available: bool) -> Change:
        """Take an item off sale, or put it on. {item, available}. UNKNOWN_ITEM"""
        return self._change(
            "availability_set", author, lambda work: kitchen.set_available(work, item, available)
        )
