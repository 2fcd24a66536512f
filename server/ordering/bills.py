"""Rows of bills: made from the live lines of a seating, for guests' requests and for staff alike."""

from __future__ import annotations

from dataclasses import dataclass

from server.domain.money import BillLine, Rounding, bill_tax
from server.domain.states import BillState, LineState
from server.ordering.catalogue import Snapshot
from server.ordering.price_list import ROUND_PER_BILL
from server.storage.transaction import Transaction


@dataclass(frozen=True, slots=True)
class BillRow:
    """A stored bill; the seal's fields are None until a device asked for the bill."""

    bill: int
    seating: int
    state: BillState
    total_minor: int
    tax_minor: int
    rounding: Rounding
    paid_minor: int
    device: str | None
    first_op: bytes | None
    last_op: bytes | None
    answers: int | None
    chain: bytes | None


_COLUMNS = (
    "bill, seating, state, total_minor, tax_minor, rounding, paid_minor, device, first_op, last_op, answers, "
    "chain"
)


def _row(row: tuple[int, int, str, int, int, str, int, str | None, bytes, bytes, int, bytes]) -> BillRow:
    bill, seating, state, total, tax, rounding, paid, device, first, last, answers, chain = row
    return BillRow(
        bill, seating, BillState(state), total, tax, Rounding(rounding), paid, device, first, last, answers,
        chain,
    )  # fmt: skip


def find_bill(transaction: Transaction, site: str, bill: int) -> BillRow | None:
    """A bill by its number."""
    row = transaction.execute(
        f"SELECT {_COLUMNS} FROM bill WHERE site = ? AND bill = ?", (site, bill)
    ).fetchone()
    return None if row is None else _row(row)


def bill_of_seating(transaction: Transaction, site: str, seating: int) -> BillRow | None:
    """The bill of a seating, or None before the first request."""
    row = transaction.execute(
        f"SELECT {_COLUMNS} FROM bill WHERE site = ? AND seating = ?", (site, seating)
    ).fetchone()
    return None if row is None else _row(row)


def billed_lines(transaction: Transaction, site: str, seating: int) -> list[BillLine]:
    """The live lines of a seating in the order they came."""
    rows = transaction.execute(
        "SELECT l.order_number, l.line, l.total_minor, l.tax_minor, l.basis_points FROM orders o "
        "JOIN order_line l ON l.site = o.site AND l.order_number = o.order_number "
        "WHERE o.site = ? AND o.seating = ? AND l.state <> ? ORDER BY l.order_number, l.line",
        (site, seating, int(LineState.CANCELLED)),
    )
    return [BillLine(*row) for row in rows]


def rounding_of(snapshot: Snapshot) -> Rounding:
    """The rounding rule of the menu that counts now."""
    current = snapshot.current
    per_bill = current is not None and current.prices.rounding == ROUND_PER_BILL
    return Rounding.BILL if per_bill else Rounding.LINE


def draw_up(
    transaction: Transaction, site: str, seating: int, rounding: Rounding, now_s: int
) -> tuple[BillRow, list[BillLine]]:
    """Make the seating's bill, or bring an open one up to date; a split of another total is dropped.

    Raises: the driver's IntegrityError where less would be due than was paid.
    """
    lines = billed_lines(transaction, site, seating)
    total = sum(line.total_minor for line in lines)
    before = bill_of_seating(transaction, site, seating)
    rounding = before.rounding if before is not None else rounding
    tax = bill_tax(lines, rounding)
    if before is None:
        row = transaction.execute(
            "UPDATE site SET bill_number = bill_number + 1 WHERE site = ? RETURNING bill_number", (site,)
        ).fetchone()
        transaction.execute(
            "INSERT INTO bill (site, bill, seating, state, total_minor, tax_minor, rounding, opened_at) "
            "VALUES (?,?,?,?,?,?,?,?)",
            (site, row[0], seating, BillState.OPEN.value, total, tax, rounding.value, now_s),
        )
    elif (before.total_minor, before.tax_minor) != (total, tax):
        transaction.execute("DELETE FROM bill_part WHERE site = ? AND bill = ?", (site, before.bill))
        transaction.execute(
            "UPDATE bill SET total_minor = ?, tax_minor = ? WHERE site = ? AND bill = ?",
            (total, tax, site, before.bill),
        )
    drawn = bill_of_seating(transaction, site, seating)
    assert drawn is not None
    return drawn, lines


def free_bookings(transaction: Transaction, site: str, seating: int) -> None:
    """Give back the tables that a booking still keeps for a party that has gone."""
    transaction.execute(
        "UPDATE booking_table SET live = 0 WHERE site = ? AND live = 1 AND booking IN "
        "(SELECT booking FROM booking WHERE site = ? AND seating = ?)",
        (site, site, seating),
    )
