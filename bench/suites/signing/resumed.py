"""Resumed sessions: no RSA, no replay, nothing lost."""

from __future__ import annotations

from bench.boards.base import INSTRET
from bench.errors import check
from bench.faults.rules import Change, Drop, flip_bit
from bench.rig import Rig
from bench.suites.house_steps import age_last_hello
from bench.suites.signing.common import (
    DOWN,
    RSA_TIMES,
    SUITE,
    UP,
    resume,
    stale_is_refused,
)
from bench.suites.steps import (
    ACCEPTS,
    HELLOS,
    await_refusals,
    good_order_works,
    refusals,
    session_id,
)
from bench.suites.throughput import counting
from bench.wait import until
from server.devices.records import RESUME_CHAIN_S


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


@SUITE.case("a_chain_of_resumes_ends_after_a_day", threat="a resume key stolen long ago")
def a_chain_of_resumes_ends_after_a_day(rig: Rig) -> str:
    """The server takes no Resume once the last Hello is over 24 hours old; the terminal says Hello."""
    good_order_works(rig)
    refused = _resumes_too_old(rig)
    age_last_hello(rig, RESUME_CHAIN_S + 1)
    since = rig.terminal.console.mark()
    rig.terminal.boot()
    event = rig.terminal.await_session(since)
    check(event.data["kind"] == "hello", f"the session after a day came by {event.data['kind']}")
    until(lambda: _resumes_too_old(rig) > refused, "a Resume refused as too old")
    good_order_works(rig)
    return "refused, then a Hello"


def _resumes_too_old(rig: Rig) -> int:
    site = rig.options.site
    return rig.server.ledger.refusals(site).get((site, "t-0001", "resume_too_old"), 0)


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
    stale_is_refused(rig, older)


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
