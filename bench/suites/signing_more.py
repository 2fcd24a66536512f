"""Suite signing, continued: resumed sessions, changes, bills and their seals, notices, telemetry."""

from __future__ import annotations

from typing import Any

from bench.boards.base import INSTRET
from bench.console import Event
from bench.errors import check
from bench.faults.link import Capture
from bench.faults.mqtt import Publish
from bench.faults.rules import Change, Drop, flip_bit
from bench.impostor import hint_status, is_hint
from bench.provision import identity, private_key
from bench.rig import Rig
from bench.suites.house_steps import Staff, evidence_holds, open_seating, rows, telemetry_of
from bench.suites.signing import DOWN, HELLO_REFUSED, ONE_ESPRESSO, SUITE, UP
from bench.suites.steps import (
    ACCEPTS,
    ESPRESSO_MINOR,
    HELLOS,
    OPS,
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
from bench.suites.throughput import counting
from bench.terminal import COMMITTED, REJECTED, Reply
from server.wire.cose import short_mac0
from server.wire.ops import Op, OpType, RejectCode, encode_op_message
from server.wire.requests import BillClaim, BillClose, BillRequest
from server.wire.rsa import RsaSigner

NOTICES = "d/+/+/notice"
RSA_TIMES = 100
TABLE = "1"


def ask(rig: Rig, do: str, **arguments: Any) -> Reply:
    """A request on the terminal, and its final answer."""
    return rig.terminal.reply(str(rig.terminal.rpc(do, **arguments)["op"]))


def resume(rig: Rig) -> tuple[Capture, Event]:
    """Make the terminal resume its session; returns what it sent and its own word on it."""
    tap = rig.link.tap(UP, HELLOS)
    since = rig.terminal.console.mark()
    rig.terminal.rpc("rekey", resume=True)
    event = rig.terminal.await_session(since)
    return tap.seen[-1], event


def fresh_seating(rig: Rig) -> None:
    """Close what is open at the terminal's table, so that a bill has a known beginning."""
    rig.terminal.online()
    if open_seating(rig, TABLE) is not None:
        good_order_works(rig)
        settle_bill(rig)


def settle_bill(rig: Rig) -> tuple[Reply, Reply]:
    """Ask for the bill and seal it; both answers."""
    asked = ask(rig, "bill", shares=1, tender=1)
    check(asked.status == COMMITTED, f"the bill was answered {asked}")
    closed = ask(rig, "pay")
    check(closed.status == COMMITTED, f"the sealed bill was answered {closed}")
    return asked, closed


# ---------------------------------------------------------------- resumed sessions


@SUITE.case("a_rebooted_terminal_resumes_its_session", threat="a Resume in place of a Hello")
def a_rebooted_terminal_resumes_its_session(rig: Rig) -> str:
    """After a reboot the terminal resumes with one HMAC where a Hello needs its RSA key; orders go on."""
    good_order_works(rig)
    before = session_id(rig)
    tap = rig.link.tap(UP, HELLOS)
    since = rig.terminal.console.mark()
    rig.terminal.boot()
    event = rig.terminal.await_session(since)
    frame = tap.seen[-1].publish.payload
    check(event.data["kind"] == "resume", f"the session after the reboot came by {event.data['kind']}")
    check(frame[:1] == b"\xd1", f"the terminal sent {frame[:2].hex()}, not a MACed Resume")
    check(session_id(rig) not in (None, before), "the session is the old one")
    good_order_works(rig)
    return f"{len(frame)} bytes"


@SUITE.case("a_resume_costs_no_rsa", features=(INSTRET,), deadline_s=120)
def a_resume_costs_no_rsa(rig: Rig) -> str:
    """A Resume is made with a hundredth of the instructions of a Hello."""
    terminal = counting(rig)
    cost: dict[str, int] = {}
    for kind in ("hello", "resume"):
        for _ in range(2):  # the second has no new beacon to verify
            since = terminal.console.mark()
            terminal.rpc("rekey", resume=kind == "resume")
            event = terminal.await_session(since)
            check(event.data["kind"] == kind, f"the session came by {event.data['kind']}, not {kind}")
            made = int(terminal.rpc("stats")["control"]["costs"][kind])
            cost[kind] = min(made, cost.get(kind, made))
    for kind, instructions in cost.items():
        rig.measure(f"{kind}_instructions", instructions, "instructions")
    check(cost["resume"] * RSA_TIMES < cost["hello"], f"a Resume took {cost['resume']:,} instructions")
    return f"{cost['resume']:,} instead of {cost['hello']:,} instructions"


@SUITE.case("flipped_resume_bit_is_refused", threat="one bit changed in the Resume")
def flipped_resume_bit_is_refused(rig: Rig) -> str:
    """A Resume with one bit flipped gets no session; the terminal then proves itself with a Hello."""
    terminal, link = rig.terminal, rig.link
    terminal.online()
    refused, bit = refusals(rig, "t-0001"), rig.random.randrange(8 * 100)
    rule = link.rule(UP, HELLOS, Change(flip_bit(bit)), times=1)
    since = terminal.console.mark()
    terminal.rpc("rekey", resume=True)
    link.fired(rule)
    await_refusals(rig, refused, "t-0001")
    event = terminal.await_session(since)
    check(event.data["kind"] in ("hello", "resume"), "no session was made")
    check(rule.originals[0].payload[:1] == b"\xd1", "what was changed was no Resume")
    good_order_works(rig)
    return f"bit {bit}, then a {event.data['kind']}"


@SUITE.case("replayed_resume_gets_the_same_accept", threat="a recorded Resume sent again")
def replayed_resume_gets_the_same_accept(rig: Rig) -> None:
    """The identical Resume gets the identical Accept and makes no new session."""
    accepts = rig.link.tap(DOWN, ACCEPTS)
    capture, _ = resume(rig)
    first, before = accepts.seen[-1].publish.payload, session_id(rig)
    again = rig.link.tap(DOWN, ACCEPTS)
    rig.link.replay(capture)
    check(again.wait()[0].publish.payload == first, "another Accept for the same Resume")
    check(session_id(rig) == before, "the replayed Resume changed the session")
    good_order_works(rig)


@SUITE.case("spent_resume_is_refused", threat="a Resume of a session that was replaced")
def spent_resume_is_refused(rig: Rig) -> None:
    """A Resume whose session has been replaced is refused: every resume key works once."""
    older, _ = resume(rig)
    resume(rig)
    before = session_id(rig)
    answers = rig.link.tap(DOWN, ACCEPTS)
    rig.link.replay(older)
    answer = answers.wait()[0].publish.payload
    check(is_hint(answer) and hint_status(answer) == HELLO_REFUSED, f"answered {answer.hex()}")
    check(session_id(rig) == before, "the spent Resume changed the session")
    good_order_works(rig)


@SUITE.case("a_lost_accept_costs_no_session", threat="the answer to a Resume swallowed")
def a_lost_accept_costs_no_session(rig: Rig) -> None:
    """When the Accept of a Resume is lost, a power cycle later the terminal still gets a session."""
    terminal, link = rig.terminal, rig.link
    terminal.online()
    rule = link.rule(DOWN, ACCEPTS, Drop(puback=True), times=1)
    terminal.rpc("rekey", resume=True)
    link.fired(rule)
    since = terminal.console.mark()
    terminal.boot()
    event = terminal.await_session(since)
    check(event.data["kind"] == "hello", "the spent key made a second session")
    good_order_works(rig)


# ---------------------------------------------------------------- change, cancel, call


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


# ---------------------------------------------------------------- the bill


@SUITE.case("a_bill_is_sealed_over_every_answer", threat="a bill nobody signed for", deadline_s=120)
def a_bill_is_sealed_over_every_answer(rig: Rig) -> str:
    """The terminal seals a bill over every answer of the seating; the evidence holds with its key alone."""
    fresh_seating(rig)
    first = good_order_works(rig)
    kept = good_order_works(rig)
    ask(rig, "cancel", op=first.op)
    refused = rig.terminal.reply(rig.terminal.queue(table="9"))
    check(refused.status == REJECTED, f"answered {refused}")
    ask(rig, "change", op=kept.op, lines=[[1, 2, []]])
    asked = ask(rig, "bill", shares=2, tender=2)
    check((asked.status, asked.total_minor) == (COMMITTED, 2 * ESPRESSO_MINOR), f"the bill: {asked}")
    claim = rig.terminal.rpc("claim")
    check((claim["first"], claim["last"], claim["count"]) == (first.op, asked.op, 6), f"it claims {claim}")
    closed = ask(rig, "pay")
    check((closed.status, closed.total_minor) == (COMMITTED, asked.total_minor), f"sealed: {closed}")
    checked = evidence_holds(rig, asked.arg, rig.folder)
    check(checked.returncode == 0, f"the evidence does not hold: {checked.stdout}{checked.stderr}")
    check(open_seating(rig, TABLE) is None, "the seating is still open")
    return f"bill {asked.arg}, {claim['count']} answers, {closed.ms:.0f} ms"


@SUITE.case("the_seal_survives_power_cuts", threat="a power cut before the bill", deadline_s=180)
def the_seal_survives_power_cuts(rig: Rig) -> str:
    """Power cuts after orders, before and after the bill was asked for: the bill is sealed all the same."""
    fresh_seating(rig)
    terminal = rig.terminal
    for _ in range(3):
        good_order_works(rig)
    terminal.boot()
    op = terminal.queue()
    terminal.boot()
    committed_once(rig, terminal.reply(op))
    asked = ask(rig, "bill")
    check(asked.status == COMMITTED, f"answered {asked}")
    terminal.boot()
    terminal.online()
    terminal.rpc("wait", **{"for": "idle"})
    closed = ask(rig, "pay")
    check((closed.status, closed.total_minor) == (COMMITTED, 4 * ESPRESSO_MINOR), f"answered {closed}")
    checked = evidence_holds(rig, asked.arg, rig.folder)
    check(checked.returncode == 0, f"the evidence does not hold: {checked.stdout}{checked.stderr}")
    return f"bill {asked.arg}"


@SUITE.case("false_bill_seal_is_rejected", threat="a bill seal over something else, or by another key")
def false_bill_seal_is_rejected(rig: Rig) -> str:
    """Seals with another count, chain, total or key are BAD_SEAL; the true one closes the bill after them."""
    with rig.impostor() as impostor:
        impostor.shake_hands()
        who, seen = impostor.who, [impostor.order(impostor.op(ONE_ESPRESSO, ESPRESSO_MINOR))]

        def op(kind: OpType, total: int, body: BillRequest | BillClose) -> Op:
            op_id = rig.random.randbytes(12)
            return Op(kind, op_id, who.table, (), impostor.menu_version, total, None, body)

        asked = impostor.order(op(OpType.BILL_REQUEST, 0, BillRequest(1, 0)))
        check(asked.status == COMMITTED, f"the bill was answered {asked}")
        row = rows(rig, "SELECT first_op, last_op, answers, chain FROM bill WHERE bill = ?", asked.arg)[0]
        true = BillClaim(asked.arg, bytes(row[0]), bytes(row[1]), row[2], bytes(row[3]), asked.total_minor)
        check(true.chain == asked.chain and true.last == asked.op_id, "the server seals something else")
        false = [
            BillClaim(true.bill, true.first, true.last, true.count + 1, true.chain, true.total_minor),
            BillClaim(true.bill, true.first, true.last, true.count, seen[0].chain, true.total_minor),
            BillClaim(true.bill, true.last, true.last, true.count, true.chain, true.total_minor),
            BillClaim(true.bill, true.first, true.last, true.count, true.chain, true.total_minor - 1),
        ]
        seals = [claim.seal(impostor.signer, who.site, who.device) for claim in false]
        seals += [
            true.seal(RsaSigner(private_key(identity(1))), who.site, who.device),
            true.seal(impostor.signer, who.site, "t-0001"),
        ]
        for seal in seals:
            body = BillClose(true.bill, seal)
            answer = impostor.order(op(OpType.BILL_CLOSE, true.total_minor, body))
            check((answer.status, answer.arg) == (REJECTED, int(RejectCode.BAD_SEAL)), f"answered {answer}")
        body = BillClose(true.bill, true.seal(impostor.signer, who.site, who.device))
        last = impostor.order(op(OpType.BILL_CLOSE, true.total_minor, body))
        check(last.status == COMMITTED, f"the true seal was answered {last}")
    return f"{len(seals)} false seals"


# ---------------------------------------------------------------- notices and telemetry


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
