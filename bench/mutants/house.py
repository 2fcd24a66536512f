"""Planted bugs of the house: parties, bills, payments, bookings, the kitchen, and calls that are repeated."""

from __future__ import annotations

from bench.mutants.bug import Mutant, mutant
from bench.mutants.rewrite import Edit

SEATINGS = "server.service.seatings"
PAYMENTS = "server.service.payments"
BOOKINGS = "server.service.bookings"
KITCHEN = "server.service.kitchen"
APPLY = "server.ordering.apply"
BILLS = "server.ordering.bills"
REQUESTS = "server.ordering.requests"
MONEY = "server.domain.money"
ONCE = "server.web.idempotency"

HOUSE: tuple[Mutant, ...] = (
    # ---------------------------------------------------------------- parties
    mutant(
        "merge_loses_a_line",
        "every third order stays behind when a party joins another",
        SEATINGS,
        '"UPDATE orders SET seating = ? WHERE site = ? AND seating = ?"',
        '"UPDATE orders SET seating = ? WHERE site = ? AND seating = ? AND order_number % 3 > 0"',
    ),
    mutant(
        "merge_forgets_the_total",
        "a party that joins another brings its orders and not what they cost",
        SEATINGS,
        '"UPDATE seating SET total_minor = ? WHERE id = ?", total, into',
        '"UPDATE seating SET total_minor = ? WHERE id = ?", target.total_minor, into',
    ),
    mutant(
        "merge_after_a_payment",
        "a party joins one whose bill is partly paid",
        SEATINGS,
        "        if bill.paid_minor or (row is source and _has_payments(work, bill.bill)):\n",
        "        if row is source and _has_payments(work, bill.bill):\n",
    ),
    mutant(
        "transfer_keeps_the_table",
        "a party that moves is still seen where it was",
        SEATINGS,
        '"UPDATE seating SET table_id = ? WHERE id = ?", to_table, seating',
        '"UPDATE seating SET table_id = ? WHERE id = ?", row.table, seating',
    ),
    mutant(
        "table_seated_twice",
        "nobody looks whether a table is taken",
        SEATINGS,
        "    if taken is not None:\n",
        "    if taken is not None and table == '':\n",
    ),
    mutant(
        "closed_unpaid",
        "a party leaves before all of its bill is paid",
        SEATINGS,
        "        if bill.paid_minor != bill.total_minor:\n",
        "        if bill.paid_minor > bill.total_minor:\n",
    ),
    # ---------------------------------------------------------------- bills and payments
    mutant(
        "overpaid_by_a_cent",
        "a payment may be a cent more than what is due",
        PAYMENTS,
        "    if amount_minor > due:\n",
        "    if amount_minor > due + 1:\n",
    ),
    mutant(
        "over_refunded_by_a_cent",
        "a refund may be a cent more than what was paid",
        PAYMENTS,
        "    if amount_minor > left:\n",
        "    if amount_minor > left + 1:\n",
    ),
    mutant(
        "part_payment_settles_the_bill",
        "the first payment of a sealed bill settles it",
        PAYMENTS,
        "    if paid.state is BillState.SEALED and paid.paid_minor == paid.total_minor:\n",
        "    if paid.state is BillState.SEALED and paid.paid_minor:\n",
    ),
    mutant(
        "stale_bill_paid",
        "a bill is paid although more was ordered since",
        PAYMENTS,
        "        row.state is BillState.OPEN\n",
        "        row.state is BillState.SETTLED\n",
    ),
    mutant(
        "split_loses_a_cent",
        "one of the cents that are left over when a bill is split goes to nobody",
        MONEY,
        "    for at in by_remainder[:left]:\n",
        "    for at in by_remainder[: max(0, left - 1)]:\n",
    ),
    mutant(
        "bill_tax_rounded_once",
        "a bill's tax is rounded once although its menu says line by line",
        MONEY,
        "        elif rounding is Rounding.LINE:\n",
        "        elif rounding is Rounding.BILL:\n",
    ),
    mutant(
        "cancelled_lines_billed",
        "a bill has the lines that were cancelled, too",
        BILLS,
        "AND l.state <> ? ORDER BY",
        "AND l.state <> ? + 90 ORDER BY",
    ),
    mutant(
        "stale_claim_sealed",
        "a seal over an older state of the bill is taken",
        REQUESTS,
        "    if claim != sealed:\n",
        "    if claim.bill != sealed.bill:\n",
        check="only_the_newest_claim_is_sealed",
    ),
    mutant(
        "bill_closed_below_its_total",
        "a guest closes a bill although more was ordered since",
        REQUESTS,
        "    if not claim.total_minor == bill.total_minor == scene.seating.total_minor:\n",
        "    if not claim.total_minor == bill.total_minor:\n",
    ),
    # ---------------------------------------------------------------- orders under way
    mutant(
        "changed_after_the_kitchen_began",
        "an order is changed while it is cooked",
        REQUESTS,
        "    if any(line[3] != LineState.NEW for line in live):\n",
        "    if any(line[3] == LineState.CANCELLED for line in live):\n",
    ),
    mutant(
        "changed_after_a_payment",
        "an order is changed although its bill is partly paid",
        REQUESTS,
        "    if bill is not None and bill.paid_minor:\n",
        "    if bill is not None and bill.paid_minor < 0:\n",
    ),
    mutant(
        "changed_at_another_seating",
        "an order of a party that has gone is changed",
        REQUESTS,
        "    if seating != scene.seating.id:\n",
        "    if seating < 0:\n",
    ),
    mutant(
        "cancelled_line_cooked",
        "a line that was cancelled goes on in the kitchen",
        "server.domain.states",
        "    (LineState.SERVED, LineStep.VOID): LineState.CANCELLED,\n",
        "    (LineState.SERVED, LineStep.VOID): LineState.CANCELLED,\n"
        "    (LineState.CANCELLED, LineStep.SERVE): LineState.SERVED,\n",
    ),
    mutant(
        "void_keeps_the_bill",
        "a bill is not brought up to date when a line is taken off",
        KITCHEN,
        "        bills.draw_up(work.transaction, work.site, seating, bill.rounding, work.now_s)\n",
        "",
    ),
    mutant(
        "void_keeps_the_total",
        "a party still owes for a line that was taken off",
        KITCHEN,
        '"UPDATE seating SET total_minor = total_minor - ? WHERE id = ?", total, seating',
        '"UPDATE seating SET total_minor = total_minor - ? WHERE id = ?", 0, seating',
    ),
    mutant(
        "void_returns_what_was_cooked",
        "a line that was begun goes back into stock when it is taken off",
        KITCHEN,
        "    if state is LineState.NEW and item in work.snapshot.counted:\n",
        "    if item in work.snapshot.counted:\n",
    ),
    # ---------------------------------------------------------------- bookings and calls
    mutant(
        "party_leaves_and_keeps_its_booking",
        "the tables of a booking stay taken when its party has gone",
        BILLS,
        '"UPDATE booking_table SET live = 0 WHERE site = ? AND live = 1 AND booking IN "',
        '"UPDATE booking_table SET live = 1 WHERE site = ? AND live = 1 AND booking IN "',
    ),
    mutant(
        "cancelled_booking_keeps_its_tables",
        "the tables of a cancelled booking stay taken",
        BOOKINGS,
        '"UPDATE booking_table SET live = 0 WHERE site = ? AND booking = ?"',
        '"UPDATE booking_table SET live = 1 WHERE site = ? AND booking = ?"',
    ),
    # ---------------------------------------------------------------- courses and closed tables
    mutant(
        "course_of_the_whole_order",
        "a line that is served later takes the lines after it along",
        KITCHEN,
        '"UPDATE order_line SET course = ? WHERE site = ? AND order_number = ? AND line = ?"',
        '"UPDATE order_line SET course = ? WHERE site = ? AND order_number = ? AND line >= ?"',
    ),
    mutant(
        "cancelled_lines_fired",
        "a course is fired of which nothing is to be made any more",
        KITCHEN,
        "l.course = ? AND l.state = ? AND f.lsn IS NULL",
        "l.course = ? AND l.state >= ? AND f.lsn IS NULL",
    ),
    mutant(
        "closed_table_takes_orders",
        "orders from a table that is out of service are taken",
        APPLY,
        "    if op.table in snapshot.closed_tables:\n",
        "    if op.table in snapshot.closed_tables and not op.lines:\n",
    ),
    mutant(
        "one_closed_table_closes_all",
        "orders are refused as from a closed table while any table is closed",
        APPLY,
        "    if op.table in snapshot.closed_tables:\n",
        "    if snapshot.closed_tables:\n",
    ),
    Mutant(
        "call_done_twice",
        "a call that is repeated under its key is done again",
        (
            Edit(ONCE, "    if row is not None:\n        if bytes", "    if row == ():\n        if bytes"),
            Edit(
                ONCE,
                '        "INSERT INTO call_result (site, token_id',
                '        "INSERT OR REPLACE INTO call_result (site, token_id',
            ),
        ),
    ),
)
