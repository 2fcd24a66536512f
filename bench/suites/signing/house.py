"""Changing and cancelling an order, calling the waiter."""

from __future__ import annotations

from bench.errors import check
from bench.rig import Rig
from bench.suites.house_steps import rows
from bench.suites.signing.common import (
    DOWN,
    ONE_ESPRESSO,
    SUITE,
    UP,
    ask,
)
from bench.suites.steps import (
    ESPRESSO_MINOR,
    OPS,
    good_order_works,
    orders_of,
)
from bench.terminal import COMMITTED, REJECTED
from server.wire.ops import RejectCode


@SUITE.case("a_changed_order_keeps_its_number")
def a_changed_order_keeps_its_number(rig: Rig) -> str:
    """A change replaces an order's lines and total under its number; a reboot later it still can."""
    first = good_order_works(rig)
    changed = ask(rig, "change", op=first.op, lines=[[1, 3, []]])
    check((changed.status, changed.order) == (COMMITTED, first.order), f"the change was answered {changed}")
    found = orders_of(rig, [first.op])[0]
    check(changed.total_minor == found.total_minor == 3 * ESPRESSO_MINOR, f"the ledger says {found}")
    rig.terminal.boot()
    again = ask(rig, "change", op=first.op, lines=[[1, 2, []]])
    check((again.status, again.total_minor) == (COMMITTED, 2 * ESPRESSO_MINOR), f"answered {again}")
    return f"order {first.order}"


@SUITE.case("a_cancelled_order_costs_nothing")
def a_cancelled_order_costs_nothing(rig: Rig) -> None:
    """A cancelled order is off the bill, and cannot be changed or cancelled again."""
    first = good_order_works(rig)
    cancelled = ask(rig, "cancel", op=first.op, reason=2)
    check((cancelled.status, cancelled.order) == (COMMITTED, first.order), f"answered {cancelled}")
    check(orders_of(rig, [first.op])[0].total_minor == 0, "a cancelled order still costs something")
    for answer in (ask(rig, "cancel", op=first.op), ask(rig, "change", op=first.op, lines=[[1, 1, []]])):
        check((answer.status, answer.arg) == (REJECTED, int(RejectCode.ALREADY_CLOSED)), f"answered {answer}")


@SUITE.case("anothers_order_is_not_changed", threat="a change of another terminal's order")
def anothers_order_is_not_changed(rig: Rig) -> None:
    """A terminal cannot change or cancel what another terminal ordered."""
    first = good_order_works(rig)
    with rig.impostor() as impostor:
        impostor.shake_hands()
        theirs = impostor.order(impostor.op(ONE_ESPRESSO, ESPRESSO_MINOR))
        check(theirs.status == COMMITTED, f"answered {theirs}")
        foreign = theirs.op_id.hex()
    for answer in (
        ask(rig, "cancel", op=foreign),
        ask(rig, "change", op=foreign, lines=[[1, 9, []]], total=9 * ESPRESSO_MINOR),
    ):
        check((answer.status, answer.arg) == (REJECTED, int(RejectCode.UNKNOWN_ORDER)), f"answered {answer}")
    found = orders_of(rig, [foreign, first.op])
    check([order.total_minor for order in found] == [ESPRESSO_MINOR] * 2, f"the ledger says {found}")


@SUITE.case("a_waiter_is_called_once")
def a_waiter_is_called_once(rig: Rig) -> None:
    """A call is answered once and noted once, however often its frame is delivered."""
    rig.terminal.online()
    sql = "SELECT count(*) FROM event WHERE kind = 'waiter_called'"
    before = rows(rig, sql)[0][0]
    tap = rig.link.tap(UP, OPS)
    answer = ask(rig, "waiter", reason=3)
    check(answer.status == COMMITTED, f"answered {answer}")
    replies = rig.link.tap(DOWN, "d/+/+/reply")
    rig.link.replay(tap.seen[-1])
    replies.wait()
    check(rows(rig, sql)[0][0] == before + 1, "the waiter was called twice")
