"""What the cases of suite signing share: the suite, constants of the wire, and steps."""

from __future__ import annotations

from typing import Any

from bench.console import Event
from bench.errors import check
from bench.faults.link import Capture
from bench.faults.mqtt import Publish
from bench.faults.rules import Direction
from bench.impostor import hint_status, is_hint
from bench.rig import Rig
from bench.suites import forging
from bench.suites.house_steps import open_seating
from bench.suites.registry import Suite
from bench.suites.steps import (
    ACCEPTS,
    BEACONS,
    ESPRESSO_ID,
    HELLOS,
    OPS,
    await_terminal_refusals,
    good_order_works,
    session_id,
    terminal_refusals,
)
from bench.terminal import COMMITTED, Reply
from server.wire.frames import HintStatus
from server.wire.ops import Line, RejectCode

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


def stale_is_refused(rig: Rig, recorded: Capture) -> None:
    """Send a recorded Hello or Resume again: it gets the one refusal and leaves the session alone."""
    before = session_id(rig)
    answers = rig.link.tap(DOWN, ACCEPTS)
    rig.link.replay(recorded)
    answer = answers.wait()[0].publish.payload
    check(is_hint(answer) and hint_status(answer) == HELLO_REFUSED, f"answered {answer.hex()}")
    check(session_id(rig) == before, "a recorded handshake changed the session")
    good_order_works(rig)
