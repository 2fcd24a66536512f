"""One bit changed on the way, in every kind of frame."""

from __future__ import annotations

from bench.errors import check
from bench.faults.rules import Change, Drop, flip_bit
from bench.rig import Rig
from bench.suites.signing.common import (
    DOWN,
    ONE_ESPRESSO,
    SUITE,
    UP,
    genuine_beacon,
    refuses_beacon,
)
from bench.suites.steps import (
    ACCEPTS,
    ESPRESSO_MINOR,
    HELLOS,
    OPS,
    REPLIES,
    await_refusals,
    await_terminal_refusals,
    committed_once,
    good_order_works,
    order_count,
    orders_of,
    refusals,
    session_id,
    terminal_refusals,
)
from bench.terminal import COMMITTED


@SUITE.case("flipped_beacon_bit_is_refused", threat="one bit changed in the beacon")
def flipped_beacon_bit_is_refused(rig: Rig) -> str:
    """A beacon with one bit flipped, anywhere, is refused."""
    genuine = genuine_beacon(rig)
    bit = rig.random.randrange(8 * len(genuine))
    refuses_beacon(rig, flip_bit(bit)(genuine))
    return f"bit {bit}"


@SUITE.case("flipped_hello_bit_is_refused", threat="one bit changed in the Hello")
def flipped_hello_bit_is_refused(rig: Rig) -> str:
    """A Hello with one bit flipped gets no session; the true one, arriving later, does."""
    link, terminal = rig.link, rig.terminal
    before, refused = session_id(rig), refusals(rig, "t-0001")
    bit = rig.random.randrange(8 * 500)
    rule = link.rule(UP, HELLOS, Change(flip_bit(bit)), times=1)
    since = terminal.console.mark()
    terminal.rpc("rekey")
    link.fired(rule)
    await_refusals(rig, refused, "t-0001")
    check(session_id(rig) == before, "the flipped Hello changed the session")
    link.inject(UP, rule.originals[0], "t-0001")
    terminal.await_session(since)
    good_order_works(rig)
    return f"bit {bit}"


@SUITE.case("flipped_accept_bit_is_refused", threat="one bit changed in the Accept")
def flipped_accept_bit_is_refused(rig: Rig) -> str:
    """An Accept with one bit flipped makes no session on the terminal; the true one does."""
    link, terminal = rig.link, rig.terminal
    refused = terminal_refusals(terminal)
    bit = rig.random.randrange(8 * 500)
    rule = link.rule(DOWN, ACCEPTS, Change(flip_bit(bit)), times=1)
    since = terminal.console.mark()
    terminal.rpc("rekey")
    link.fired(rule)
    await_terminal_refusals(terminal, refused)
    check(not terminal.console.events("session", since), "the terminal took the flipped Accept")
    link.inject(DOWN, rule.originals[0], "t-0001")
    terminal.await_session(since)
    good_order_works(rig)
    return f"bit {bit}"


@SUITE.case("flipped_op_bit_is_refused", threat="one bit changed in any field of an op")
def flipped_op_bit_is_refused(rig: Rig) -> str:
    """Every single bit of an op, flipped one at a time, is refused; the true op still works."""
    with rig.impostor() as impostor:
        impostor.shake_hands()
        op = impostor.op(ONE_ESPRESSO, ESPRESSO_MINOR)
        frame = impostor.seal(op.encode())
        before, refused = order_count(rig), refusals(rig, "t-0008")
        bits = 8 * len(frame)
        for bit in range(bits):
            impostor.say("op", flip_bit(bit)(frame))
        await_refusals(rig, refused, "t-0008", bits)
        check(order_count(rig) == before, "a flipped op became an order")
        since = impostor.mark()
        impostor.say("op", frame)
        reply = impostor.await_reply(op.op_id, since)
    check(reply.status == COMMITTED, f"the true op was answered {reply}")
    return f"{bits} bits, {bits} refusals"


@SUITE.case("op_changed_on_the_link_stays_pending", threat="one bit changed in any field of an op")
def op_changed_on_the_link_stays_pending(rig: Rig) -> None:
    """An op spoilt on its way is refused and stays pending; the true one, arriving later, is one order."""
    rule = rig.link.rule(UP, OPS, Change(flip_bit(rig.random.randrange(8 * 60))), times=1)
    refused = refusals(rig, "t-0001")
    op = rig.terminal.queue()
    rig.link.fired(rule)
    await_refusals(rig, refused, "t-0001")
    check(not orders_of(rig, [op]), "the spoilt op became an order")
    check(op in rig.terminal.rpc("orders")["pending"], "the spoilt op left the journal")
    rig.link.inject(UP, rule.originals[0], "t-0001")
    committed_once(rig, rig.terminal.reply(op))


@SUITE.case("flipped_reply_bit_is_refused", threat="one bit changed in any field of a reply")
def flipped_reply_bit_is_refused(rig: Rig) -> str:
    """A reply with one bit flipped, at 40 places, is refused; the op waits for the true one."""
    terminal, link = rig.terminal, rig.link
    rule = link.rule(DOWN, REPLIES, Drop())
    op = terminal.queue()
    link.fired(rule)
    genuine = rule.originals[0]
    refused = terminal_refusals(terminal)
    bits = rig.random.sample(range(8 * len(genuine.payload)), 40)
    for bit in bits:
        link.inject(DOWN, genuine.with_payload(flip_bit(bit)(genuine.payload)), "t-0001")
    await_terminal_refusals(terminal, refused, len(bits))
    check(op in terminal.rpc("orders")["pending"], "the op left the journal on a false reply")
    link.inject(DOWN, genuine, "t-0001")
    committed_once(rig, terminal.reply(op))
    return f"{len(bits)} bits"
