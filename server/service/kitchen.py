"""Order lines on their way to the table, what is taken off again, and what has run out.

Every step of a line is kept in ``line_step`` with who took it, when and why.
"""

from __future__ import annotations

from server.domain.errors import HouseCode, HouseError
from server.domain.states import LINE, BillState, LineState, LineStep, order_state, step
from server.domain.tickets import FIRST_COURSE
from server.ordering import bills
from server.service.change import Result, Work
from server.service.seatings import open_seating_row
from server.wire.notices import Notice, NoticeKind, order_state_arg

_KITCHEN = (LineStep.PREPARE, LineStep.FINISH, LineStep.SERVE, LineStep.BACK)


def _line(work: Work, order: int, line: int) -> tuple[LineState, int, int, int, int]:
    """State, item, quantity, total and tax of a line. Raises: HouseError(UNKNOWN_ORDER)."""
    row = work.one(
        "SELECT state, item, quantity, total_minor, tax_minor FROM order_line "
        "WHERE site = ? AND order_number = ? AND line = ?",
        work.site,
        order,
        line,
    )
    if row is None:
        raise HouseError(HouseCode.UNKNOWN_ORDER, f"there is no line {line} of an order {order}")
    return LineState(row[0]), row[1], row[2], row[3], row[4]


def _order_state(work: Work, order: int) -> LineState:
    rows = work.all("SELECT state FROM order_line WHERE site = ? AND order_number = ?", work.site, order)
    return order_state(LineState(row[0]) for row in rows)


def _tell_state(work: Work, order: int, before: LineState) -> LineState:
    after = _order_state(work, order)
    if after is not before:
        table, seating, total = work.one(
            "SELECT s.table_id, s.id, s.total_minor FROM orders o JOIN seating s ON s.id = o.seating "
            "WHERE o.site = ? AND o.order_number = ?",
            work.site,
            order,
        )
        arg = order_state_arg(order, after)
        work.tell(table, Notice(NoticeKind.ORDER_STATE, table, seating, total, arg))
    return after


def _store_step(work: Work, order: int, line: int, state: LineState) -> None:
    work.do(
        "UPDATE order_line SET state = ? WHERE site = ? AND order_number = ? AND line = ?",
        int(state),
        work.site,
        order,
        line,
    )
    work.do(
        "INSERT INTO line_step (site, order_number, line, lsn, state, author, reason, at) "
        "VALUES (?,?,?,?,?,?,?,?)",
        work.site,
        order,
        line,
        work.lsn,
        int(state),
        work.author,
        work.reason,
        work.now_s,
    )


def _leads_to(state: LineState, target: LineState) -> bool:
    return any(LINE.get((state, what)) is target for what in _KITCHEN)


def set_line_state(work: Work, order: int, line: int, target: LineState) -> Result:
    """Move a line to another state of its life in the kitchen; back only one step at a time."""
    state = _line(work, order, line)[0]
    before = _order_state(work, order)
    if not _leads_to(state, target):
        raise HouseError(
            HouseCode.LINE_STATE,
            f"line {line} of order {order} is {state.name.lower()}: it cannot become {target.name.lower()}",
        )
    _store_step(work, order, line, target)
    after = _tell_state(work, order, before)
    return {
        "order": order, "line": line, "state": target.name.lower(), "before": state.name.lower(),
        "order_state": after.name.lower(),
    }  # fmt: skip


def set_ticket_state(work: Work, order: int, station: str, target: LineState) -> Result:
    """Move every live line of an order that is made at a station to a state at once; lines there stay."""
    rows = work.all(
        "SELECT l.line, l.state FROM order_line l "
        "LEFT JOIN item_station i ON i.site = l.site AND i.item = l.item "
        "WHERE l.site = ? AND l.order_number = ? AND l.state <> ? AND COALESCE(i.station, '') = ? "
        "ORDER BY l.line",
        work.site,
        order,
        int(LineState.CANCELLED),
        station,
    )
    if not rows:
        raise HouseError(HouseCode.UNKNOWN_ORDER, f"there is nothing of order {order} at station {station!r}")
    before = _order_state(work, order)
    moving = [(line, LineState(state)) for line, state in rows if state != target]
    stuck = next((one for one in moving if not _leads_to(one[1], target)), None)
    if stuck is not None:
        raise HouseError(
            HouseCode.LINE_STATE,
            f"line {stuck[0]} of order {order} is {stuck[1].name.lower()}: it cannot become "
            f"{target.name.lower()}",
        )
    for line, _ in moving:
        _store_step(work, order, line, target)
    after = _tell_state(work, order, before)
    return {
        "order": order, "station": station, "lines": [line for line, _ in moving],
        "state": target.name.lower(), "order_state": after.name.lower(),
    }  # fmt: skip


def fire_course(work: Work, seating: int, course: int) -> Result:
    """Have the kitchen begin a course of a party: what waits for it waits no longer."""
    table = open_seating_row(work, seating).table
    rows = work.all(
        "SELECT DISTINCT l.order_number FROM orders o "
        "JOIN order_line l ON l.site = o.site AND l.order_number = o.order_number "
        "LEFT JOIN fired_course f ON f.site = l.site AND f.order_number = l.order_number "
        "AND f.course = l.course "
        "WHERE o.site = ? AND o.seating = ? AND l.course = ? AND l.state = ? AND f.lsn IS NULL "
        "ORDER BY l.order_number",
        work.site,
        seating,
        course,
        int(LineState.NEW),
    )
    orders = [int(row[0]) for row in rows] if course > FIRST_COURSE else []
    if not orders:
        raise HouseError(
            HouseCode.NOTHING_TO_FIRE, f"nothing of seating {seating} waits for course {course} to be fired"
        )
    work.transaction.executemany(
        "INSERT INTO fired_course (site, order_number, course, lsn, author, fired_at) VALUES (?,?,?,?,?,?)",
        [(work.site, order, course, work.lsn, work.author, work.now_s) for order in orders],
    )
    return {"seating": seating, "table": table, "course": course, "orders": orders}


def set_station(work: Work, item: int, station: str) -> Result:
    """Say where an item is made; "" takes it off every station."""
    _check_item(work, item)
    if station:
        work.do(
            "INSERT INTO item_station (site, item, station) VALUES (?,?,?) "
            "ON CONFLICT (site, item) DO UPDATE SET station = excluded.station",
            work.site,
            item,
            station,
        )
    else:
        work.do("DELETE FROM item_station WHERE site = ? AND item = ?", work.site, item)
    return {"item": item, "station": station}


def set_course(work: Work, order: int, line: int, course: int) -> Result:
    """Say with which course (1 to 9) a line is to be served."""
    if not 1 <= course <= 9:
        raise HouseError(HouseCode.BAD_VALUE, f"a course is 1 to 9, not {course}")
    _line(work, order, line)
    work.do(
        "UPDATE order_line SET course = ? WHERE site = ? AND order_number = ? AND line = ?",
        course,
        work.site,
        order,
        line,
    )
    return {"order": order, "line": line, "course": course}


def void_line(work: Work, order: int, line: int, reason: str) -> Result:
    """Take a line off the bill, with a reason; what was not begun goes back into stock."""
    if not reason.strip():
        raise HouseError(HouseCode.REASON_NEEDED, "a void needs a reason")
    state, item, quantity, total, tax = _line(work, order, line)
    after = step(LINE, state, LineStep.VOID, HouseCode.LINE_STATE, f"line {line} of order {order}")
    before = _order_state(work, order)
    seating, closed_at = work.one(
        "SELECT s.id, s.closed_at FROM orders o JOIN seating s ON s.id = o.seating "
        "WHERE o.site = ? AND o.order_number = ?",
        work.site,
        order,
    )
    if closed_at is not None:
        raise HouseError(HouseCode.ALREADY_CLOSED, f"order {order} is on a closed bill: refund it instead")
    bill = bills.bill_of_seating(work.transaction, work.site, seating)
    if bill is not None and bill.state is not BillState.OPEN:
        raise HouseError(HouseCode.BILL_STATE, f"bill {bill.bill} is {bill.state}: refund it instead")
    _store_step(work, order, line, after)
    work.do(
        "UPDATE orders SET total_minor = total_minor - ?, tax_minor = tax_minor - ? "
        "WHERE site = ? AND order_number = ?",
        total,
        tax,
        work.site,
        order,
    )
    work.do("UPDATE seating SET total_minor = total_minor - ? WHERE id = ?", total, seating)
    if state is LineState.NEW and item in work.snapshot.counted:
        work.do("UPDATE stock SET count = count + ? WHERE site = ? AND item = ?", quantity, work.site, item)
    if bill is not None:
        left = sum(row.total_minor for row in bills.billed_lines(work.transaction, work.site, seating))
        if left < bill.paid_minor:
            raise HouseError(
                HouseCode.OVERPAID, f"bill {bill.bill} has {bill.paid_minor} paid: refund some of it first"
            )
        bills.draw_up(work.transaction, work.site, seating, bill.rounding, work.now_s)
    order_after = _tell_state(work, order, before)
    return {
        "order": order, "line": line, "item": item, "quantity": quantity, "seating": seating,
        "amount_minor": total, "before": state.name.lower(), "order_state": order_after.name.lower(),
    }  # fmt: skip


def _check_item(work: Work, item: int) -> None:
    current = work.snapshot.current
    if current is None or item not in current.prices.items:
        raise HouseError(HouseCode.UNKNOWN_ITEM, f"the current menu has no item {item}")


def set_stock(work: Work, item: int, count: int | None) -> Result:
    """Count an item from now on, or (None) stop counting it."""
    _check_item(work, item)
    if count is None:
        work.do("DELETE FROM stock WHERE site = ? AND item = ?", work.site, item)
    elif not 0 <= count <= 1_000_000:
        raise HouseError(HouseCode.BAD_VALUE, f"stock is 0 to 1000000, not {count}")
    else:
        work.do(
            "INSERT INTO stock (site, item, count) VALUES (?,?,?) "
            "ON CONFLICT (site, item) DO UPDATE SET count = excluded.count",
            work.site,
            item,
            count,
        )
    work.recount = True
    return {"item": item, "count": count}


def set_available(work: Work, item: int, available: bool) -> Result:
    """Take an item off sale ("86 it"), or put it on again; its stock count stays."""
    _check_item(work, item)
    work.do(
        "INSERT INTO item_state (site, item, available) VALUES (?,?,?) "
        "ON CONFLICT (site, item) DO UPDATE SET available = excluded.available",
        work.site,
        item,
        int(available),
    )
    work.recount = True
    return {"item": item, "available": available}
