"""Order lines on their way to the table, what is taken off again, and what has run out."""

from __future__ import annotations

from server.domain.errors import HouseCode, HouseError
from server.domain.states import LINE, BillState, LineState, LineStep, order_state, step
from server.ordering import bills
from server.service.change import Result, Work
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


def set_line_state(work: Work, order: int, line: int, target: LineState) -> Result:
    """Move a line to another state of its life in the kitchen; back only one step at a time."""
    state = _line(work, order, line)[0]
    before = _order_state(work, order)
    for what in _KITCHEN:
        if LINE.get((state, what)) is target:
            break
    else:
        raise HouseError(
            HouseCode.LINE_STATE,
            f"line {line} of order {order} is {state.name.lower()}: it cannot become {target.name.lower()}",
        )
    work.do(
        "UPDATE order_line SET state = ? WHERE site = ? AND order_number = ? AND line = ?",
        int(target),
        work.site,
        order,
        line,
    )
    after = _tell_state(work, order, before)
    return {
        "order": order, "line": line, "state": target.name.lower(), "before": state.name.lower(),
        "order_state": after.name.lower(),
    }  # fmt: skip


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
    work.do(
        "UPDATE order_line SET state = ? WHERE site = ? AND order_number = ? AND line = ?",
        int(after),
        work.site,
        order,
        line,
    )
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
