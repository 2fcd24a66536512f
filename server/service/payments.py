"""Bills as rows: drawn up, split, paid, refunded. Amounts are integer minor units."""

from __future__ import annotations

import json
from collections.abc import Sequence

from server.domain.errors import HouseCode, HouseError
from server.domain.money import Part, split_by_item, split_by_share
from server.domain.states import BillState
from server.ordering import bills
from server.service import seatings
from server.service.change import Result, Work

TENDERS = ("cash", "card")
REFERENCE_MAX = 80


def find(work: Work, bill: int) -> bills.BillRow:
    """Raises: HouseError(UNKNOWN_BILL)."""
    found = bills.find_bill(work.transaction, work.site, bill)
    if found is None:
        raise HouseError(HouseCode.UNKNOWN_BILL, f"there is no bill {bill}")
    return found


def shown(row: bills.BillRow) -> Result:
    """A bill as a result."""
    return {
        "bill": row.bill, "seating": row.seating, "state": row.state.value, "total_minor": row.total_minor,
        "tax_minor": row.tax_minor, "rounding": row.rounding.value, "paid_minor": row.paid_minor,
        "due_minor": row.total_minor - row.paid_minor,
    }  # fmt: skip


def draw_up(work: Work, seating: int) -> Result:
    """Make the bill of an open seating, or bring it up to date."""
    seatings.open_seating_row(work, seating)
    ordered = work.one("SELECT 1 FROM orders WHERE site = ? AND seating = ? LIMIT 1", work.site, seating)
    if ordered is None:
        raise HouseError(HouseCode.NOTHING_TO_BILL, f"nothing was ordered in seating {seating}")
    row, lines = bills.draw_up(
        work.transaction, work.site, seating, bills.rounding_of(work.snapshot), work.now_s
    )
    return {**shown(row), "lines": [[line.order_number, line.line, line.total_minor] for line in lines]}


def _current(work: Work, bill: int) -> bills.BillRow:
    """A bill that can be split and paid: of the amount its seating has. Raises: HouseError."""
    row = find(work, bill)
    if row.state is BillState.SETTLED:
        raise HouseError(HouseCode.BILL_STATE, f"bill {bill} is settled")
    if (
        row.state is BillState.OPEN
        and seatings.find_seating(work, row.seating).total_minor != row.total_minor
    ):
        raise HouseError(HouseCode.BILL_PENDING, f"more was ordered since bill {bill}; draw it up anew")
    return row


def split(
    work: Work,
    bill: int,
    shares: Sequence[int] | None,
    groups: Sequence[Sequence[tuple[int, int]]] | None,
) -> Result:
    """Split a bill nobody has paid from, by weights or by (order, line); an earlier split is replaced."""
    row = _current(work, bill)
    if row.paid_minor:
        raise HouseError(HouseCode.BILL_STATE, f"bill {bill} is partly paid: it can no longer be split")
    if (shares is None) == (groups is None):
        raise HouseError(HouseCode.BAD_SPLIT, "a bill is split either by shares or by items")
    parts: list[Part]
    if groups is not None:
        lines = bills.billed_lines(work.transaction, work.site, row.seating)
        parts = split_by_item(lines, row.tax_minor, groups)
    else:
        parts = split_by_share(row.total_minor, row.tax_minor, shares or ())
    work.do("DELETE FROM bill_part WHERE site = ? AND bill = ?", work.site, bill)
    work.transaction.executemany(
        "INSERT INTO bill_part (site, bill, part, due_minor, tax_minor, lines) VALUES (?,?,?,?,?,?)",
        [
            (work.site, bill, number, part.due_minor, part.tax_minor, json.dumps(part.lines))
            for number, part in enumerate(parts, 1)
        ],
    )
    return {
        **shown(row),
        "parts": [
            {"part": number, "due_minor": part.due_minor, "tax_minor": part.tax_minor,
             "lines": [list(line) for line in part.lines]}
            for number, part in enumerate(parts, 1)
        ],
    }  # fmt: skip


def pay(work: Work, bill: int, amount_minor: int, tender: str, reference: str, part: int | None) -> Result:
    """Record a payment that was taken; a sealed bill that is paid in full is settled by it."""
    if tender not in TENDERS:
        raise HouseError(HouseCode.BAD_VALUE, f"a payment is {' or '.join(TENDERS)}, not {tender!r}")
    if len(reference) > REFERENCE_MAX or (tender == "card" and not reference.strip()):
        raise HouseError(HouseCode.BAD_VALUE, f"a card payment needs a reference, {REFERENCE_MAX} at most")
    if amount_minor <= 0:
        raise HouseError(HouseCode.BAD_VALUE, "a payment is more than nothing")
    row = _current(work, bill)
    due = row.total_minor - row.paid_minor
    if part is not None:
        due = min(due, _part_due(work, bill, part))
    if amount_minor > due:
        raise HouseError(HouseCode.OVERPAID, f"{due} is due, not {amount_minor}")
    work.do(
        "INSERT INTO payment (site, payment, bill, part, tender, reference, amount_minor, created_at) "
        "VALUES (?,?,?,?,?,?,?,?)",
        work.site,
        work.lsn,
        bill,
        part,
        tender,
        reference.strip(),
        amount_minor,
        work.now_s,
    )
    paid = find(work, bill)
    if paid.state is BillState.SEALED and paid.paid_minor == paid.total_minor:
        work.do(
            "UPDATE bill SET state = ? WHERE site = ? AND bill = ?",
            BillState.SETTLED.value,
            work.site,
            bill,
        )
        paid = find(work, bill)
    return {
        **shown(paid), "payment": work.lsn, "part": part, "tender": tender, "amount_minor": amount_minor,
    }  # fmt: skip


def _part_due(work: Work, bill: int, part: int) -> int:
    row = work.one(
        "SELECT due_minor FROM bill_part WHERE site = ? AND bill = ? AND part = ?", work.site, bill, part
    )
    if row is None:
        raise HouseError(HouseCode.UNKNOWN_BILL, f"bill {bill} has no part {part}")
    paid = work.one(
        "SELECT COALESCE(SUM(amount_minor - refunded_minor), 0) FROM payment "
        "WHERE site = ? AND bill = ? AND part = ?",
        work.site,
        bill,
        part,
    )
    return int(row[0]) - int(paid[0])


def refund(work: Work, payment: int, amount_minor: int, reason: str) -> Result:
    """Give back some or all of a payment, with a reason."""
    if not reason.strip():
        raise HouseError(HouseCode.REASON_NEEDED, "a refund needs a reason")
    if amount_minor <= 0:
        raise HouseError(HouseCode.BAD_VALUE, "a refund is more than nothing")
    row = work.one(
        "SELECT bill, amount_minor - refunded_minor FROM payment WHERE site = ? AND payment = ?",
        work.site,
        payment,
    )
    if row is None:
        raise HouseError(HouseCode.UNKNOWN_PAYMENT, f"there is no payment {payment}")
    bill, left = row
    if amount_minor > left:
        raise HouseError(HouseCode.OVER_REFUNDED, f"{left} of payment {payment} can be refunded")
    work.do(
        "INSERT INTO refund (site, refund, payment, amount_minor, created_at) VALUES (?,?,?,?,?)",
        work.site,
        work.lsn,
        payment,
        amount_minor,
        work.now_s,
    )
    return {
        **shown(find(work, bill)), "refund": work.lsn, "payment": payment, "amount_minor": amount_minor,
    }  # fmt: skip
