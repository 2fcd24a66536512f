"""Suite signing: nobody between terminal and server can change what they say to each other.

One case a row of the threat table in docs/protocol.md, under the name given there. The attacks come over the
hostile link in front of a real terminal, or from an impostor with a registered terminal's keys.
"""

from __future__ import annotations

import json
import time

from bench.errors import check
from bench.faults.link import Capture
from bench.faults.mqtt import Publish
from bench.faults.rules import Change, Direction, Drop, Duplicate, Hold, Reorder, flip_bit
from bench.impostor import Impostor, LoginRefused, hint_status, is_hint
from bench.paths import FIXTURES
from bench.provision import identity, private_key
from bench.rig import Rig
from bench.suites import forging
from bench.suites.registry import Suite
from bench.suites.steps import (
    ACCEPTS,
    BEACONS,
    COLA_ID,
    ESPRESSO_ID,
    ESPRESSO_MINOR,
    HELLOS,
    OPS,
    REPLIES,
    await_refusals,
    await_terminal_refusals,
    committed_once,
    each_committed_once,
    good_order_works,
    order_count,
    orders_of,
    refusals,
    session_id,
    terminal_refusals,
)
from bench.terminal import COMMITTED, REJECTED, SOLD_OUT
from bench.wait import until
from server.wire.cose import mac0, mac_prefix
from server.wire.frames import Hint, HintStatus
from server.wire.ops import Line, RejectCode, encode_op_message
from server.wire.rsa import RsaSigner

UP, DOWN = Direction.UP, Direction.DOWN
SUITE = Suite("signing", "Nobody between terminal and server can change what they say to each other.")
SHORT_TTL_S = 2
ONE_ESPRESSO = (Line(ESPRESSO_ID, 1),)
WRONG_TABLE, BODY_MISMATCH = int(RejectCode.WRONG_TABLE), int(RejectCode.BODY_MISMATCH)
RATE_LIMITED, UNKNOWN_SESSION, HELLO_REFUSED = (int(status) for status in HintStatus)
HMAC_256_64 = b"\xd1\x84\x43\xa1\x01\x04"  # COSE_Mac0 with alg 4 instead of 5
HMAC_256_256 = b"\xd1\x84\x43\xa1\x01\x05"


@SUITE.setup
def a_terminal_is_online(rig: Rig) -> None:
    """Every case finds a terminal with a session."""
    rig.terminal.online()


def rekey(rig: Rig) -> Capture:
    """Make the terminal shake hands again; returns its Hello as it passed the link."""
    tap = rig.link.tap(UP, HELLOS)
    since = rig.terminal.console.mark()
    rig.terminal.rpc("rekey")
    rig.terminal.await_session(since)
    return tap.seen[-1]


def last_op(rig: Rig) -> Capture:
    """Order once, honestly; returns the op as it passed the link."""
    tap = rig.link.tap(UP, OPS)
    good_order_works(rig)
    return tap.seen[-1]


# ---------------------------------------------------------------- honest path


@SUITE.case("signed_order_is_committed")
def signed_order_is_committed(rig: Rig) -> str:
    """An honest order is committed once, and terminal and ledger agree on number and total."""
    reply = good_order_works(rig)
    return f"order {reply.order}, total {reply.total_minor}, {reply.ms:.0f} ms"


@SUITE.case("handshake_makes_a_session")
def handshake_makes_a_session(rig: Rig) -> str:
    """A new handshake replaces the session on both sides."""
    before = session_id(rig)
    rekey(rig)
    after = session_id(rig)
    check(
        after is not None and after != before, f"the server's session is {after!r}, before it was {before!r}"
    )
    event = rig.terminal.console.events("session")[-1]
    rig.measure("handshake", float(event.data["ms"]), "ms")
    check(bytes.fromhex(event.data["sid"]) == after, f"terminal has {event.data['sid']}, server {after!r}")
    return f"session {event.data['sid']}"


# ---------------------------------------------------------------- who speaks


@SUITE.case("unregistered_device_gets_no_session", threat="a terminal nobody registered")
def unregistered_device_gets_no_session(rig: Rig) -> str:
    """A terminal nobody registered does not even get past the broker, with its own or a known name."""
    stranger = identity(7, rig.options.site)
    refused = []
    for device, password in ((stranger.device, stranger.password), ("t-0001", "guess"), ("nobody", "")):
        stranger.device, stranger.password = device, password
        try:
            with Impostor(rig.server.port, stranger):
                pass
        except LoginRefused as error:
            refused.append(str(error))
    check(len(refused) == 3, f"only {len(refused)} of 3 strangers were turned away")
    check(session_id(rig, "t-0007") is None, "the stranger has a session")
    return refused[0]


@SUITE.case("hello_by_another_key_is_refused", threat="a Hello signed by another key than the registered one")
def hello_by_another_key_is_refused(rig: Rig) -> None:
    """A Hello under a registered name, signed by another key, gets the one refusal and no session."""
    another, registered = (RsaSigner(private_key(identity(number))) for number in (6, 8))
    for signer in (another, forging.ClaimingSigner(another, registered.kid)):
        with rig.impostor(signer=signer) as impostor:
            frame, _, _ = impostor.hello()
            impostor.say("hello", frame)
            answer = impostor.await_heard("hello")[0]
        check(is_hint(answer) and hint_status(answer) == HELLO_REFUSED, f"answered {answer.hex()}")
    check(session_id(rig, "t-0008") is None, "a session exists")


def refuses_beacon(rig: Rig, frame: bytes) -> None:
    """Put a beacon before the terminal and make it shake hands: it must refuse it and build on another."""
    terminal = rig.terminal
    terminal.online()
    refused = terminal_refusals(terminal)
    hellos = rig.link.tap(UP, HELLOS)
    since = terminal.console.mark()
    rig.link.inject(DOWN, Publish(f"s/{rig.options.site}/beacon", frame), "t-0001")
    terminal.rpc("rekey")
    await_terminal_refusals(terminal, refused)
    terminal.await_session(since)
    named = {forging.beacon_named_by(capture.publish.payload) for capture in hellos.seen}
    check(
        forging.beacon_hash(frame) not in named, "the terminal sent a Hello for the beacon it should refuse"
    )
    good_order_works(rig)


def genuine_beacon(rig: Rig) -> bytes:
    """The newest beacon that passed the link, waiting for one if need be."""
    seen = [c.publish.payload for c in rig.link.captures if c.publish.topic.endswith("/beacon")]
    return seen[-1] if seen else rig.link.tap(DOWN, BEACONS).wait()[-1].publish.payload


@SUITE.case("false_server_is_refused", threat="a false server with its own root")
def false_server_is_refused(rig: Rig) -> None:
    """A beacon under a false root, also one claiming the true root's key id, is refused: no Hello leaves."""
    genuine = forging.open_beacon(genuine_beacon(rig), rig.options.site)
    evil, root = forging.fixture_signer("evil-root"), forging.fixture_signer("root")
    claiming = forging.false_beacon(genuine, forging.ClaimingSigner(evil, root.kid), "server-sign")
    refuses_beacon(rig, forging.false_beacon(genuine, evil, "server-sign"))
    terminal, link = rig.terminal, rig.link
    link.rule(
        DOWN, BEACONS, Change(lambda payload: claiming)
    )  # at the start there is no other to fall back on
    hellos = link.tap(UP, HELLOS)
    since = terminal.console.mark()
    terminal.boot()
    await_terminal_refusals(terminal, 0)
    check(not hellos.seen, "the terminal sent a Hello to a false server")
    link.clear()
    terminal.rpc("drop")
    terminal.await_session(since)
    good_order_works(rig)


@SUITE.case("false_menu_is_refused", threat="a false menu")
def false_menu_is_refused(rig: Rig) -> str:
    """A menu changed on its way is not stored: the old one stays, and the true one is taken later."""
    terminal, link = rig.terminal, rig.link
    before = terminal.rpc("info")["menu"]
    rule = link.rule(DOWN, "s/+/menu/+", Change(lambda payload: flip_bit(-400)(payload)))
    refused = terminal_refusals(terminal)
    rig.server.admin("menu", "publish", str(FIXTURES / "menu" / "demo.json"), "--next")
    link.fired(rule)
    await_terminal_refusals(terminal, refused)
    check(terminal.rpc("info")["menu"] == before, "the terminal shows the false menu")
    link.clear()
    terminal.rpc("drop")
    event = terminal.console.event("menu", where=lambda data: data["version"] > before, deadline_s=30)
    good_order_works(rig)
    return f"menu {before} kept, then {event.data['version']}"


# ---------------------------------------------------------------- one bit changed


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


# ---------------------------------------------------------------- said before


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
    before = session_id(rig)
    answers = rig.link.tap(DOWN, ACCEPTS)
    rig.link.replay(older)
    answer = answers.wait()[0].publish.payload
    check(is_hint(answer) and hint_status(answer) == HELLO_REFUSED, f"answered {answer.hex()}")
    check(session_id(rig) == before, "the older Hello changed the session")
    good_order_works(rig)


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


# ---------------------------------------------------------------- said elsewhere


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


@SUITE.case("cross_site_op_is_refused", threat="an op of another site")
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


# ---------------------------------------------------------------- order and number of deliveries


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


# ---------------------------------------------------------------- stolen, old, weak


@SUITE.case("suspended_device_loses_its_session", threat="a stolen terminal")
def suspended_device_loses_its_session(rig: Rig) -> None:
    """A suspended terminal loses its session at once; its queued order is committed after reactivation."""
    terminal = rig.terminal
    terminal.online()
    rig.server.admin("devices", "suspend", "t-0001")
    try:
        check(session_id(rig) is None, "the suspended terminal still has a session")
        refused = refusals(rig)
        op = terminal.queue()
        await_refusals(rig, refused)
        check(not orders_of(rig, [op]), "a suspended terminal's order was committed")
    finally:
        rig.server.admin("devices", "activate", "t-0001")
    committed_once(rig, terminal.reply(op, 45))


@SUITE.case("expired_session_is_renewed", threat="a session past its end", deadline_s=90)
def expired_session_is_renewed(rig: Rig) -> None:
    """A session past its end is refused with a hint, and the terminal makes a new one for its order."""
    terminal, server = rig.terminal, rig.server
    with server.restarted_with("--session-ttl", str(SHORT_TTL_S)):
        since = terminal.console.mark()
        terminal.boot()
        terminal.await_session(since)
        old = session_id(rig)
        hints = rig.link.tap(DOWN, REPLIES)
        until(lambda: not _is_live(rig, old), "the session's end", SHORT_TTL_S + 5)
        op = terminal.queue()
        committed_once(rig, terminal.reply(op))
        check(
            any(is_hint(c.publish.payload) for c in hints.seen), "the server did not say the session is over"
        )
        check(session_id(rig) != old, "the old session is still there")
    terminal.boot()
    good_order_works(rig)


def _is_live(rig: Rig, sid: bytes | None) -> bool:
    sessions = [s for s in rig.server.ledger.sessions(rig.options.site) if s.sid == sid]
    return any(session.expires_at > time.time() for session in sessions)


@SUITE.case("older_beacon_is_refused", threat="a beacon older than one already seen")
def older_beacon_is_refused(rig: Rig) -> None:
    """A beacon older than one already verified is refused."""
    genuine_beacon(rig)
    old = next(c.publish.payload for c in rig.link.captures if c.publish.topic.endswith("/beacon"))
    counter = forging.open_beacon(old, rig.options.site).counter
    until(
        lambda: forging.open_beacon(genuine_beacon(rig), rig.options.site).counter > counter,
        "a newer beacon",
        deadline_s=15,
    )
    rekey(rig)  # the newer one is verified and remembered
    refuses_beacon(rig, old)


@SUITE.case("lower_epoch_is_refused", threat="a server key of a lower epoch")
def lower_epoch_is_refused(rig: Rig) -> None:
    """A beacon under a retired server key, certified by the true root but of a lower epoch, is refused."""
    genuine = forging.open_beacon(genuine_beacon(rig), rig.options.site)
    refuses_beacon(
        rig,
        forging.false_beacon(genuine, forging.fixture_signer("root"), "server-sign", epoch=genuine.epoch - 1),
    )


@SUITE.case("release_certificate_is_no_server", threat="a release certificate used as a server's")
def release_certificate_is_no_server(rig: Rig) -> None:
    """A beacon signed by a certified release key is refused: the purpose is part of the certificate."""
    genuine = forging.open_beacon(genuine_beacon(rig), rig.options.site)
    refuses_beacon(
        rig, forging.false_beacon(genuine, forging.fixture_signer("root"), "release", purpose="release")
    )


@SUITE.case("weaker_algorithm_is_refused", threat="a weaker algorithm in the header")
def weaker_algorithm_is_refused(rig: Rig) -> None:
    """HMAC 256/64 instead of 256/256, with a right key and either tag length, is refused."""
    with rig.impostor() as impostor:
        impostor.shake_hands()
        before, refused = order_count(rig), refusals(rig, "t-0008")
        strong = impostor.seal(impostor.op(ONE_ESPRESSO, ESPRESSO_MINOR).encode())
        weak = strong.replace(HMAC_256_256, HMAC_256_64, 1)
        check(weak != strong, "the header was not where it should be")
        impostor.say("op", weak)
        impostor.say("op", weak[:-34] + b"\x48" + weak[-32:-24])
        await_refusals(rig, refused, "t-0008", 2)
        check(order_count(rig) == before, "a weakly protected op became an order")


@SUITE.case("forged_hint_changes_nothing", threat="a forged hint")
def forged_hint_changes_nothing(rig: Rig) -> str:
    """Twenty forged hints cost at most a few handshakes; no op is lost and the next order works."""
    terminal, link = rig.terminal, rig.link
    terminal.online()
    sid = session_id(rig)
    assert sid is not None
    hellos = link.tap(UP, HELLOS)
    for _ in range(10):
        for hint in (
            Hint(HintStatus.UNKNOWN_SESSION, sid, 0),
            Hint(HintStatus.RATE_LIMITED, sid, 4_000_000_000),
        ):
            link.inject(DOWN, Publish("d/demo/t-0001/reply", hint.encode()), "t-0001")
    op = terminal.queue()
    committed_once(rig, terminal.reply(op))
    check(len(hellos.seen) <= 3, f"forged hints made the terminal send {len(hellos.seen)} Hellos")
    return f"{len(hellos.seen)} handshakes"


@SUITE.case("hello_flood_is_limited", threat="a flood of Hellos")
def hello_flood_is_limited(rig: Rig) -> str:
    """A flood of Hellos is limited before any RSA work; another terminal's order is served meanwhile."""
    flood = 200
    with rig.impostor() as impostor:
        frame, _, _ = impostor.hello()
        since = impostor.mark()
        for number in range(flood):
            impostor.say("hello", flip_bit(-1 - number)(frame))
        reply = good_order_works(rig)
        answers = impostor.await_heard("hello", since, flood, deadline_s=30)
    limited = sum(hint_status(answer) == RATE_LIMITED for answer in answers)
    check(all(is_hint(answer) for answer in answers), "a flipped Hello was accepted")
    check(limited >= flood * 3 // 4, f"only {limited} of {flood} were limited")
    return f"{limited} of {flood} limited, an order meanwhile took {reply.ms:.0f} ms"


# ---------------------------------------------------------------- nonsense


@SUITE.case("malformed_frames_are_counted", threat="malformed or oversized frames")
def malformed_frames_are_counted(rig: Rig) -> str:
    """Every malformed vector is a counted refusal, never an order; the next good order works."""
    vectors = json.loads((FIXTURES / "protocol" / "vectors.json").read_text())["negative"]
    before, refused = order_count(rig), refusals(rig, "t-0008")
    sent = 0
    with rig.impostor() as impostor:
        for vector in vectors:
            kind = {"op-frame": "op", "hello-frame": "hello"}.get(vector["kind"])
            if kind is not None:
                impostor.say(kind, bytes.fromhex(vector["hex"]))
                sent += 1
        await_refusals(rig, refused, "t-0008", sent)
        for size in (0, 1, 1025, 60_000):
            impostor.say("op", bytes(size))
    check(order_count(rig) == before, "a malformed frame became an order")
    good_order_works(rig)
    return f"{sent} vectors"


@SUITE.case("misshapen_orders_get_a_code", threat="malformed or oversized frames")
def misshapen_orders_get_a_code(rig: Rig) -> str:
    """MAC-valid orders with impossible contents are answered REJECTED with the fitting code."""
    wrong = {
        RejectCode.UNKNOWN_ITEM: (Line(65535, 1),),
        RejectCode.UNKNOWN_MODIFIER: (Line(ESPRESSO_ID, 1, (65535,)),),
        RejectCode.MODIFIER_RULE: (Line(180, 1),),  # a steak without its doneness
        RejectCode.BAD_QUANTITY: (Line(ESPRESSO_ID, 0),),
        RejectCode.TOO_LARGE: tuple(Line(ESPRESSO_ID, 1) for _ in range(33)),
    }
    with rig.impostor() as impostor:
        impostor.shake_hands()
        before = order_count(rig)
        for code, lines in wrong.items():
            reply = impostor.order(impostor.op(lines, ESPRESSO_MINOR))
            check((reply.status, reply.arg) == (REJECTED, int(code)), f"{code.name}: answered {reply}")
        huge = impostor.order(impostor.op((Line(ESPRESSO_ID, 100),), 100 * ESPRESSO_MINOR))
        check((huge.status, huge.arg) == (REJECTED, int(RejectCode.BAD_QUANTITY)), f"100 pieces: {huge}")
        check(order_count(rig) == before, "an impossible order was committed")
    return ", ".join(code.name for code in wrong)


@SUITE.case("sequence_zero_is_refused", threat="malformed or oversized frames")
def sequence_zero_is_refused(rig: Rig) -> None:
    """A MAC-valid op with sequence number 0 is refused: numbers begin at 1."""
    with rig.impostor() as impostor:
        impostor.shake_hands()
        assert impostor.keys is not None
        before, refused = order_count(rig), refusals(rig, "t-0008")
        payload = encode_op_message(0, impostor.op(ONE_ESPRESSO, ESPRESSO_MINOR).encode())
        where = mac_prefix(impostor.op_aad())
        impostor.say("op", mac0(impostor.keys.device_to_server, impostor.sid, payload, where))
        await_refusals(rig, refused, "t-0008")
        check(order_count(rig) == before, "it became an order")


@SUITE.case("foreign_topic_is_denied", threat="a terminal publishing under another's topic")
def foreign_topic_is_denied(rig: Rig) -> None:
    """A terminal can neither publish under another's topic nor listen to another's answers."""
    refused = refusals(rig, "t-0008")
    capture = last_op(rig)
    with rig.impostor() as impostor:
        check(not impostor.subscribe("d/demo/t-0001/#"), "it may listen to another terminal")
        check(not impostor.subscribe("#"), "it may listen to everything")
        impostor.publish("o/demo/t-0001/op", capture.publish.payload)
        await_refusals(rig, refused, "t-0008", 3)
    good_order_works(rig)


@SUITE.case("a_rotated_server_key_is_accepted")
def a_rotated_server_key_is_accepted(rig: Rig) -> str:
    """After the server key is renewed (a higher epoch) the terminal trusts the new one, and only that."""
    before = forging.open_beacon(genuine_beacon(rig), rig.options.site)
    rig.server.stop()
    rig.server.admin("keys", "rotate")
    rig.server.start()
    until(
        lambda: forging.open_beacon(genuine_beacon(rig), rig.options.site).epoch > before.epoch,
        "the new epoch",
        20,
    )
    rekey(rig)
    good_order_works(rig)
    return f"epoch {before.epoch} to {forging.open_beacon(genuine_beacon(rig), rig.options.site).epoch}"


@SUITE.case("the_server_never_lost_its_temper")
def the_server_never_lost_its_temper(rig: Rig) -> None:
    """After all of this the server's log has no traceback."""
    check("Traceback" not in rig.server.log_text(), "there is a traceback in the server's log")


import bench.suites.signing_more  # noqa: E402, F401 - the suite's other cases register themselves
