"""Said before, or said elsewhere: recorded frames sent again, and to another place."""

from __future__ import annotations

from bench.errors import check
from bench.faults.mqtt import Publish
from bench.faults.rules import Hold
from bench.rig import TELLING_BROKER, Rig
from bench.suites.signing.common import (
    DOWN,
    ONE_ESPRESSO,
    SUITE,
    UP,
    WRONG_TABLE,
    genuine_beacon,
    last_op,
    rekey,
    stale_is_refused,
)
from bench.suites.steps import (
    ACCEPTS,
    ESPRESSO_MINOR,
    REPLIES,
    await_refusals,
    await_terminal_refusals,
    committed_once,
    good_order_works,
    order_count,
    refusals,
    session_id,
    terminal_refusals,
)
from bench.terminal import REJECTED
from bench.wait import until


@SUITE.case("replayed_op_gets_the_same_answer", threat="a recorded op sent again")
def replayed_op_gets_the_same_answer(rig: Rig) -> None:
    """A recorded op, sent five more times, gets the identical answer five times and stays one order."""
    capture = last_op(rig)
    first = [c for c in rig.link.captures if c.publish.topic.endswith("/reply")][-1].publish.payload
    before = order_count(rig)
    tap = rig.link.tap(DOWN, REPLIES)
    for _ in range(5):
        rig.link.replay(capture)
    answers = tap.wait(5)
    check(all(a.publish.payload == first for a in answers), "a replayed op got another answer")
    check(order_count(rig) == before, "a replayed op became an order")


@SUITE.case("op_of_an_old_session_is_refused", threat="a recorded op of an older session")
def op_of_an_old_session_is_refused(rig: Rig) -> None:
    """An op recorded in an older session is refused in the new one."""
    capture = last_op(rig)
    rekey(rig)
    before, refused = order_count(rig), refusals(rig, "t-0001")
    rig.link.replay(capture)
    await_refusals(rig, refused, "t-0001")
    check(order_count(rig) == before, "the old op became an order")
    good_order_works(rig)


@SUITE.case("replayed_hello_gets_the_same_accept", threat="a recorded Hello sent again")
def replayed_hello_gets_the_same_accept(rig: Rig) -> None:
    """The identical Hello gets the identical Accept and makes no new session."""
    accepts = rig.link.tap(DOWN, ACCEPTS)
    hello = rekey(rig)
    first = accepts.seen[-1].publish.payload
    before = session_id(rig)
    again = rig.link.tap(DOWN, ACCEPTS)
    rig.link.replay(hello)
    check(again.wait()[0].publish.payload == first, "another Accept for the same Hello")
    check(session_id(rig) == before, "the replayed Hello changed the session")
    good_order_works(rig)


@SUITE.case("older_hello_is_refused", threat="an older Hello sent after a newer one")
def older_hello_is_refused(rig: Rig) -> None:
    """An older Hello after a newer one is refused and leaves the session alone."""
    older = rekey(rig)
    rekey(rig)
    stale_is_refused(rig, older)


@SUITE.case("replayed_accept_is_refused", threat="a recorded Accept sent again")
def replayed_accept_is_refused(rig: Rig) -> None:
    """An Accept of an earlier handshake does not answer a new Hello."""
    terminal, link = rig.terminal, rig.link
    accepts = link.tap(DOWN, ACCEPTS)
    rekey(rig)
    old = accepts.seen[-1]
    hold = Hold()
    rule = link.rule(DOWN, ACCEPTS, hold, times=1)
    refused, since = terminal_refusals(terminal), terminal.console.mark()
    terminal.rpc("rekey")
    link.fired(rule)
    link.replay(old, "t-0001")
    await_terminal_refusals(terminal, refused)
    check(not terminal.console.events("session", since), "the old Accept made a session")
    link.release(hold, DOWN, "t-0001")
    terminal.await_session(since)
    good_order_works(rig)


@SUITE.case("replayed_reply_has_no_effect", threat="a recorded reply sent again")
def replayed_reply_has_no_effect(rig: Rig) -> None:
    """A recorded reply does not answer another op: that one stays pending until its own answer."""
    terminal, link = rig.terminal, rig.link
    last_op(rig)
    old = [c for c in link.captures if c.publish.topic.endswith("/reply")][-1]
    hold = Hold()
    rule = link.rule(DOWN, REPLIES, hold, times=1)
    op = terminal.queue()
    link.fired(rule)
    repeated = terminal.rpc("stats")["sender"]["repeated"]
    link.replay(old, "t-0001")
    until(
        lambda: terminal.rpc("stats")["sender"]["repeated"] > repeated,
        "the old reply noticed as a repetition",
    )
    check(op in terminal.rpc("orders")["pending"], "the old reply answered another op")
    link.release(hold, DOWN, "t-0001")
    committed_once(rig, terminal.reply(op))


@SUITE.case("reflected_op_is_refused", threat="an op sent back to its terminal as a reply")
def reflected_op_is_refused(rig: Rig) -> None:
    """An op sent back to its terminal as a reply is refused."""
    capture = last_op(rig)
    refused = terminal_refusals(rig.terminal)
    rig.link.inject(DOWN, Publish("d/demo/t-0001/reply", capture.publish.payload), "t-0001")
    await_terminal_refusals(rig.terminal, refused)
    good_order_works(rig)


@SUITE.case("cross_device_op_is_refused", threat="an op of one terminal under another's topic")
def cross_device_op_is_refused(rig: Rig) -> None:
    """A terminal's op, and an op sealed for another's name, are refused under one's own topic."""
    capture = last_op(rig)
    before, refused = order_count(rig), refusals(rig, "t-0008")
    with rig.impostor() as impostor:
        impostor.shake_hands()
        impostor.say("op", capture.publish.payload)
        op = impostor.op(ONE_ESPRESSO, ESPRESSO_MINOR)
        impostor.say("op", impostor.seal(op.encode(), device="t-0001"))
        await_refusals(rig, refused, "t-0008", 2)
    check(order_count(rig) == before, "a foreign op became an order")


@SUITE.case("cross_site_op_is_refused", features=(TELLING_BROKER,), threat="an op of another site")
def cross_site_op_is_refused(rig: Rig) -> None:
    """An op sealed for another site, and one sent under another site's topic, change nothing."""
    before, refused = order_count(rig), refusals(rig, "t-0008")
    with rig.impostor() as impostor:
        impostor.shake_hands()
        op = impostor.op(ONE_ESPRESSO, ESPRESSO_MINOR)
        impostor.say("op", impostor.seal(op.encode(), site="elsewhere"))
        await_refusals(rig, refused, "t-0008")
        impostor.publish("o/elsewhere/t-0008/op", impostor.seal(op.encode()))
        await_refusals(rig, refused, "t-0008", 2)
    check(order_count(rig) == before, "an op of another site became an order")


@SUITE.case("cross_table_order_is_rejected", threat="an order for another terminal's table")
def cross_table_order_is_rejected(rig: Rig) -> None:
    """An order for another terminal's table is answered WRONG_TABLE, for ever."""
    before = order_count(rig)
    reply = rig.terminal.reply(rig.terminal.queue(table="9"))
    check((reply.status, reply.arg) == (REJECTED, WRONG_TABLE), f"answered {reply}")
    check(order_count(rig) == before, "an order for another table was committed")
    answers = [a for a in rig.server.ledger.answers(rig.options.site) if a.op_id.hex() == reply.op]
    check(len(answers) == 1 and answers[0].lsn == reply.lsn, f"the refusal is not stored: {answers}")


@SUITE.case("cross_type_frame_is_refused", threat="a frame of one kind in place of another")
def cross_type_frame_is_refused(rig: Rig) -> None:
    """Frames of one kind in place of another are refused on both sides."""
    rig.terminal.online()
    hello = rekey(rig).publish.payload
    op = last_op(rig).publish.payload
    reply = [c for c in rig.link.captures if c.publish.topic.endswith("/reply")][-1].publish.payload
    beacon = genuine_beacon(rig)
    before, refused = order_count(rig), refusals(rig, "t-0001")
    for kind, frame in (("op", hello), ("op", reply), ("op", beacon), ("hello", op), ("hello", beacon)):
        rig.link.inject(UP, Publish(f"o/demo/t-0001/{kind}", frame), "t-0001")
    await_refusals(rig, refused, "t-0001", 5)
    check(order_count(rig) == before, "a frame of another kind became an order")
    terminal = rig.terminal
    seen = terminal_refusals(terminal)
    for topic, frame in (
        ("d/demo/t-0001/reply", hello),
        ("d/demo/t-0001/reply", beacon),
        ("s/demo/beacon", reply),
    ):
        rig.link.inject(DOWN, Publish(topic, frame), "t-0001")
    await_terminal_refusals(terminal, seen, 3)
    good_order_works(rig)
