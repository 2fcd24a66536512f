"""Judging every op that is not an order: change, cancel, call for the waiter, bill request and bill close.

Each function has its effects in the caller's transaction and returns the verdict; a Rejected leaves nothing
behind, because every check comes before the first write.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from server.domain.states import BillState, LineState
from server.ordering import bills, stock
from server.ordering.lines import insert_lines
from server.ordering.pricing import Rejected, price_order
from server.ordering.verdict import Addressed, Scene, Verdict
from server.wire.errors import Refusal
from server.wire.notices import Notice, NoticeKind, order_state_arg
from server.wire.ops import RejectCode, Status
from server.wire.requests import BillClaim, BillClose, BillRequest, CallWaiter, Cancel, Change
from server.wire.rsa import VerifyKey


@dataclass(frozen=True, slots=True)
class _Target:
    """The order a change or cancel is about; every live line of it is still new."""

    order_number: int
    total_minor: int
    pieces: Counter[int]
    next_line: int


def judge_request(scene: Scene) -> Verdict:
    """The verdict on an op of the right shape. Raises: Rejected."""
    body = scene.op.body
    if isinstance(body, Change):
        return _change(scene, body)
    if isinstance(body, Cancel):
        return _cancel(scene, body)
    if isinstance(body, CallWaiter):
        return _call_waiter(scene, body)
    if isinstance(body, BillRequest):
        return _bill_request(scene, body)
    if isinstance(body, BillClose):
        return _bill_close(scene, body)
    raise Rejected(RejectCode.UNSUPPORTED_TYPE)


def _target(scene: Scene, target: bytes) -> _Target:
    order = scene.transaction.execute(
        "SELECT o.order_number, o.total_minor, o.seating, s.closed_at FROM orders o "
        "JOIN seating s ON s.id = o.seating WHERE o.site = ? AND o.device = ? AND o.op_id = ?",
        (scene.site, scene.device, target),
    ).fetchone()
    if order is None:
        raise Rejected(RejectCode.UNKNOWN_ORDER)
    number, total, seating, closed_at = order
    if seating != scene.seating.id:
        raise Rejected(RejectCode.UNKNOWN_ORDER if closed_at is None else RejectCode.ALREADY_CLOSED)
    lines = scene.transaction.execute(
        "SELECT line, item, quantity, state FROM order_line WHERE site = ? AND order_number = ?",
        (scene.site, number),
    ).fetchall()
    live = [line for line in lines if line[3] != LineState.CANCELLED]
    if not live:
        raise Rejected(RejectCode.ALREADY_CLOSED)
    if any(line[3] != LineState.NEW for line in live):
        raise Rejected(RejectCode.TOO_LATE)
    bill = bills.bill_of_seating(scene.transaction, scene.site, seating)
    if bill is not None and bill.paid_minor:
        raise Rejected(RejectCode.BILL_PENDING)
    pieces: Counter[int] = Counter()
    for _, item, quantity, _ in live:
        pieces[item] += quantity
    return _Target(number, total, pieces, 1 + max(line[0] for line in lines))


def _drop_lines(scene: Scene, order_number: int) -> None:
    scene.transaction.execute(
        "UPDATE order_line SET state = ? WHERE site = ? AND order_number = ?",
        (int(LineState.CANCELLED), scene.site, order_number),
    )


def _change(scene: Scene, body: Change) -> Verdict:
    snapshot, op = scene.snapshot, scene.op
    if snapshot.current is None or op.menu_version not in snapshot.published:
        raise Rejected(RejectCode.UNKNOWN_MENU)
    target = _target(scene, body.target)
    order = price_order(snapshot.current.prices, op.lines)
    if order.total_minor != op.total_minor:
        return Verdict(Status.REPRICE, snapshot.current.version, order.total_minor)
    more = stock.portions(order.lines)
    more.subtract(target.pieces)
    gone = stock.missing(more, snapshot)
    if gone is None:
        gone = stock.take(scene.transaction, scene.site, snapshot.counted, more)
    if gone is not None:
        return Verdict(Status.SOLD_OUT, gone)
    _drop_lines(scene, target.order_number)
    insert_lines(scene.transaction, scene.site, target.order_number, order.lines, first=target.next_line)
    scene.transaction.execute(
        "UPDATE orders SET total_minor = ?, tax_minor = ?, menu_version = ? "
        "WHERE site = ? AND order_number = ?",
        (order.total_minor, order.tax_minor, op.menu_version, scene.site, target.order_number),
    )
    return Verdict(
        Status.COMMITTED,
        total_minor=order.total_minor,
        order_number=target.order_number,
        delta_minor=order.total_minor - target.total_minor,
        event=(
            "order_changed",
            {
                "order": target.order_number, "table": scene.known.table, "seating": scene.seating.id,
                "total_minor": order.total_minor, "before_minor": target.total_minor,
            },
        ),
    )  # fmt: skip


def _cancel(scene: Scene, body: Cancel) -> Verdict:
    target = _target(scene, body.target)
    back = {item: -quantity for item, quantity in target.pieces.items()}
    stock.take(scene.transaction, scene.site, scene.snapshot.counted, back)
    _drop_lines(scene, target.order_number)
    scene.transaction.execute(
        "UPDATE orders SET total_minor = 0, tax_minor = 0 WHERE site = ? AND order_number = ?",
        (scene.site, target.order_number),
    )
    notice = Notice(
        NoticeKind.ORDER_STATE,
        scene.known.table,
        scene.seating.id,
        scene.seating.total_minor - target.total_minor,
        order_state_arg(target.order_number, LineState.CANCELLED),
    )
    return Verdict(
        Status.COMMITTED,
        order_number=target.order_number,
        delta_minor=-target.total_minor,
        event=(
            "order_cancelled",
            {
                "order": target.order_number, "table": scene.known.table, "seating": scene.seating.id,
                "reason": body.reason, "before_minor": target.total_minor,
            },
        ),
        notices=(Addressed(scene.known.table, notice),),
    )  # fmt: skip


def _call_waiter(scene: Scene, body: CallWaiter) -> Verdict:
    said = {"table": scene.known.table, "seating": scene.seating.id, "reason": body.reason}
    return Verdict(Status.COMMITTED, event=("waiter_called", said))


def _bill_request(scene: Scene, body: BillRequest) -> Verdict:
    ordered = scene.transaction.execute(
        "SELECT 1 FROM orders WHERE site = ? AND seating = ? LIMIT 1", (scene.site, scene.seating.id)
    ).fetchone()
    if ordered is None:
        raise Rejected(RejectCode.NO_OPEN_BILL)
    bill, _ = bills.draw_up(
        scene.transaction,
        scene.site,
        scene.seating.id,
        bills.rounding_of(scene.snapshot),
        scene.now_s,
    )
    scene.transaction.execute(
        "UPDATE bill SET shares = ?, tender = ? WHERE site = ? AND bill = ?",
        (body.shares, body.tender, scene.site, bill.bill),
    )
    said = {
        "bill": bill.bill, "table": scene.known.table, "seating": scene.seating.id,
        "total_minor": bill.total_minor, "tax_minor": bill.tax_minor, "shares": body.shares,
        "tender": body.tender,
    }  # fmt: skip
    return Verdict(
        Status.COMMITTED,
        bill.bill,
        bill.total_minor,
        event=("bill_requested", said),
        bill=bill.bill,
    )


def _bill_close(scene: Scene, body: BillClose) -> Verdict:
    bill = bills.find_bill(scene.transaction, scene.site, body.bill)
    if bill is not None and bill.state is not BillState.OPEN:
        raise Rejected(RejectCode.ALREADY_CLOSED)
    if bill is None or bill.seating != scene.seating.id or bill.device != scene.device:
        raise Rejected(RejectCode.NO_OPEN_BILL)
    claim = _opened_claim(scene, body)
    sealed = BillClaim(
        bill.bill, bill.first_op or b"", bill.last_op or b"", bill.answers or 0, bill.chain or b"",
        scene.op.total_minor,
    )  # fmt: skip
    if claim != sealed:
        raise Rejected(RejectCode.BAD_SEAL)
    if not claim.total_minor == bill.total_minor == scene.seating.total_minor:
        raise Rejected(RejectCode.BILL_PENDING)  # ordered, changed or voided since: ask for the bill again
    settled = bill.paid_minor == bill.total_minor
    state = BillState.SETTLED if settled else BillState.SEALED
    scene.transaction.execute(
        "UPDATE bill SET state = ?, seal = ?, closed_at = ? WHERE site = ? AND bill = ?",
        (state.value, body.seal, scene.now_s, scene.site, bill.bill),
    )
    bills.free_bookings(scene.transaction, scene.site, scene.seating.id)
    table = scene.known.table
    notice = Notice(NoticeKind.CLOSED, table, scene.seating.id, bill.total_minor, bill.bill)
    said = {
        "bill": bill.bill, "table": table, "seating": scene.seating.id,
        "total_minor": bill.total_minor, "state": state.value,
    }  # fmt: skip
    return Verdict(
        Status.COMMITTED,
        total_minor=bill.total_minor,
        event=("bill_sealed", said),
        closes=True,
        notices=(Addressed(table, notice),),
    )


def _opened_claim(scene: Scene, body: BillClose) -> BillClaim:
    spki = scene.transaction.execute(
        "SELECT spki FROM device WHERE site = ? AND device = ?", (scene.site, scene.device)
    ).fetchone()[0]
    try:
        return BillClaim.open(body.seal, VerifyKey(bytes(spki), 2048), scene.site, scene.device)
    except Refusal as refusal:
        raise Rejected(RejectCode.BAD_SEAL) from refusal
