"""What the server says unasked, and what terminals report."""

from __future__ import annotations

from bench.errors import check
from bench.faults.mqtt import Publish
from bench.faults.rules import flip_bit
from bench.rig import Rig
from bench.suites.house_steps import Staff, open_seating, telemetry_of
from bench.suites.signing.common import (
    DOWN,
    NOTICES,
    ONE_ESPRESSO,
    SUITE,
    TABLE,
    fresh_seating,
    resume,
    settle_bill,
)
from bench.suites.steps import (
    ESPRESSO_MINOR,
    await_refusals,
    await_terminal_refusals,
    good_order_works,
    order_count,
    refusals,
    terminal_refusals,
)
from server.wire.cose import short_mac0
from server.wire.ops import encode_op_message


@SUITE.case("a_terminal_hears_about_its_table", deadline_s=120)
def a_terminal_hears_about_its_table(rig: Rig) -> str:
    """Seating opened, moved away and closed reach the terminal; a new session is told again."""
    fresh_seating(rig)
    console = rig.terminal.console
    since = console.mark()
    good_order_works(rig)
    opened = console.event("notice", since=since, where=lambda data: data["kind"] == 1)
    seating = open_seating(rig, TABLE)
    check(opened.data["seating"] == seating, f"told of seating {opened.data}, the ledger has {seating}")
    since = console.mark()
    resume(rig)
    again = console.event("notice", since=since, where=lambda data: data["kind"] == 1)
    check(again.data["seating"] == seating, f"told {again.data} after the new session")
    staff = Staff(rig)
    staff.post("/v1/tables", table="77", seats=4)
    since = console.mark()
    staff.post(f"/v1/seatings/{seating}/transfer", table="77")
    moved = console.event("notice", since=since, where=lambda data: data["kind"] == 2)
    check(moved.data["seating"] == seating, f"told {moved.data}")
    check(rig.terminal.rpc("screen")["screen"]["seating"] is None, "the guests are still on the screen")
    good_order_works(rig)
    settle_bill(rig)
    console.event("notice", since=since, where=lambda data: data["kind"] == 4)
    return f"seating {seating}"


@SUITE.case("forged_notice_is_refused", threat="a forged or recorded notice")
def forged_notice_is_refused(rig: Rig) -> str:
    """A notice with a flipped bit, one sent again and a reply in its place are refused."""
    rig.terminal.online()
    tap = rig.link.tap(DOWN, NOTICES)
    since = rig.terminal.console.mark()
    good_order_works(rig)
    resume(rig)
    genuine = tap.wait()[-1].publish
    rig.terminal.console.event("notice", since=since)
    reply = [c for c in rig.link.captures if c.publish.topic.endswith("/reply")][-1].publish.payload
    refused, events = terminal_refusals(rig.terminal), len(rig.terminal.console.events("notice"))
    bits = rig.random.sample(range(8 * len(genuine.payload)), 20)
    for payload in [flip_bit(bit)(genuine.payload) for bit in bits] + [genuine.payload, reply]:
        rig.link.inject(DOWN, Publish(genuine.topic, payload), "t-0001")
    await_terminal_refusals(rig.terminal, refused, len(bits) + 2)
    check(len(rig.terminal.console.events("notice")) == events, "a false notice was taken")
    good_order_works(rig)
    return f"{len(bits) + 2} notices"


@SUITE.case("telemetry_reaches_the_server")
def telemetry_reaches_the_server(rig: Rig) -> str:
    """The terminal's own figures are kept, the newest only, and are no answer to anything."""
    rig.terminal.online()
    answers = len(rig.server.ledger.answers(rig.options.site))
    rig.terminal.rpc("telemetry", uptime_s=4711)
    uptime_s, heap_free, reconnects, resent, rssi = telemetry_of(rig, "t-0001")
    check(uptime_s == 4711, f"it says {uptime_s} s")
    check(len(rig.server.ledger.answers(rig.options.site)) == answers, "telemetry was stored as an answer")
    good_order_works(rig)
    return f"{heap_free} bytes free, {reconnects} reconnects, {resent} resent, rssi {rssi}"


@SUITE.case("the_short_tag_carries_no_order", threat="an order under telemetry's truncated tag")
def the_short_tag_carries_no_order(rig: Rig) -> None:
    """An order in telemetry's envelope, with a right 8-byte tag, is refused."""
    with rig.impostor() as impostor:
        impostor.shake_hands()
        before, refused = order_count(rig), refusals(rig, "t-0008")
        assert impostor.keys is not None
        message = encode_op_message(1, impostor.op(ONE_ESPRESSO, ESPRESSO_MINOR).encode())
        key = impostor.keys.device_to_server
        impostor.say("op", short_mac0(key, impostor.sid, message, impostor.op_aad()))
        await_refusals(rig, refused, "t-0008")
        check(order_count(rig) == before, "a weakly protected op became an order")
