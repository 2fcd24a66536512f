"""What staff's screens read: the feed of changes, bills, seatings and bookings as JSON values.

Plain reads on any connection; none of them takes a lock.
"""

from __future__ import annotations

import json
from typing import Any

from server.domain.states import LineState, order_state
from server.ordering import bills
from server.service.payments import shown
from server.storage.transaction import Transaction

FEED_MAX = 500


def feed(transaction: Transaction, site: str, after_lsn: int, limit: int = FEED_MAX) -> list[dict[str, Any]]:
    """What happened after an LSN, in the order of the LSN: {lsn, kind, author, reason, at, body}.

    Plain orders appear as kind "ordered" (they leave no event row); refused ops do not appear.
    """
    limit = min(limit, FEED_MAX)
    events = transaction.execute(
        "SELECT lsn, kind, author, reason, created_at, body FROM event WHERE site = ? AND lsn > ? "
        "ORDER BY lsn LIMIT ?",
        (site, after_lsn, limit),
    ).fetchall()
    orders = transaction.execute(
        "SELECT lsn, device, created_at, order_number, seating, table_id FROM orders "
        "WHERE site = ? AND lsn > ? ORDER BY lsn LIMIT ?",
        (site, after_lsn, limit),
    ).fetchall()
    entries = [
        {"lsn": lsn, "kind": kind, "author": author, "reason": reason, "at": at, "body": json.loads(body)}
        for lsn, kind, author, reason, at, body in events
    ]
    entries += [
        {"lsn": lsn, "kind": "ordered", "author": f"device:{device}", "reason": "", "at": at,
         "body": {"order": number, "seating": seating, "table": table}}
        for lsn, device, at, number, seating, table in orders
    ]  # fmt: skip
    return sorted(entries, key=lambda entry: int(entry["lsn"]))[:limit]


def newest_lsn(transaction: Transaction, site: str) -> int:
    """The LSN of the newest committed change."""
    row = transaction.execute("SELECT lsn FROM site WHERE site = ?", (site,)).fetchone()
    return 0 if row is None else int(row[0])


def order(transaction: Transaction, site: str, number: int) -> dict[str, Any] | None:
    """An order with all its lines, cancelled ones too, or None."""
    row = transaction.execute(
        "SELECT o.device, o.seating, s.table_id, o.menu_version, o.total_minor, o.tax_minor, o.lsn, "
        "o.created_at FROM orders o JOIN seating s ON s.id = o.seating "
        "WHERE o.site = ? AND o.order_number = ?",
        (site, number),
    ).fetchone()
    if row is None:
        return None
    lines = transaction.execute(
        "SELECT line, item, quantity, modifiers, unit_minor, total_minor, tax_minor, state, course "
        "FROM order_line WHERE site = ? AND order_number = ? ORDER BY line",
        (site, number),
    ).fetchall()
    names = ("device", "seating", "table", "menu_version", "total_minor", "tax_minor", "lsn", "at")
    return {
        "order": number,
        **dict(zip(names, row, strict=True)),
        "state": order_state(LineState(line[7]) for line in lines).name.lower(),
        "lines": [
            {"line": line[0], "item": line[1], "quantity": line[2],
             "modifiers": [int(modifier) for modifier in line[3].split(",") if modifier],
             "unit_minor": line[4], "total_minor": line[5], "tax_minor": line[6],
             "state": LineState(line[7]).name.lower(), "course": line[8]}
            for line in lines
        ],
    }  # fmt: skip


def bill(transaction: Transaction, site: str, number: int) -> dict[str, Any] | None:
    """A bill with its parts, payments and refunds, and whether a device has sealed it; or None."""
    row = bills.find_bill(transaction, site, number)
    if row is None:
        return None
    sealed = transaction.execute(
        "SELECT seal IS NOT NULL FROM bill WHERE site = ? AND bill = ?", (site, number)
    ).fetchone()[0]
    parts = transaction.execute(
        "SELECT part, due_minor, tax_minor, lines FROM bill_part WHERE site = ? AND bill = ? ORDER BY part",
        (site, number),
    ).fetchall()
    payments = transaction.execute(
        "SELECT payment, part, tender, reference, amount_minor, refunded_minor, created_at FROM payment "
        "WHERE site = ? AND bill = ? ORDER BY payment",
        (site, number),
    ).fetchall()
    paid_as = ("payment", "part", "tender", "reference", "amount_minor", "refunded_minor", "at")
    return {
        **shown(row),
        "sealed": bool(sealed),
        "parts": [
            {"part": part[0], "due_minor": part[1], "tax_minor": part[2], "lines": json.loads(part[3])}
            for part in parts
        ],
        "payments": [dict(zip(paid_as, payment, strict=True)) for payment in payments],
    }


def seatings(transaction: Transaction, site: str, *, only_open: bool = True) -> list[dict[str, Any]]:
    """Seatings, oldest first: {seating, table, covers, total_minor, opened_at, closed_at, merged_into}."""
    names = ("seating", "table", "covers", "total_minor", "opened_at", "closed_at", "merged_into")
    rows = transaction.execute(
        "SELECT id, table_id, covers, total_minor, opened_at, closed_at, merged_into FROM seating "
        f"WHERE site = ? {'AND closed_at IS NULL' if only_open else ''} ORDER BY id",
        (site,),
    )
    return [dict(zip(names, row, strict=True)) for row in rows]


def bookings(transaction: Transaction, site: str, start_at: int, end_at: int) -> list[dict[str, Any]]:
    """Bookings that share a moment with [start_at, end_at), by start."""
    names = ("booking", "name", "covers", "start_at", "end_at", "state", "seating")
    found = transaction.execute(
        "SELECT booking, name, covers, start_at, end_at, state, seating FROM booking "
        "WHERE site = ? AND start_at < ? AND end_at > ? ORDER BY start_at, booking",
        (site, end_at, start_at),
    ).fetchall()
    tables: dict[int, list[str]] = {}
    for number, table in transaction.execute(
        "SELECT t.booking, t.table_id FROM booking_table t "
        "WHERE t.site = ? AND t.start_at < ? AND t.end_at > ? ORDER BY t.booking, t.table_id",
        (site, end_at, start_at),
    ):
        tables.setdefault(number, []).append(table)
    return [{**dict(zip(names, row, strict=True)), "tables": tables.get(row[0], [])} for row in found]
