"""Tickets from rows: what the kitchen still has to make, serve, or wait for."""

from __future__ import annotations

from typing import Any

from server.domain.states import LineState
from server.domain.tickets import Placed, Ticket, TicketLine, tickets_of
from server.storage.transaction import Transaction

RECENT_ORDERS = 500
"""How far back tickets of parties go that have left; those of a party that is there never end."""

_OPEN_LINES = (
    "SELECT o.order_number, o.seating, s.table_id, o.created_at, COALESCE(i.station, ''), l.line, l.item, "
    "l.quantity, l.modifiers, l.state, l.course, f.lsn IS NOT NULL, t.at, t.author, o.device "
    "FROM (SELECT p.order_number FROM seating q JOIN orders p ON p.seating = q.id "
    "WHERE q.site = ? AND q.closed_at IS NULL "
    "UNION SELECT p.order_number FROM orders p WHERE p.site = ? AND p.order_number > "
    "(SELECT order_number FROM site WHERE site = ?) - ?) w "
    "JOIN orders o ON o.site = ? AND o.order_number = w.order_number "
    "JOIN seating s ON s.id = o.seating "
    "JOIN order_line l ON l.site = o.site AND l.order_number = o.order_number "
    "LEFT JOIN item_station i ON i.site = l.site AND i.item = l.item "
    "LEFT JOIN fired_course f ON f.site = l.site AND f.order_number = l.order_number AND f.course = l.course "
    "LEFT JOIN line_step t ON t.site = l.site AND t.order_number = l.order_number AND t.line = l.line "
    "AND t.lsn = (SELECT MAX(u.lsn) FROM line_step u WHERE u.site = l.site "
    "AND u.order_number = l.order_number AND u.line = l.line) "
    "WHERE l.state < ? AND o.order_number > ? AND (? = 0 OR COALESCE(i.station, '') = ?) "
    "ORDER BY o.order_number, l.line LIMIT ?"
)
LINES_MAX = 2000


def open_tickets(
    transaction: Transaction, site: str, station: str | None = None, after: int = 0
) -> tuple[list[Ticket], int | None]:
    """Tickets with something not yet served, of one station or of all, of orders above ``after``.

    Returns them oldest first and, where there are more, the order number to go on behind.
    """
    rows = transaction.execute(
        _OPEN_LINES,
        (site, site, site, RECENT_ORDERS, site, int(LineState.SERVED), after, int(station is not None),
         station or "", LINES_MAX + 1),
    ).fetchall()  # fmt: skip
    if len(rows) <= LINES_MAX:
        return tickets_of(_placed(row) for row in rows), None
    last = rows[-1][0]  # its lines may go on beyond the limit: it is the next page's first
    whole = [row for row in rows if row[0] != last]
    return tickets_of(_placed(row) for row in whole), int(whole[-1][0])


def _placed(row: tuple[Any, ...]) -> Placed:
    (
        order,
        seating,
        table,
        at,
        station,
        line,
        item,
        quantity,
        modifiers,
        state,
        course,
        fired,
        since,
        by,
        device,
    ) = row
    chosen = tuple(int(one) for one in modifiers.split(",") if one)
    what = TicketLine(
        line, item, quantity, chosen, LineState(state), course, bool(fired),
        at if since is None else since, f"device:{device}" if by is None else by,
    )  # fmt: skip
    return Placed(order, seating, table, at, station, what)


def shown(ticket: Ticket) -> dict[str, Any]:
    """A ticket as JSON values."""
    return {
        "order": ticket.order, "station": ticket.station, "table": ticket.table, "seating": ticket.seating,
        "at": ticket.at, "state": ticket.state.name.lower(), "held": ticket.held,
        "lines": [
            {"line": line.line, "item": line.item, "quantity": line.quantity,
             "modifiers": list(line.modifiers), "state": line.state.name.lower(), "course": line.course,
             "held": line.held, "since": line.since, "by": line.by}
            for line in ticket.lines
        ],
    }  # fmt: skip


def stations(transaction: Transaction, site: str) -> dict[int, str]:
    """{item: station} of every item that has one."""
    rows = transaction.execute("SELECT item, station FROM item_station WHERE site = ? ORDER BY item", (site,))
    return {int(item): str(station) for item, station in rows}


def steps(transaction: Transaction, site: str, order: int) -> list[dict[str, Any]]:
    """Every step staff took with the lines of an order: {line, state, author, reason, at, lsn}, oldest
    first.
    """
    rows = transaction.execute(
        "SELECT line, state, author, reason, at, lsn FROM line_step WHERE site = ? AND order_number = ? "
        "ORDER BY lsn, line",
        (site, order),
    )
    names = ("line", "author", "reason", "at", "lsn")
    return [
        {"state": LineState(state).name.lower(), **dict(zip(names, (line, *rest), strict=True))}
        for line, state, *rest in rows
    ]
