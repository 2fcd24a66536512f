"""Order and number of deliveries: each op takes effect once."""

from __future__ import annotations

from bench.errors import check
from bench.faults.rules import Drop, Duplicate, Reorder
from bench.rig import Rig
from bench.suites.signing.common import (
    BODY_MISMATCH,
    DOWN,
    ONE_ESPRESSO,
    SUITE,
    UP,
)
from bench.suites.steps import (
    COLA_ID,
    ESPRESSO_ID,
    ESPRESSO_MINOR,
    OPS,
    REPLIES,
    committed_once,
    each_committed_once,
    order_count,
    orders_of,
)
from bench.terminal import COMMITTED, REJECTED, SOLD_OUT
from server.wire.ops import Line


@SUITE.case("reordered_ops_take_effect_once", threat="ops delivered out of order")
def reordered_ops_take_effect_once(rig: Rig) -> None:
    """Eight ops, each pair swapped on the link: eight orders."""
    rule = rig.link.rule(UP, OPS, Reorder())
    ops = [rig.terminal.queue() for _ in range(8)]
    rig.link.fired(rule, 8)
    for op in ops:
        committed_once(rig, rig.terminal.reply(op))
    each_committed_once(rig, ops)


@SUITE.case("duplicated_ops_take_effect_once", threat="ops delivered twice")
def duplicated_ops_take_effect_once(rig: Rig) -> None:
    """Six ops and all their replies delivered three times: six orders."""
    before = order_count(rig)
    rig.link.rule(UP, OPS, Duplicate(2))
    rig.link.rule(DOWN, REPLIES, Duplicate(2))
    ops = [rig.terminal.queue() for _ in range(6)]
    for op in ops:
        committed_once(rig, rig.terminal.reply(op))
    check(order_count(rig) == before + 6, f"{order_count(rig) - before} orders for 6 ops")


@SUITE.case("swallowed_op_is_sent_again", threat="an op the broker swallowed but acknowledged")
def swallowed_op_is_sent_again(rig: Rig) -> None:
    """An op swallowed but acknowledged is not pruned by a later one's success; it is sent again."""
    terminal, link = rig.terminal, rig.link
    rule = link.rule(UP, OPS, Drop(puback=True), times=1)
    swallowed = terminal.queue()
    link.fired(rule)
    later = terminal.queue()
    committed_once(rig, terminal.reply(later))
    check(swallowed in terminal.rpc("orders")["pending"], "the swallowed op left the journal")
    committed_once(rig, terminal.reply(swallowed))


@SUITE.case("swallowed_reply_is_asked_for_again", threat="a reply the broker swallowed")
def swallowed_reply_is_asked_for_again(rig: Rig) -> None:
    """When the reply is swallowed the op is sent again on the next connection, for the same answer."""
    rule = rig.link.rule(DOWN, REPLIES, Drop(puback=True), times=1)
    op = rig.terminal.queue()
    rig.link.fired(rule)
    rig.terminal.rpc("drop")
    reply = rig.terminal.reply(op)
    committed_once(rig, reply)


@SUITE.case("refused_op_stays_refused_after_restock", threat="an op refused as sold out, delivered again")
def refused_op_stays_refused_after_restock(rig: Rig) -> None:
    """An op refused as sold out stays refused after a restock; a new op gets the goods."""
    with rig.impostor() as impostor:
        impostor.shake_hands()
        total = impostor.order(impostor.op((Line(COLA_ID, 1),), 0)).total_minor
        rig.server.admin("stock", "set", str(COLA_ID), "0")
        try:
            op = impostor.op((Line(COLA_ID, 1),), total)
            first = impostor.order(op)
            check((first.status, first.arg) == (SOLD_OUT, COLA_ID), f"answered {first}")
            rig.server.admin("stock", "set", str(COLA_ID), "1")
            check(impostor.order(op) == first, "the refused op was answered differently after the restock")
            fresh = impostor.order(impostor.op((Line(COLA_ID, 1),), total))
            check(fresh.status == COMMITTED, f"a new op was answered {fresh}")
            check(
                rig.server.ledger.stock(rig.options.site)[COLA_ID] == 0, "the stock is not 0 after one sale"
            )
        finally:
            rig.server.admin("stock", "set", str(COLA_ID), "none")


@SUITE.case("op_id_with_another_body_is_rejected", threat="one op-id with another body")
def op_id_with_another_body_is_rejected(rig: Rig) -> None:
    """One op id with another body is answered BODY_MISMATCH; the stored answer stays what it was."""
    with rig.impostor() as impostor:
        impostor.shake_hands()
        op = impostor.op(ONE_ESPRESSO, ESPRESSO_MINOR)
        first = impostor.order(op)
        other = impostor.op((Line(ESPRESSO_ID, 50),), 50 * ESPRESSO_MINOR, op_id=op.op_id)
        second = impostor.order(other)
        check((second.status, second.arg) == (REJECTED, BODY_MISMATCH), f"answered {second}")
        check(impostor.order(op) == first, "the first body's answer changed")
    check([line.quantity for line in orders_of(rig, [op.op_id.hex()])[0].lines] == [1], "the order changed")
