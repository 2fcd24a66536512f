"""Seatings: a party at a table. At most one is open per table; it may move, join another, and ends paid."""

from __future__ import annotations

from dataclasses import dataclass

from server.domain.errors import HouseCode, HouseError
from server.domain.states import BILL, BillStep, step
from server.ordering import bills
from server.service.change import Result, Work
from server.wire.notices import Notice, NoticeKind
from server.wire.shapes import U32_MAX


@dataclass(frozen=True, slots=True)
class SeatingRow:
    """A stored seating."""

    id: int
    table: str
    total_minor: int
    closed: bool


def check_table(work: Work, table: str) -> None:
    """Raises: HouseError(UNKNOWN_TABLE)."""
    if work.one("SELECT 1 FROM dining_table WHERE site = ? AND table_id = ?", work.site, table) is None:
        raise HouseError(HouseCode.UNKNOWN_TABLE, f"there is no table {table!r}; add it first")


def find_seating(work: Work, seating: int) -> SeatingRow:
    """Raises: HouseError(UNKNOWN_SEATING)."""
    row = work.one(
        "SELECT id, table_id, total_minor, closed_at FROM seating WHERE site = ? AND id = ?",
        work.site,
        seating,
    )
    if row is None:
        raise HouseError(HouseCode.UNKNOWN_SEATING, f"there is no seating {seating}")
    return SeatingRow(row[0], row[1], row[2], row[3] is not None)


def open_seating_row(work: Work, seating: int) -> SeatingRow:
    """A seating that is open. Raises: HouseError(UNKNOWN_SEATING, ALREADY_CLOSED)."""
    found = find_seating(work, seating)
    if found.closed:
        raise HouseError(HouseCode.ALREADY_CLOSED, f"seating {seating} is closed")
    return found


def check_free(work: Work, table: str) -> None:
    """Whether guests may be seated there. Raises: HouseError(TABLE_TAKEN, TABLE_CLOSED)."""
    if table in work.snapshot.closed_tables:
        raise HouseError(HouseCode.TABLE_CLOSED, f"table {table} is closed; open it first")
    taken = work.one(
        "SELECT id FROM seating WHERE site = ? AND table_id = ? AND closed_at IS NULL", work.site, table
    )
    if taken is not None:
        raise HouseError(HouseCode.TABLE_TAKEN, f"table {table} has an open seating ({taken[0]})")


def add_table(work: Work, table: str, seats: int) -> Result:
    """Register a table, or say how many it seats."""
    if not 0 <= seats <= 999:
        raise HouseError(HouseCode.BAD_VALUE, f"a table seats 0 to 999 guests, not {seats}")
    work.do(
        "INSERT INTO dining_table (site, table_id, seats) VALUES (?,?,?) "
        "ON CONFLICT (site, table_id) DO UPDATE SET seats = excluded.seats",
        work.site,
        table,
        seats,
    )
    return {"table": table, "seats": seats}


def close_table(work: Work, table: str) -> Result:
    """Take a table out of service: nobody is seated there, and orders from it are TABLE_CLOSED."""
    check_table(work, table)
    check_free(work, table)
    work.do(
        "INSERT INTO closed_table (site, table_id, reason, closed_at) VALUES (?,?,?,?)",
        work.site,
        table,
        work.reason,
        work.now_s,
    )
    work.recount = True
    return {"table": table, "open": False}


def open_table(work: Work, table: str) -> Result:
    """Put a table into service again; one that is open stays so."""
    check_table(work, table)
    work.do("DELETE FROM closed_table WHERE site = ? AND table_id = ?", work.site, table)
    work.recount = True
    return {"table": table, "open": True}


def open_seating(work: Work, table: str, covers: int) -> Result:
    """Seat a party."""
    if not 0 <= covers <= 999:
        raise HouseError(HouseCode.BAD_VALUE, f"a seating has 0 to 999 covers, not {covers}")
    check_table(work, table)
    check_free(work, table)
    row = work.one(
        "INSERT INTO seating (site, table_id, opened_at, chain, covers) VALUES (?,?,?,?,?) RETURNING id",
        work.site,
        table,
        work.now_s,
        bytes(32),
        covers,
    )
    seating = int(row[0])
    work.tell(table, Notice(NoticeKind.SEATING_OPENED, table, seating, 0))
    return {"seating": seating, "table": table, "covers": covers}


def transfer(work: Work, seating: int, to_table: str) -> Result:
    """Move a party to a free table; its orders and its bill go with it."""
    row = open_seating_row(work, seating)
    if row.table == to_table:
        raise HouseError(HouseCode.SAME_SEATING, f"seating {seating} is already at table {to_table}")
    check_table(work, to_table)
    check_free(work, to_table)
    work.do("UPDATE seating SET table_id = ? WHERE id = ?", to_table, seating)
    work.tell(row.table, Notice(NoticeKind.TRANSFERRED_AWAY, row.table, seating, 0))
    work.tell(to_table, Notice(NoticeKind.TRANSFERRED_HERE, to_table, seating, row.total_minor))
    return {"seating": seating, "from": row.table, "to": to_table}


def merge(work: Work, seating: int, into: int) -> Result:
    """Put a party's orders on another's: every line moves, nothing is paid twice; the first seating ends."""
    if seating == into:
        raise HouseError(HouseCode.SAME_SEATING, "a seating cannot be merged into itself")
    source, target = open_seating_row(work, seating), open_seating_row(work, into)
    total = source.total_minor + target.total_minor
    if total > U32_MAX:
        raise HouseError(HouseCode.BAD_VALUE, "the two seatings together are beyond what a bill can hold")
    for row in (source, target):
        bill = bills.bill_of_seating(work.transaction, work.site, row.id)
        if bill is None:
            continue
        if bill.paid_minor or (row is source and _has_payments(work, bill.bill)):
            raise HouseError(HouseCode.BILL_PENDING, f"seating {row.id} has payments: finish its bill first")
        if row is source:
            work.do("DELETE FROM bill_part WHERE site = ? AND bill = ?", work.site, bill.bill)
            work.do("DELETE FROM bill WHERE site = ? AND bill = ?", work.site, bill.bill)
    work.do("UPDATE orders SET seating = ? WHERE site = ? AND seating = ?", into, work.site, seating)
    work.do("UPDATE seating SET total_minor = ? WHERE id = ?", total, into)
    work.do(
        "UPDATE seating SET total_minor = 0, closed_at = ?, merged_into = ? WHERE id = ?",
        work.now_s,
        into,
        seating,
    )
    bills.free_bookings(work.transaction, work.site, seating)
    work.tell(source.table, Notice(NoticeKind.TRANSFERRED_AWAY, source.table, seating, 0))
    work.tell(target.table, Notice(NoticeKind.TRANSFERRED_HERE, target.table, into, total))
    return {"seating": seating, "into": into, "table": target.table, "total_minor": total}


def _has_payments(work: Work, bill: int) -> bool:
    """Whether money was ever taken on a bill, even if all of it went back: its record is kept for ever."""
    return work.one("SELECT 1 FROM payment WHERE site = ? AND bill = ? LIMIT 1", work.site, bill) is not None


def close(work: Work, seating: int) -> Result:
    """End a seating whose bill is paid, or that never cost anything."""
    row = open_seating_row(work, seating)
    bill = bills.bill_of_seating(work.transaction, work.site, seating)
    if bill is None and row.total_minor:
        raise HouseError(HouseCode.BILL_PENDING, f"seating {seating} has no bill yet; draw it up and pay it")
    if bill is not None:
        if bill.total_minor != row.total_minor:
            raise HouseError(
                HouseCode.BILL_PENDING, f"more was ordered since bill {bill.bill}; draw it up anew"
            )
        if bill.paid_minor != bill.total_minor:
            due = bill.total_minor - bill.paid_minor
            raise HouseError(HouseCode.BILL_PENDING, f"{due} of bill {bill.bill} is still to be paid")
        state = step(BILL, bill.state, BillStep.SETTLE, HouseCode.BILL_STATE, f"bill {bill.bill}")
        work.do(
            "UPDATE bill SET state = ?, closed_at = ? WHERE site = ? AND bill = ?",
            state.value,
            work.now_s,
            work.site,
            bill.bill,
        )
    work.do("UPDATE seating SET closed_at = ? WHERE id = ?", work.now_s, seating)
    bills.free_bookings(work.transaction, work.site, seating)
    work.tell(row.table, Notice(NoticeKind.CLOSED, row.table, seating, row.total_minor))
    return {"seating": seating, "table": row.table, "bill": None if bill is None else bill.bill}
